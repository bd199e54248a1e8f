//! Which images of the cache stay, which go, and whether another may come. Pure.
//!
//! ```text
//! needed by a virtual machine    never goes
//! fetched ahead                  goes only for a virtual machine, most of all from who has fetched most ahead
//! needed by nobody               goes first, the longest idle before the others; after an hour in any case
//! ```
//!
//! Each namespace may fill its share of the budget and no more, so that one alone cannot take it all. An image that two
//! namespaces need counts for both: what one of them does then moves nothing for the other. While needs are unknown,
//! those count that were known last, and who brought an image; then nothing goes. What nobody needs any more counts for who
//! needed it last until it can go: else who forgets one image after the other would fill the cache with them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::{Digest, Purpose};

/// An image that nobody needs goes after this long, so that a virtual machine made again soon finds it still there.
const AGED: Duration = Duration::from_secs(3600);
/// Before that it goes only for want of room, and not while somebody may just be making a disk on it, which no record
/// names yet: that takes seconds.
pub(super) const SETTLED: Duration = Duration::from_secs(300);

/// The namespaces that need an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Need {
    /// Those whose virtual machines stand on it or are about to.
    pub(crate) machines: BTreeSet<String>,
    /// Those that have it fetched ahead.
    pub(crate) ahead: BTreeSet<String>,
}

/// What is known of who needs which image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Somebody may need any of them.
    #[default]
    Unknown,
    /// These are needed, and no others.
    Known(HashMap<Digest, Need>),
}

/// One image of the cache, whole or on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) digest: Digest,
    /// Bytes it has, or will have as far as that is known.
    pub(super) bytes: u64,
    /// Those of them that are on the disk.
    pub(super) present: u64,
    pub(super) need: Need,
    /// How long no virtual machine has needed it or asked for it; `None` where that is not known, or it is just being
    /// fetched.
    pub(super) idle: Option<Duration>,
}

/// Bytes that images may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// All together.
    pub(super) budget: u64,
    /// Those of one namespace.
    pub(super) share: u64,
    /// What can still be written to the disk: neither reserved for the host nor promised to guests.
    pub(super) spare: u64,
}

/// A download that wants to go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    pub(super) digest: Digest,
    pub(super) namespace: &'a str,
    pub(super) purpose: Purpose,
    /// Bytes the image will have, as far as that is known.
    pub(super) bytes: u64,
    /// Those of them that are not on the disk yet.
    pub(super) more: u64,
}

/// What there is too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// The namespace's share of the budget.
    Share,
    /// The budget.
    Budget,
    /// Free disk space.
    Disk,
}

impl Piece {
    fn is_idle(&self, least: Duration) -> bool {
        self.need.machines.is_empty() && self.idle.is_some_and(|idle| idle >= least)
    }

    /// Whether it is only fetched ahead, and may go for a virtual machine.
    fn is_ahead(&self) -> bool {
        !self.need.ahead.is_empty() && self.is_idle(SETTLED)
    }

    fn is_of(&self, namespace: &str) -> bool {
        self.need.machines.contains(namespace) || self.need.ahead.contains(namespace)
    }
}

/// What goes now: what has aged, and what is too much for the budget and needed by nobody.
pub(super) fn collect(pieces: &[Piece], budget: u64) -> Vec<Digest> {
    let mut gone: Vec<&Piece> = idle(pieces, AGED);
    let mut left = sum(pieces).saturating_sub(gone.iter().map(|piece| piece.bytes).sum());
    for piece in idle(pieces, SETTLED).into_iter().skip(gone.len()) {
        if left <= budget {
            break;
        }
        left -= piece.bytes;
        gone.push(piece);
    }
    gone.iter().map(|piece| piece.digest).collect()
}

/// What has to go so that this download can go on; `busy` are under way and stay.
pub(super) fn admit(
    pieces: &[Piece],
    busy: &HashSet<Digest>,
    limits: Limits,
    ask: Ask<'_>,
) -> Result<Vec<Digest>, Lack> {
    let others: Vec<Piece> = pieces.iter().filter(|piece| piece.digest != ask.digest).cloned().collect();
    let mut gone = own(&others, busy, limits, ask)?;
    let mut wish = Wish::of(&others, limits, ask);
    for piece in &gone {
        wish.loses(piece);
    }
    for piece in candidates(&others, busy, ask.purpose) {
        if wish.lack().is_none() {
            break;
        }
        if !gone.iter().any(|other| other.digest == piece.digest) {
            wish.loses(piece);
            gone.push(piece);
        }
    }
    match wish.lack() {
        Some(lack) => Err(lack),
        None => Ok(gone.iter().map(|piece| piece.digest).collect()),
    }
}

