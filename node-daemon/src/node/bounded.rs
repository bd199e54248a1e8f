//! What of the holdings the status has room for. Pure.
//!
//! The schema bounds its lists, and the API server would refuse the whole status for one entry too many. What is not listed
//! is there all the same: the node counts its room, and a UID in `spec.discard` destroys an orphan, listed or not.

use holdfast_api::bounds::{MACHINES, ORPHANS};

use super::Holdings;

/// The first ones in the order of their UIDs, so that the same are listed each time; and a sentence where some are not.
pub(super) fn bounded(mut held: Holdings) -> (Holdings, Option<String>) {
    let (machines, orphans) = (held.virtual_machines.len(), held.orphans.len());
    held.virtual_machines = held.virtual_machines.into_iter().take(MACHINES).collect();
    held.orphans.sort_by(|one, other| one.uid.cmp(&other.uid));
    held.orphans.truncate(ORPHANS);
    let cut = machines > MACHINES || orphans > ORPHANS;
    let sentence = format!(
        "status lists {} of {machines} virtual machines and {} of {orphans} orphans, the first in the order of their \
         UIDs, and the node goes on with all: discard orphans, or move virtual machines to other nodes",
        held.virtual_machines.len(),
        held.orphans.len()
    );
    (held, cut.then_some(sentence))
}

#[cfg(test)]
mod tests {
    use holdfast_api::node::Orphan;
    use uuid::Uuid;

    use super::*;

    fn uids(count: usize) -> impl Iterator<Item = String> {
        (0..count as u128).rev().map(|n| Uuid::from_u128(n).to_string())
    }

    fn holding(machines: usize, orphans: usize) -> Holdings {
        let orphan = |uid| Orphan { uid, ..Orphan::default() };
        Holdings {
            virtual_machines: uids(machines).collect(),
            orphans: uids(orphans).map(orphan).collect(),
            ..Holdings::default()
        }
    }

    #[test]
    fn a_status_lists_what_its_schema_allows_and_says_that_there_is_more() {
        let (all, sentence) = bounded(holding(MACHINES, ORPHANS));
        assert_eq!((all.virtual_machines.len(), all.orphans.len(), sentence), (MACHINES, ORPHANS, None));
        let (some, sentence) = bounded(holding(MACHINES + 1, ORPHANS + 2));
        assert_eq!((&some.virtual_machines, &some.orphans), (&all.virtual_machines, &all.orphans));
        let sentence = sentence.unwrap();
        assert!(sentence.contains("8192 of 8193 virtual machines and 2048 of 2050 orphans"), "{sentence}");
        assert!(
            bounded(holding(0, ORPHANS + 1)).1.is_some() && bounded(holding(MACHINES + 1, 0)).1.is_some()
        );
    }

    #[test]
    fn what_was_not_listed_is_listed_once_others_go() {
        let mut held = holding(MACHINES + 1, ORPHANS + 1);
        let last = held.virtual_machines.last().cloned().unwrap();
        assert!(!bounded(held.clone()).0.virtual_machines.contains(&last));
        held.virtual_machines.pop_first();
        held.orphans.retain(|orphan| orphan.uid != Uuid::nil().to_string());
        let (listed, sentence) = bounded(held);
        assert_eq!((listed.virtual_machines.contains(&last), sentence), (true, None));
        assert_eq!(listed.orphans.len(), ORPHANS);
    }
}
