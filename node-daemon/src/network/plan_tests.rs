use proptest::prelude::*;

use super::*;

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn wanted(text: &str) -> Option<Subnet> {
    text.to_owned().try_into().ok()
}

fn claim(subnet: &str, kind: ClaimKind) -> Claim {
    Claim { subnet: net(subnet), kind, by: format!("{kind:?} {subnet}"), same_namespace: false }
}

fn sibling(subnet: &str) -> Claim {
    Claim { same_namespace: true, ..claim(subnet, ClaimKind::ActiveNetwork) }
}

fn pool() -> Ipv4Net {
    net("10.88.0.0/16")
}

fn fresh(wanted: Option<Subnet>, claims: &[Claim]) -> Result<Plan, Conflict> {
    plan(Uuid::from_u128(0), wanted, Present::Absent, pool(), claims)
}

#[test]
fn a_free_subnet_is_granted_as_asked() {
    let claims = [claim("192.168.122.0/24", ClaimKind::ActiveNetwork), claim("0.0.0.0/0", ClaimKind::Route)];
    assert_eq!(fresh(wanted("10.20.0.0/24"), &claims), Ok(Plan::Create(net("10.20.0.0/24"))));
}

#[test]
fn a_clash_names_the_other_network() {
    for other in ["10.20.0.0/24", "10.20.0.128/25", "10.20.0.0/16"] {
        for kind in [ClaimKind::ActiveNetwork, ClaimKind::StoppedNetwork, ClaimKind::Address] {
            let clash = Conflict::Clash { subnet: net("10.20.0.0/24"), with: format!("{kind:?} {other}") };
            assert_eq!(fresh(wanted("10.20.0.0/24"), &[claim(other, kind)]), Err(clash));
        }
    }
}

#[test]
fn a_wider_route_is_no_clash_but_an_equal_or_narrower_one_is() {
    let asked = || wanted("10.20.0.0/24");
    assert!(fresh(asked(), &[claim("10.0.0.0/8", ClaimKind::Route)]).is_ok());
    for route in ["10.20.0.0/24", "10.20.0.64/26"] {
        assert!(fresh(asked(), &[claim(route, ClaimKind::Route)]).is_err(), "{route}");
    }
}

#[test]
fn a_route_into_a_pool_stands_against_every_subnet_there_and_one_past_it_against_none() {
    let pools = [net("10.88.0.0/16"), net("10.20.0.0/16")];
    let asked = |route| {
        let claims = into_pools(vec![claim(route, ClaimKind::Route)], &pools);
        fresh(wanted("10.20.5.0/28"), &claims).is_ok()
    };
    assert!(!asked("10.20.0.0/16") && !asked("10.20.4.0/22"));
    assert!(asked("10.0.0.0/8") && asked("0.0.0.0/0") && asked("10.20.6.0/24"));
}

#[test]
fn the_pool_may_lie_within_a_wide_route_but_avoids_routes_into_it() {
    let claims = [claim("10.0.0.0/8", ClaimKind::Route), claim("10.88.0.0/17", ClaimKind::Route)];
    assert_eq!(fresh(None, &claims), Ok(Plan::Create(net("10.88.128.0/24"))));
}

#[test]
fn the_choice_follows_the_uid_and_wraps_around() {
    let last = plan(Uuid::from_u128(255), None, Present::Absent, pool(), &[]);
    assert_eq!(last, Ok(Plan::Create(net("10.88.255.0/24"))));
    let taken = [claim("10.88.255.0/24", ClaimKind::Address)];
    let wrapped = plan(Uuid::from_u128(255), None, Present::Absent, pool(), &taken);
    assert_eq!(wrapped, Ok(Plan::Create(net("10.88.0.0/24"))));
}

#[test]
fn a_full_pool_is_said_to_be_full() {
    assert_eq!(fresh(None, &[claim("10.80.0.0/12", ClaimKind::Address)]), Err(Conflict::PoolFull));
    let narrow = plan(Uuid::nil(), None, Present::Absent, net("10.88.0.0/25"), &[]);
    assert_eq!(narrow, Err(Conflict::PoolFull));
}

