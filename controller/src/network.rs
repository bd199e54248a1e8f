//! Networks: accepted as they are. Whether a node can offer one shows in each virtual machine.

use holdfast_api::VirtualMachineNetwork;
use holdfast_api::condition::{self, Finding, READY};
use holdfast_api::network::VirtualMachineNetworkStatus;

use crate::world::World;
use crate::write::{Kind, Meta, Status, Target, Verb, Write, body, stand};

/// Writes that bring every network's status up to date.
pub(crate) fn plan(world: &World) -> Vec<Write> {
    world.networks.iter().filter_map(|network| update(world, network)).collect()
}

fn update(world: &World, network: &VirtualMachineNetwork) -> Option<Write> {
    let generation = network.metadata.generation;
    let found = network.status.clone().unwrap_or_default();
    let finding = Finding::new(READY, true, "Accepted", "");
    let conditions = condition::conditions(&found.conditions, &[finding], generation, &world.now);
    if network.metadata.deletion_timestamp.is_some()
        || (found.observed_generation == generation && stand(&found.conditions, &conditions))
    {
        return None;
    }
    let status = VirtualMachineNetworkStatus { observed_generation: generation, conditions };
    let body = body::<VirtualMachineNetwork>(&Meta::exactly(network), Status { status });
    Some(Write::new(Target::of(Kind::VirtualMachineNetwork, network), Verb::ApplyStatus(body)))
}
