//! What `/metrics` shows, in the names of `OpenMetrics`.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use holdfast_api::condition::{self, READY};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::execute::Error;
use crate::world::{World, status};
use crate::write::Kind;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReadyLabel {
    ready: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabel {
    node: String,
}

/// Counters and gauges, and whether the controller leads and has seen every kind.
pub(crate) struct Metrics {
    registry: Registry,
    writes: Family<WriteLabels, Counter>,
    passes: Histogram,
    machines: Family<StatusLabel, Gauge>,
    nodes: Family<ReadyLabel, Gauge>,
    unreadable: Family<KindLabel, Gauge>,
    node_unreadable: Family<NodeLabel, Gauge>,
    node_panics: Family<NodeLabel, Gauge>,
    leader: Gauge,
    synced: AtomicBool,
    alive: AtomicU64,
    gauges: Mutex<()>,
}

impl Metrics {
    /// Everything at zero.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("holdfast_controller");
        let (writes, machines, nodes, leader) =
            (Family::default(), Family::default(), Family::default(), Gauge::default());
        let (unreadable, node_unreadable, node_panics) =
            (Family::default(), Family::default(), Family::default());
        let passes = Histogram::new(exponential_buckets(0.001, 4.0, 8));
        registry.register("writes", "Writes to the API by kind and outcome", Family::clone(&writes));
        registry.register_with_unit(
            "pass",
            "Length of a pass over all objects",
            Unit::Seconds,
            passes.clone(),
        );
        registry.register(
            "virtual_machines",
            "Virtual machines by printable status",
            Family::clone(&machines),
        );
        registry.register("nodes", "Nodes by their condition Ready", Family::clone(&nodes));
        registry.register(
            "unreadable_objects",
            "Objects that cannot be read whole and are left as they are, by kind",
            Family::clone(&unreadable),
        );
        registry.register(
            "node_unreadable_objects",
            "Objects that the node's daemon cannot read whole, as its status says",
            Family::clone(&node_unreadable),
        );
        registry.register(
            "node_panics",
            "Faults of the node's daemon in its work on virtual machines since it started, as its status says",
            Family::clone(&node_panics),
        );
        registry.register("leader", "1 while this process leads", Gauge::clone(&leader));
        Self {
            registry,
            writes,
            passes,
            machines,
            nodes,
            unreadable,
            node_unreadable,
            node_panics,
            leader,
            synced: AtomicBool::new(false),
            alive: AtomicU64::new(0),
            gauges: Mutex::new(()),
        }
    }

    /// Counts a write.
    pub(crate) fn wrote(&self, kind: Kind, error: Option<&Error>) {
        let outcome = match error {
            None => "written",
            Some(Error::Changed { .. }) => "changed",
            Some(Error::Refused { .. }) => "refused",
            Some(Error::Late { .. }) => "late",
        };
        self.writes.get_or_create(&WriteLabels { kind: kind.word(), outcome }).inc();
    }

    /// Records a pass.
    pub(crate) fn passed(&self, took: Duration) {
        self.passes.observe(took.as_secs_f64());
        self.alive.fetch_add(1, Ordering::Relaxed);
    }

    /// How many passes there were; a loop that stands still stops counting.
    pub(crate) fn passes(&self) -> u64 {
        self.alive.load(Ordering::Relaxed)
    }

    /// Counts machines and nodes anew.
    pub(crate) fn observe(&self, world: &World) {
        let _whole = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        self.machines.clear();
        for vm in &world.machines {
            let status =
                status(vm).printable_status.map_or_else(|| "New".to_owned(), |word| format!("{word:?}"));
            self.machines.get_or_create(&StatusLabel { status }).inc();
        }
        self.unreadable.clear();
        for (kind, count) in world.unread.counted() {
            self.unreadable.get_or_create(&KindLabel { kind }).set(count);
        }
        self.observe_nodes(world);
    }

    fn observe_nodes(&self, world: &World) {
        self.nodes.clear();
        self.node_unreadable.clear();
        self.node_panics.clear();
        for (name, node) in &world.nodes {
            if let Some(said) = &node.object.status {
                let label = NodeLabel { node: name.clone() };
                self.node_unreadable.get_or_create(&label).set(said.unreadable_objects.into());
                self.node_panics.get_or_create(&label).set(said.panics.into());
            }
            let ready = condition::find(node.conditions(), READY);
            let ready = ready.map_or_else(|| "Unknown".to_owned(), |ready| ready.status.clone());
            self.nodes.get_or_create(&ReadyLabel { ready }).inc();
        }
    }

    /// This process leads.
    pub(crate) fn set_leader(&self) {
        self.leader.set(1);
    }

    /// Every kind was listed.
    pub(crate) fn set_synced(&self) {
        self.synced.store(true, Ordering::Relaxed);
    }

    /// Whether it leads.
    pub(crate) fn leads(&self) -> bool {
        self.leader.get() == 1
    }

    /// Whether every kind was listed.
    pub(crate) fn synced(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }

    /// The text Prometheus reads.
    pub(crate) fn text(&self) -> String {
        let _whole = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        // Writing to a String cannot fail.
        encode(&mut text, &self.registry).ok();
        text
    }
}
