//! Which subnet a network gets, and what has to be done for it to run. Pure.
//!
//! ```text
//! absent ── a free subnet ──► Create        stopped, subnet still free ──► Start        active, subnet still free ──► Ready
//! ```
//! Whether a subnet is still free is asked at every start: the host may have come to another network meanwhile.
//! Called by [`Networks`](super::Networks) with what it read from libvirt and from the kernel.

use std::collections::HashSet;

use ipnet::Ipv4Net;
use uuid::Uuid;

use super::values::Subnet;

/// Length of the subnets taken from the pool: 253 guests, and a whole /16 pool holds 256 of them.
const CHOSEN_LENGTH: u8 = 24;
/// One namespace has networks in this part of the pool's /24s at most, so that one that fills its share leaves others
/// three quarters. A narrower subnet counts as the /24 around it, or sixteen addresses here and there would do as well.
const SHARE: usize = 4;

/// A range of addresses somebody on the node uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The range.
    pub(crate) subnet: Ipv4Net,
    /// What claims it.
    pub(crate) kind: ClaimKind,
    /// The claimant, as the end of a sentence ("… overlaps `by`").
    pub(crate) by: String,
    /// Whether it is a network of the same namespace as the one that is planned.
    pub(crate) same_namespace: bool,
}

/// What claims a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClaimKind {
    /// A libvirt network that is running.
    ActiveNetwork,
    /// A libvirt network that is defined and may be started any time.
    StoppedNetwork,
    /// An address that the host has, with the subnet around it, or one that it depends on.
    Address,
    /// A route of the host.
    Route,
}

/// The libvirt network of ours as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Present {
    /// Not defined.
    Absent,
    /// Defined with this subnet, not running, so nobody is connected.
    Stopped(Option<Ipv4Net>),
    /// Running with this subnet.
    Active {
        /// The subnet, where it can be read.
        subnet: Option<Ipv4Net>,
        /// Whether it can be moved.
        guests: Guests,
    },
}

/// Whether guests are connected to a running network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guests {
    /// Nobody is.
    None,
    /// Some are, and run on whatever happens.
    Connected,
}

/// What brings the network up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// It runs.
    Ready,
    /// Start it as it is defined.
    Start,
    /// Define it (again, stopped where it runs) with this subnet, then start it.
    Create(Ipv4Net),
}

/// Why no subnet fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// The range overlaps another.
    Clash { subnet: Ipv4Net, with: String },
    /// The range was taken from a pool that the node does not have any more, and guests are on it.
    OutsidePool { subnet: Ipv4Net },
    /// Each /24 of the pool overlaps something.
    PoolFull,
    /// Its namespace has networks in `share` of the `all` /24s of the pool.
    ShareFull { share: usize, all: usize },
}

/// The same claims, where a route into a pool, or to all of it, stands against each subnet that overlaps it, however narrow:
/// who offers a pool did not offer what lies behind that route. One wider than the pool leads past it.
pub(crate) fn into_pools(claims: Vec<Claim>, pools: &[Ipv4Net]) -> Vec<Claim> {
    let into = |claim: &Claim| {
        claim.kind == ClaimKind::Route && pools.iter().any(|pool| pool.contains(&claim.subnet))
    };
    let one = |claim| if into(&claim) { Claim { kind: ClaimKind::Address, ..claim } } else { claim };
    claims.into_iter().map(one).collect()
}

/// What to do for a network. `claims` are those of everybody else.
///
/// A network keeps its subnet while that is free; a subnet that we chose is chosen anew when it is not. Where guests are
/// connected they run on, and nobody joins them until it is free again.
pub(crate) fn plan(
    uid: Uuid,
    wanted: Option<Subnet>,
    present: Present,
    pool: Ipv4Net,
    claims: &[Claim],
) -> Result<Plan, Conflict> {
    let stays = |kept: Ipv4Net| wanted.is_none_or(|wanted| wanted.net() == kept);
    match present {
        Present::Active { subnet: None, .. } => Ok(Plan::Ready),
        Present::Active { subnet: Some(kept), guests } => {
            let host = |kind| matches!(kind, ClaimKind::Address | ClaimKind::Route);
            match unfit(kept, wanted, pool, claims.iter().filter(|claim| host(claim.kind))) {
                None => Ok(Plan::Ready),
                Some(conflict) if guests == Guests::Connected => Err(conflict),
                Some(_) => anew(uid, wanted, pool, claims),
            }
        }
        Present::Stopped(Some(kept)) if stays(kept) => {
            // It was here before networks that are merely defined.
            let running = claims.iter().filter(|claim| claim.kind != ClaimKind::StoppedNetwork);
            match unfit(kept, wanted, pool, running) {
                None => Ok(Plan::Start),
                Some(_) => anew(uid, wanted, pool, claims),
            }
        }
        Present::Stopped(_) | Present::Absent => anew(uid, wanted, pool, claims),
    }
}

