//! Which images are needed, and by whom. Pure.
//!
//! What a virtual machine that is being made will use is not known to libvirt yet, but pinned in the status of its object.
//! Where somebody may need an image that nobody can name, none goes.

use std::collections::HashMap;

use uuid::Uuid;

use super::holdings::Held;
use crate::image::{Digest, Need, Needs};

/// What is known of the host and of the API at one moment.
pub(crate) struct Census<'a> {
    /// What libvirt and the state folder hold.
    pub(crate) held: &'a Held,
    /// Whether what the API said last is current.
    pub(crate) reachable: bool,
    /// The virtual machines placed here.
    pub(crate) objects: Vec<Asked>,
    /// Namespace and digest of what is to be fetched ahead.
    pub(crate) ahead: Vec<(String, Digest)>,
}

/// An object and the images pinned in its status.
pub(crate) struct Asked {
    pub(crate) uid: Uuid,
    pub(crate) namespace: String,
    pub(crate) images: Vec<Digest>,
}

/// Who needs what, or that it cannot be told.
pub(crate) fn needs(census: &Census<'_>) -> Needs {
    if is_blind(census) {
        return Needs::Unknown;
    }
    let mut needs: HashMap<Digest, Need> = HashMap::new();
    for record in census.held.domains.values() {
        for image in record.images.values() {
            needs.entry(image.digest).or_default().machines.insert(record.namespace.clone());
        }
    }
    for asked in &census.objects {
        for digest in &asked.images {
            needs.entry(*digest).or_default().machines.insert(asked.namespace.clone());
        }
    }
    for (namespace, digest) in &census.ahead {
        needs.entry(*digest).or_default().ahead.insert(namespace.clone());
    }
    Needs::Known(needs)
}

/// Whether disks may stand on images that nobody here can name: the objects are not known; the folders were not listed;
/// a domain with a folder of ours does not say what it is made of; or a folder has neither domain nor object.
fn is_blind(census: &Census<'_>) -> bool {
    let held = census.held;
    let unreadable = || held.folders.iter().any(|uid| held.foreign.contains(uid));
    let has_object = |uid: &Uuid| census.objects.iter().any(|asked| asked.uid == *uid);
    !census.reachable || !held.listed || unreadable() || !held.unclaimed(has_object).is_empty()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::plan::model::{World, spec};
    use super::*;

    fn uid(number: u8) -> Uuid {
        Uuid::from_u128(number.into())
    }

    fn digest(number: u8) -> Digest {
        Digest::new([number; 32])
    }

    /// Domains of ours, each on an image of its own number.
    fn held(domains: &[u8], foreign: &[u8], folders: &[u8]) -> Held {
        let mut world = World::new(spec());
        world.settle();
        let record = |number: u8| {
            let mut record = world.domain.record().unwrap().clone();
            record.images.values_mut().for_each(|image| image.digest = digest(number));
            record
        };
        Held {
            domains: domains.iter().map(|&number| (uid(number), record(number))).collect(),
            foreign: foreign.iter().map(|&number| uid(number)).collect(),
            folders: folders.iter().map(|&number| uid(number)).collect(),
            listed: true,
        }
    }

    fn census<'a>(held: &'a Held, objects: &[u8]) -> Census<'a> {
        let asked = |number: u8| Asked {
            uid: uid(number),
            namespace: "shop".to_owned(),
            images: vec![digest(number)],
        };
        Census {
            held,
            reachable: true,
            objects: objects.iter().map(|&number| asked(number)).collect(),
            ahead: vec![("bank".to_owned(), digest(99))],
        }
    }

    #[test]
    fn while_a_domain_with_a_folder_of_ours_cannot_be_read_no_image_goes() {
        let unreadable = held(&[1], &[2], &[1, 2]);
        assert_eq!(needs(&census(&unreadable, &[])), Needs::Unknown);
        assert_eq!(
            needs(&census(&unreadable, &[2])),
            Needs::Unknown,
            "its object may be newer than its disks"
        );
        let anybodys = held(&[1], &[2], &[1]);
        assert_ne!(needs(&census(&anybodys, &[])), Needs::Unknown, "a domain of somebody else is no matter");
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_taken_for_nothing() {
        let leftover = held(&[1], &[], &[1, 3]);
        assert_eq!(needs(&census(&leftover, &[])), Needs::Unknown);
        assert_ne!(needs(&census(&leftover, &[3])), Needs::Unknown);
        let unlisted = Held { listed: false, ..held(&[1], &[], &[]) };
        assert_eq!(needs(&census(&unlisted, &[])), Needs::Unknown);
        let away = held(&[1], &[], &[1]);
        assert_eq!(needs(&Census { reachable: false, ..census(&away, &[]) }), Needs::Unknown);
    }

    fn some() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::btree_set(0..8_u8, 0..5).prop_map(|set: BTreeSet<u8>| set.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_a_domain_or_an_object_names_is_needed_or_nothing_is_known(
            domains in some(), foreign in some(), folders in some(), objects in some()
        ) {
            let foreign: Vec<u8> = foreign.into_iter().filter(|one| !domains.contains(one)).collect();
            let held = held(&domains, &foreign, &folders);
            let Needs::Known(needs) = needs(&census(&held, &objects)) else { return Ok(()) };
            for number in domains.iter().chain(&objects) {
                prop_assert!(needs.get(&digest(*number)).is_some_and(|need| !need.machines.is_empty()));
            }
            for number in folders {
                prop_assert!(domains.contains(&number) || objects.contains(&number));
                prop_assert!(!foreign.contains(&number));
            }
        }
    }
}