/// What the namespace itself has to give up: its virtual machines come before what it has fetched ahead.
fn own<'a>(
    others: &'a [Piece],
    busy: &HashSet<Digest>,
    limits: Limits,
    ask: Ask<'_>,
) -> Result<Vec<&'a Piece>, Lack> {
    let stands = |piece: &&Piece| match ask.purpose {
        Purpose::Machine => piece.need.machines.contains(ask.namespace),
        Purpose::Ahead => piece.is_of(ask.namespace),
    };
    let firm: u64 = others.iter().filter(stands).map(|piece| piece.bytes).sum();
    if firm.saturating_add(ask.bytes) > limits.share {
        return Err(Lack::Share);
    }
    let mut all: u64 =
        others.iter().filter(|piece| piece.is_of(ask.namespace)).map(|piece| piece.bytes).sum();
    let mut gone = Vec::new();
    for piece in others.iter().filter(|piece| is_alone(piece, ask.namespace) && !busy.contains(&piece.digest))
    {
        if all.saturating_add(ask.bytes) <= limits.share {
            break;
        }
        all -= piece.bytes;
        gone.push(piece);
    }
    Ok(gone)
}

/// Whether this namespace alone has it fetched ahead, and no virtual machine needs it.
fn is_alone(piece: &Piece, namespace: &str) -> bool {
    piece.is_ahead() && piece.need.ahead.len() == 1 && piece.need.ahead.contains(namespace)
}

/// What may go for want of room, in this order.
fn candidates<'a>(others: &'a [Piece], busy: &HashSet<Digest>, purpose: Purpose) -> Vec<&'a Piece> {
    let mut all = idle(others, SETTLED);
    if purpose == Purpose::Machine {
        all.extend(ahead(others));
    }
    all.retain(|piece| !busy.contains(&piece.digest));
    all
}

/// What nobody has needed for this long, the longest first.
fn idle(pieces: &[Piece], least: Duration) -> Vec<&Piece> {
    let mut idle: Vec<&Piece> =
        pieces.iter().filter(|piece| piece.need.ahead.is_empty() && piece.is_idle(least)).collect();
    idle.sort_by_key(|piece| (std::cmp::Reverse(piece.idle), piece.digest));
    idle
}

/// What is only fetched ahead, first of those namespaces that have fetched most ahead. Who shares an image with a
/// namespace of few keeps it as long.
fn ahead(pieces: &[Piece]) -> Vec<&Piece> {
    let mut ahead: Vec<&Piece> = pieces.iter().filter(|piece| piece.is_ahead()).collect();
    let mut total: BTreeMap<&str, u64> = BTreeMap::new();
    for piece in &ahead {
        for namespace in &piece.need.ahead {
            *total.entry(namespace).or_default() += piece.bytes;
        }
    }
    let least =
        |piece: &Piece| piece.need.ahead.iter().filter_map(|one| total.get(one.as_str())).min().copied();
    ahead.sort_by_key(|piece| (std::cmp::Reverse(least(piece)), piece.digest));
    ahead
}

fn sum(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| piece.bytes).fold(0, u64::saturating_add)
}

/// What a download takes beside what stays, against what there is.
struct Wish {
    bytes: u64,
    budget: u64,
    more: u64,
    spare: u64,
}

impl Wish {
    fn of(others: &[Piece], limits: Limits, ask: Ask<'_>) -> Self {
        let announced = others.iter().map(|piece| piece.bytes.saturating_sub(piece.present));
        Self {
            bytes: sum(others).saturating_add(ask.bytes),
            budget: limits.budget,
            more: announced.fold(ask.more, u64::saturating_add),
            spare: limits.spare,
        }
    }

    fn loses(&mut self, piece: &Piece) {
        self.bytes = self.bytes.saturating_sub(piece.bytes);
        self.spare = self.spare.saturating_add(piece.present);
    }

    /// The disk is named first: more budget would not help there.
    fn lack(&self) -> Option<Lack> {
        match () {
            () if self.more > self.spare => Some(Lack::Disk),
            () if self.bytes > self.budget => Some(Lack::Budget),
            () => None,
        }
    }
}

#[cfg(test)]
#[path = "stock_tests.rs"]
mod tests;
