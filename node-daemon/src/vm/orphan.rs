//! Whether nobody asks for something of ours any more, as far as the API can tell now.
//!
//! Decides what is reported as an orphan, and guards the one way to destroy something without its object: `spec.discard`
//! may hold a UID that is mistyped or years old, and at the daemon's start the node's own object is read before any
//! virtual machine.

use uuid::Uuid;

use super::context::Context;
use super::record::Record;

/// Whether it is known for sure that no object asks for it. Without a record nobody knows its namespace, and every one
/// the node serves counts.
pub(super) fn is_orphan(context: &Context, uid: Uuid, record: Option<&Record>) -> bool {
    let objects = &context.objects;
    if objects.virtual_machine(&uid.to_string()).is_some() || !objects.reachable() {
        return false;
    }
    let own = objects.own();
    let own = own.borrow();
    let Some(status) = own.as_ref().and_then(|node| node.status.as_ref()) else { return false };
    let home = record.map(|record| record.namespace.as_str());
    are_listed(home, &status.namespaces, |namespace| objects.synced(namespace))
}

/// Whether the lists of those namespaces that could hold its object are whole and current. One that the node does not
/// serve holds nothing for it: a namespace is served before anything in it is bound here.
fn are_listed(home: Option<&str>, served: &[String], is_listed: impl Fn(&str) -> bool) -> bool {
    let mut possible = served.iter().filter(|one| home.is_none_or(|home| home == *one));
    possible.all(|namespace| is_listed(namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(home: Option<&str>, lists: &[&str]) -> bool {
        are_listed(home, &["shop".to_owned(), "bank".to_owned()], |namespace| lists.contains(&namespace))
    }

    #[test]
    fn before_the_first_list_of_its_namespace_nothing_is_an_orphan() {
        assert!(!listed(Some("shop"), &[]));
        assert!(!listed(Some("shop"), &["bank"]));
        assert!(listed(Some("shop"), &["shop"]));
    }

    #[test]
    fn a_namespace_that_is_not_served_asks_for_nothing() {
        assert!(listed(Some("gone"), &[]));
    }

    #[test]
    fn what_nobody_knows_the_namespace_of_needs_every_list() {
        assert!(!listed(None, &["shop"]));
        assert!(listed(None, &["shop", "bank"]));
    }
}