#[test]
fn a_namespace_that_has_its_share_of_the_pool_leaves_the_rest_to_others() {
    let full = Err(Conflict::ShareFull { share: 64, all: 256 });
    // Sixteen addresses in each of many /24s keep others out as whole ones do.
    for length in [24, 28] {
        let mut held: Vec<Claim> = (0..63).map(|n| sibling(&format!("10.88.{n}.0/{length}"))).collect();
        assert!(fresh(None, &held).is_ok());
        held.push(sibling("10.88.63.0/28"));
        assert_eq!((fresh(None, &held), fresh(wanted("10.88.99.0/28"), &held)), (full.clone(), full.clone()));
        assert!(fresh(wanted("10.88.63.16/28"), &held).is_ok(), "a /24 that it has anyhow");
        assert!(fresh(wanted("10.20.0.0/16"), &held).is_ok(), "another pool");
        let others: Vec<Claim> = held.into_iter().map(|it| Claim { same_namespace: false, ..it }).collect();
        assert!(fresh(None, &others).is_ok(), "another namespace");
    }
    assert_eq!(fresh(None, &[sibling("10.88.0.0/18")]), full, "what was wide before this rule counts whole");
    assert!(plan(Uuid::nil(), None, Present::Absent, net("10.88.7.0/24"), &[]).is_ok(), "one is always had");
}

fn active(subnet: &str, guests: Guests) -> Present {
    Present::Active { subnet: Some(net(subnet)), guests }
}

fn again(wanted: Option<Subnet>, present: Present, claims: &[Claim]) -> Result<Plan, Conflict> {
    plan(Uuid::nil(), wanted, present, pool(), claims)
}

#[test]
fn a_running_network_that_the_host_came_to_overlap_takes_no_further_guest() {
    for kind in [ClaimKind::Address, ClaimKind::Route] {
        let claims = [claim("10.88.7.0/25", kind)];
        let clash = Conflict::Clash { subnet: net("10.88.7.0/24"), with: format!("{kind:?} 10.88.7.0/25") };
        let connected = active("10.88.7.0/24", Guests::Connected);
        assert_eq!(again(None, connected, &claims), Err(clash.clone()));
        assert_eq!(again(None, connected, &[]), Ok(Plan::Ready), "until the host has gone from there");
        let empty = active("10.88.7.0/24", Guests::None);
        assert_eq!(again(None, empty, &claims), Ok(Plan::Create(net("10.88.0.0/24"))), "it moves");
        assert_eq!(again(wanted("10.88.7.0/24"), empty, &claims), Err(clash), "an object says where it is");
    }
}

#[test]
fn a_running_network_minds_neither_other_networks_nor_wider_routes() {
    let claims = [claim("10.88.7.0/24", ClaimKind::StoppedNetwork), claim("10.0.0.0/8", ClaimKind::Route)];
    for guests in [Guests::None, Guests::Connected] {
        assert_eq!(again(None, active("10.88.7.0/24", guests), &claims), Ok(Plan::Ready));
    }
}

#[test]
fn a_subnet_of_a_pool_that_was_changed_is_left_as_soon_as_nobody_is_on_it() {
    let (old, first) = (net("10.99.7.0/24"), Ok(Plan::Create(net("10.88.0.0/24"))));
    assert_eq!(again(None, Present::Stopped(Some(old)), &[]), first);
    assert_eq!(again(None, active("10.99.7.0/24", Guests::None), &[]), first);
    let outside = Err(Conflict::OutsidePool { subnet: old });
    assert_eq!(again(None, active("10.99.7.0/24", Guests::Connected), &[]), outside);
    assert_eq!(
        again(wanted("10.99.7.0/24"), active("10.99.7.0/24", Guests::Connected), &[]),
        Ok(Plan::Ready)
    );
}

#[test]
fn a_stopped_network_starts_as_it_was() {
    let stopped = Present::Stopped(Some(net("10.88.7.0/24")));
    let later = [claim("10.88.7.0/24", ClaimKind::StoppedNetwork)];
    assert_eq!(plan(Uuid::nil(), None, stopped, pool(), &later), Ok(Plan::Start));
}

