use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;
const NODE: Share = Share { cpu: 16, memory: 64 * GIB, storage: 640 * GIB };

fn share(cpu: u64, gib: u64, disk: u64) -> Share {
    Share { cpu, memory: gib * GIB, storage: disk * GIB }
}

fn uid(number: usize) -> Uuid {
    Uuid::from_u128(number as u128)
}

fn numbered(claims: &[Claim]) -> BTreeMap<Uuid, Claim> {
    claims.iter().enumerate().map(|(n, claim)| (uid(n), *claim)).collect()
}

fn made(has: Share) -> Claim {
    Claim { has, asks: has }
}

fn not_made(asks: Share) -> Claim {
    Claim { has: Share::default(), asks }
}

#[test]
fn others_take_their_memory_and_what_the_hypervisor_needs_beside_it() {
    let other = made(share(2, 1, 10));
    let left = left_for(uid(2), share(8, 4, 100), &numbered(&[other, other]));
    assert_eq!(left, Room { memory: 2 * GIB - 2 * overhead(2, GIB), cpu: 4, storage: 80 * GIB });
    let full = left_for(uid(1), share(2, 1, 10), &numbered(&[made(NODE)]));
    assert_eq!(full, Room { memory: 0, cpu: 0, storage: 0 });
}

#[test]
fn what_a_guest_has_not_written_yet_stays_its_own() {
    let half = Disks { promised: 10 * GIB, written: 4 * GIB };
    // The tables of a qcow2 file come on top of its content.
    let full = Disks { promised: 10 * GIB, written: 11 * GIB };
    let not_made = Disks { promised: 5 * GIB, written: 0 };
    assert_eq!(unwritten([half, full, not_made], 1.0), 11 * GIB);
    assert_eq!(unwritten([half, full, not_made], 2.0), 3 * GIB + GIB / 2);
}

#[test]
fn of_two_that_are_placed_the_smaller_is_made_first_and_the_other_sees_what_is_left() {
    let claims = numbered(&[not_made(share(10, 10, 10)), not_made(share(9, 9, 10))]);
    assert_eq!((left_for(uid(1), NODE, &claims).cpu, left_for(uid(0), NODE, &claims).cpu), (16, 7));
    let granted = granted(NODE, &claims);
    assert_eq!((granted[&uid(1)].cpu, granted[&uid(0)].cpu), (9, 0));
}

fn any_share() -> impl Strategy<Value = Share> {
    (0..6_u64, 0..24_u64, 0..240_u64).prop_map(|(cpu, gib, disk)| share(cpu, gib, disk))
}

fn any_claims() -> impl Strategy<Value = Vec<Claim>> {
    let claim = prop_oneof![
        any_share().prop_map(made),
        any_share().prop_map(not_made),
        (any_share(), any_share()).prop_map(|(has, asks)| Claim { has, asks }),
    ];
    prop::collection::vec(claim, 1..8)
}

fn huge() -> impl Strategy<Value = Share> {
    let one = || prop_oneof![Just(0_u64), Just(u64::MAX)];
    let some = |share: &Share| *share != Share::default();
    (one(), one(), one())
        .prop_map(|(cpu, memory, storage)| Share { cpu, memory, storage })
        .prop_filter("asks for something", some)
}

proptest! {
    #[test]
    fn an_edit_to_more_than_the_node_has_takes_nothing_from_anybody(
        claims in any_claims(), huge in huge(), edited in 0..8_usize
    ) {
        let edited = edited % claims.len();
        let mut before = claims;
        before[edited].asks = before[edited].has;
        let mut after = before.clone();
        after[edited].asks = huge;
        let (before, after) = (numbered(&before), numbered(&after));
        for other in (0..before.len()).filter(|other| *other != edited) {
            prop_assert_eq!(left_for(uid(other), NODE, &after), left_for(uid(other), NODE, &before));
        }
        prop_assert_eq!(granted(NODE, &after), granted(NODE, &before));
        let room = left_for(uid(edited), NODE, &after);
        prop_assert!(!room.holds(huge.cost()), "it alone finds no room");
    }

    #[test]
    fn an_ask_that_waits_takes_nothing_from_who_asks_for_less(claims in any_claims()) {
        let all = numbered(&claims);
        for (n, claim) in claims.iter().enumerate() {
            let less = |other: &Claim| other.most().part_of(NODE) <= claim.most().part_of(NODE);
            let ahead = claims.iter().enumerate().map(|(m, other)| if m == n || less(other) { *other } else {
                Claim { asks: other.has, ..*other }
            });
            let ahead = numbered(&ahead.collect::<Vec<_>>());
            prop_assert_eq!(left_for(uid(n), NODE, &all), left_for(uid(n), NODE, &ahead));
        }
    }

    #[test]
    fn all_that_is_granted_together_is_no_more_than_the_node_or_what_its_guests_have(claims in any_claims()) {
        let claims = numbered(&claims);
        let granted = granted(NODE, &claims);
        let has: u64 = claims.values().map(|claim| claim.has.storage).sum();
        let all: u64 = granted.values().map(|share| share.storage).sum();
        prop_assert!(all <= NODE.storage.max(has));
        for (uid, claim) in &claims {
            prop_assert_eq!(granted[uid].larger(claim.has), granted[uid]);
            let fits = left_for(*uid, NODE, &claims).holds(claim.most().cost());
            prop_assert!(!fits || granted[uid] == claim.most());
        }
    }
}
