//! What the host does not offer: no start, and no end of what runs.

use std::sync::Arc;

use holdfast_api::offer::{NetworkOffer, OfferedBridge};

use super::super::observed::Ended;
use super::Plan;
use super::model::{World, spec};

fn offering(name: &str) -> Arc<NetworkOffer> {
    let bridge = OfferedBridge { name: name.into(), vlans: vec!["untagged".into()], trusted: false };
    Arc::new(NetworkOffer { bridges: vec![bridge], ..NetworkOffer::default() })
}

/// A guest on bridge br0 of a host that offers it.
fn bridged() -> World {
    let mut world = World::new(spec());
    world.network_kind = serde_json::json!({"bridge": {"name": "br0", "vlan": null}});
    world.offer = offering("br0");
    world
}

fn blocked(plan: Option<Plan>) -> String {
    let Some(Plan::Blocked(obstacle)) = plan else { panic!("it is not refused: {plan:?}") };
    assert_eq!(obstacle.reason, "NetworkNotOffered");
    obstacle.message
}

const SENTENCE: &str = "network shop/default: this node does not offer bridge br0 to guests; list it under bridges in its \
    node.yaml, or use another network";

#[test]
fn a_bridge_that_is_not_listed_starts_nothing() {
    let mut world = bridged();
    world.offer = offering("br1");
    assert_eq!(blocked(world.settle()), SENTENCE);
    assert_eq!(world.starts, 0);
}

#[test]
fn a_guest_on_a_bridge_that_is_listed_no_more_runs_on_and_its_next_start_is_refused() {
    let mut world = bridged();
    assert_eq!(world.settle(), Some(Plan::Converged));
    world.offer = offering("br1");
    world.crash();
    assert_eq!(world.settle(), Some(Plan::Converged), "it runs on");
    world.edit(|spec| spec.restart_request = "now".into());
    let sentence = blocked(world.settle());
    assert_eq!(sentence, format!("the guest runs on, since it could not start again now: {SENTENCE}"));
    assert!(world.running() && world.starts == 1);
    // With the API or without it.
    for known in [true, false] {
        world.known = known;
        world.end(Ended::Failed);
        assert_eq!(blocked(world.settle()), SENTENCE);
        assert_eq!(world.starts, 1);
    }
    world.offer = offering("br0");
    world.settle();
    assert!(world.running() && world.starts == 2);
}