#[test]
fn a_stopped_network_moves_when_we_chose_its_subnet_and_clashes_when_somebody_else_did() {
    let stopped = Present::Stopped(Some(net("10.88.0.0/24")));
    let claims = [claim("10.88.0.0/24", ClaimKind::Address)];
    assert_eq!(plan(Uuid::nil(), None, stopped, pool(), &claims), Ok(Plan::Create(net("10.88.1.0/24"))));
    assert!(plan(Uuid::nil(), wanted("10.88.0.0/24"), stopped, pool(), &claims).is_err());
}

#[test]
fn a_stopped_network_with_another_subnet_than_asked_is_made_anew() {
    for kept in [None, Some(net("10.88.0.0/24"))] {
        let now = plan(Uuid::nil(), wanted("10.20.0.0/24"), Present::Stopped(kept), pool(), &[]);
        assert_eq!(now, Ok(Plan::Create(net("10.20.0.0/24"))));
    }
}

fn any_net(
    range: std::ops::Range<u32>,
    lengths: std::ops::RangeInclusive<u8>,
) -> impl Strategy<Value = Ipv4Net> {
    (range, lengths).prop_map(|(bits, length)| Ipv4Net::new(bits.into(), length).unwrap().trunc())
}

fn any_claim() -> impl Strategy<Value = Claim> {
    let kinds = [ClaimKind::ActiveNetwork, ClaimKind::StoppedNetwork, ClaimKind::Address, ClaimKind::Route];
    let near = any_net(0x0a57_0000..0x0a5a_0000, 12..=30);
    (near, proptest::sample::select(kinds.to_vec())).prop_map(|(subnet, kind)| Claim {
        subnet,
        kind,
        by: subnet.to_string(),
        same_namespace: false,
    })
}

proptest! {
    #[test]
    fn a_chosen_subnet_is_of_the_pool_and_overlaps_nobody(
        uid: u128, claims in proptest::collection::vec(any_claim(), 0..40),
    ) {
        let uid = Uuid::from_u128(uid);
        let first = plan(uid, None, Present::Absent, pool(), &claims);
        prop_assert_eq!(&first, &plan(uid, None, Present::Absent, pool(), &claims));
        let Ok(Plan::Create(subnet)) = first else {
            // Full means full: every /24 has somebody against it.
            for subnet in pool().subnets(24).unwrap() {
                prop_assert!(find_clash(subnet, pool(), &claims).is_some());
            }
            return Ok(());
        };
        prop_assert!(pool().contains(&subnet) && subnet.prefix_len() == 24);
        for claim in &claims {
            let wide_route = claim.kind == ClaimKind::Route && claim.subnet.prefix_len() < 16;
            prop_assert!(wide_route || !overlap(claim.subnet, subnet), "{:?}", claim);
        }
    }

    #[test]
    fn an_asked_subnet_is_granted_or_the_refusal_names_one_that_overlaps_it(
        subnet in any_net(0x0a57_0000..0x0a5a_0000, 16..=28),
        claims in proptest::collection::vec(any_claim(), 0..10),
    ) {
        match fresh(wanted(&subnet.to_string()), &claims) {
            Ok(Plan::Create(granted)) => prop_assert_eq!(granted, subnet),
            Err(Conflict::Clash { with, .. }) => prop_assert!(overlap(net(&with), subnet)),
            // Nobody offers such a one; the plan does not give it either.
            Err(Conflict::ShareFull { .. }) => prop_assert!(pool().contains(&subnet) && subnet.prefix_len() < 18),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn a_created_network_is_ready_after_it_was_started(uid: u128, claims in proptest::collection::vec(any_claim(), 0..10)) {
        let uid = Uuid::from_u128(uid);
        if let Ok(Plan::Create(subnet)) = plan(uid, None, Present::Absent, pool(), &claims) {
            let stopped = Present::Stopped(Some(subnet));
            prop_assert_eq!(plan(uid, None, stopped, pool(), &claims), Ok(Plan::Start));
            let active = Present::Active { subnet: Some(subnet), guests: Guests::None };
            prop_assert_eq!(plan(uid, None, active, pool(), &claims), Ok(Plan::Ready));
        }
    }
}