/// Why a subnet cannot be kept; one that an object names was found to be offered before.
fn unfit<'a>(
    kept: Ipv4Net,
    wanted: Option<Subnet>,
    pool: Ipv4Net,
    claims: impl Iterator<Item = &'a Claim>,
) -> Option<Conflict> {
    if wanted.is_none() && !pool.contains(&kept) {
        return Some(Conflict::OutsidePool { subnet: kept });
    }
    find_clash(kept, kept, claims).map(|claim| Conflict::Clash { subnet: kept, with: claim.by.clone() })
}

fn anew(uid: Uuid, wanted: Option<Subnet>, pool: Ipv4Net, claims: &[Claim]) -> Result<Plan, Conflict> {
    let subnet = match wanted {
        Some(wanted) => granted(wanted.net(), claims)?,
        None => chosen(uid, pool, claims)?,
    };
    share_left(subnet, pool, claims).map(|()| Plan::Create(subnet))
}

/// Whether the namespace may have this subnet, too.
fn share_left(subnet: Ipv4Net, pool: Ipv4Net, claims: &[Claim]) -> Result<(), Conflict> {
    let siblings = claims.iter().filter(|claim| claim.same_namespace);
    let mut held: HashSet<Ipv4Net> = siblings.flat_map(|claim| blocks(claim.subnet, pool)).collect();
    let before = held.len();
    held.extend(blocks(subnet, pool));
    let all = 1_usize << CHOSEN_LENGTH.saturating_sub(pool.prefix_len());
    let share = (all / SHARE).max(1);
    if held.len() > before && held.len() > share {
        return Err(Conflict::ShareFull { share, all });
    }
    Ok(())
}

/// The /24s of the pool that a subnet lies in or holds.
fn blocks(subnet: Ipv4Net, pool: Ipv4Net) -> impl Iterator<Item = Ipv4Net> {
    let around = Ipv4Net::new(subnet.network(), subnet.prefix_len().min(CHOSEN_LENGTH));
    let blocks = around.into_iter().flat_map(|net| net.trunc().subnets(CHOSEN_LENGTH)).flatten();
    blocks.filter(move |block| pool.contains(block))
}

fn granted(subnet: Ipv4Net, claims: &[Claim]) -> Result<Ipv4Net, Conflict> {
    match find_clash(subnet, subnet, claims) {
        Some(claim) => Err(Conflict::Clash { subnet, with: claim.by.clone() }),
        None => Ok(subnet),
    }
}

/// The first free /24 of the pool, beginning at a place that follows from the UID: the same network mostly has the
/// same subnet on every node and when it is made again, and a new network does not inherit the addresses of an old one.
fn chosen(uid: Uuid, pool: Ipv4Net, claims: &[Claim]) -> Result<Ipv4Net, Conflict> {
    let subnets = || pool.subnets(CHOSEN_LENGTH).into_iter().flatten();
    let count = 1_usize << CHOSEN_LENGTH.saturating_sub(pool.prefix_len());
    let start = usize::try_from(uid.as_u128() % count as u128).unwrap_or(0);
    let mut candidates = subnets().skip(start).chain(subnets().take(start));
    candidates.find(|&subnet| find_clash(subnet, pool, claims).is_none()).ok_or(Conflict::PoolFull)
}

/// The first claim that stands against `subnet`.
///
/// A route wider than `scope` does not: the default route, or a company's 10.0.0.0/8 behind a gateway, stays in force
/// for everything but the more specific subnet.
fn find_clash<'a>(
    subnet: Ipv4Net,
    scope: Ipv4Net,
    claims: impl IntoIterator<Item = &'a Claim>,
) -> Option<&'a Claim> {
    claims.into_iter().find(|claim| {
        let wider = claim.subnet.prefix_len() < scope.prefix_len();
        overlap(claim.subnet, subnet) && !(claim.kind == ClaimKind::Route && wider)
    })
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
