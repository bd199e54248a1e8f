//! The node's half of its `HypervisorNode` status: computed purely, applied when it says something new.

use std::sync::Arc;
use std::time::Duration;

use holdfast_api::node::{
    AcceleratorStatus, Capacity, ConfinementStatus, HypervisorNodeStatus, NodeProblem, Versions,
};
use holdfast_api::{HypervisorNode, bounds, names};
use holdfast_client::Raw;
use kube::api::{Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::bounded::bounded;
use super::facts::Facts;
use super::{Holdings, HypervisorVersions};
use crate::accelerator::Proof;
use crate::config::{Accelerator, NodeName};
use crate::contact::Contact;
use crate::objects::Session;

/// Bound of one write.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Changes that come closer together are folded into one write.
const SPACING: Duration = Duration::from_secs(2);
/// A write that failed is tried again after this long, whatever else happens.
const RETRY: Duration = Duration::from_secs(15);

/// Said where libvirt has neither.
const BARELY_CONFINED: &str = "libvirt uses neither AppArmor nor SELinux here, so a guest that breaks out of its QEMU reads \
    whatever every user of the host may read: boot the host with AppArmor or SELinux, and let security_driver in \
    /etc/libvirt/qemu.conf use it";

/// Everything the report is made of; each part comes from the task that knows it.
pub(crate) struct Reporter {
    pub(crate) node: NodeName,
    pub(crate) session: Session,
    pub(crate) contact: watch::Receiver<Contact>,
    pub(crate) own: watch::Receiver<Option<Arc<HypervisorNode>>>,
    pub(crate) facts: Facts,
    /// What virtual machines may be given.
    pub(crate) capacity: watch::Receiver<Capacity>,
    pub(crate) accelerator: Accelerator,
    pub(crate) proof: watch::Receiver<Proof>,
    /// `None` until the vm driver has looked once: till then the former report stands.
    pub(crate) holdings: watch::Receiver<Option<Holdings>>,
    /// `None` until it is known whether libvirt answers: till then the former report stands.
    pub(crate) problems: watch::Receiver<Option<Vec<NodeProblem>>>,
    /// Whether the last report had no room for all that the node holds.
    pub(crate) cut: bool,
}

/// What became of one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing to say, or said, or nobody to say it to yet.
    Settled,
    /// The API did not take it.
    Owed,
}

/// What was written last and the version it made, so that a field another manager left behind is not fought over.
type LastWrite = Option<(HypervisorNodeStatus, Option<String>)>;

impl Reporter {
    /// Reports for ever.
    pub(crate) async fn run(mut self) {
        let mut last: LastWrite = None;
        loop {
            let outcome = self.report(&mut last).await;
            sleep(SPACING).await;
            if !self.wait(outcome).await {
                return;
            }
        }
    }

    /// Writes if there is something new to say and somebody to say it to.
    async fn report(&mut self, last: &mut LastWrite) -> Outcome {
        let proof = self.proof.borrow_and_update().clone();
        let held = self.holdings.borrow_and_update().clone();
        let client = self.session.borrow_and_update().clone();
        let observed = self.own.borrow_and_update().clone();
        let (Some(client), Some(observed)) = (client, observed) else { return Outcome::Settled };
        let Some(problems) = self.problems.borrow_and_update().clone() else { return Outcome::Settled };
        if proof == Proof::Pending {
            return Outcome::Settled;
        }
        let (held, cut) = bounded(held.unwrap_or_else(|| reported(&observed)));
        self.tell(cut.as_deref());
        let wanted = HypervisorNodeStatus {
            problems,
            capacity: Some(self.capacity.borrow_and_update().clone()),
            ..status(&self.facts, self.accelerator, &proof, &held)
        };
        if settled(&observed, &wanted, last.as_ref()) {
            return Outcome::Settled;
        }
        let Some(answer) = apply(client, &self.node, &wanted).await else { return Outcome::Owed };
        *last = Some((wanted, answer.resource_version()));
        Outcome::Settled
    }

    /// Says once that the status has no room for all, and again when it had room in between.
    fn tell(&mut self, cut: Option<&str>) {
        if let Some(sentence) = cut.filter(|_| !self.cut) {
            warn!("{sentence}");
        }
        self.cut = cut.is_some();
    }

    /// Waits for news; `false` when the daemon ends.
    async fn wait(&mut self, outcome: Outcome) -> bool {
        let changed = tokio::select! {
            changed = self.holdings.changed() => changed,
            changed = self.proof.changed() => changed,
            changed = self.capacity.changed() => changed,
            changed = self.problems.changed() => changed,
            changed = self.own.changed() => changed,
            changed = self.session.changed() => changed,
            changed = self.contact.changed() => changed,
            () = sleep(RETRY), if outcome == Outcome::Owed => Ok(()),
        };
        changed.is_ok()
    }
}

async fn apply(client: Client, node: &NodeName, wanted: &HypervisorNodeStatus) -> Option<Raw> {
    let body = json!({
        "apiVersion": HypervisorNode::api_version(&()),
        "kind": HypervisorNode::kind(&()),
        "metadata": { "name": node.as_str() },
        "status": wanted,
    });
    let parameters = PatchParams::apply(names::NODE_DAEMON).force();
    let api = holdfast_client::all::<HypervisorNode>(client);
    match timeout(TIMEOUT, api.patch_status(node.as_str(), &parameters, &Patch::Apply(body))).await {
        Ok(Ok(answer)) => return Some(answer),
        Ok(Err(error)) => debug!(%error, "the node's status was not written; it is tried again"),
        Err(_) => debug!("the API did not take the node's status in time; it is tried again"),
    }
    None
}

/// The node's half, but for its size and its problems. It holds nothing that moves by itself: no times, no load.
fn status(
    facts: &Facts,
    accelerator: Accelerator,
    proof: &Proof,
    holdings: &Holdings,
) -> HypervisorNodeStatus {
    let hypervisor = holdings.hypervisor.clone().unwrap_or_default();
    HypervisorNodeStatus {
        versions: Some(Versions {
            daemon: env!("CARGO_PKG_VERSION").to_owned(),
            libvirt: hypervisor.libvirt,
            hypervisor: hypervisor.hypervisor,
            kernel: bounds::cut(facts.kernel.clone(), bounds::WORD),
            architecture: std::env::consts::ARCH.to_owned(),
        }),
        accelerator: Some(AcceleratorStatus {
            name: accelerator.word().to_owned(),
            proved: proof.holds(),
            message: bounds::cut(proof.message().to_owned(), bounds::SENTENCE),
        }),
        networks: Some(facts.networks.clone()),
        confinement: hypervisor.security_drivers.map(confinement),
        // Until the key can live in hardware there is no other way to run (config.rs).
        insecure_dev: true,
        images: holdings.images.clone(),
        virtual_machines: holdings.virtual_machines.iter().cloned().collect(),
        orphans: holdings.orphans.clone(),
        panics: i32::try_from(holdings.panics).unwrap_or(i32::MAX),
        unreadable_objects: i32::try_from(holdings.unreadable).unwrap_or(i32::MAX),
        ..HypervisorNodeStatus::default()
    }
}

/// What libvirt holds guests with, and what to do about it where that is little.
pub(crate) fn confinement(drivers: Vec<String>) -> ConfinementStatus {
    let mandatory = drivers.iter().any(|driver| driver == "apparmor" || driver == "selinux");
    let message = if mandatory { "" } else { BARELY_CONFINED };
    ConfinementStatus { drivers, message: message.to_owned() }
}

/// What the node said before it restarted: saying less for a moment would look like a loss.
fn reported(observed: &HypervisorNode) -> Holdings {
    let status = observed.status.clone().unwrap_or_default();
    let versions = status.versions.unwrap_or_default();
    Holdings {
        virtual_machines: status.virtual_machines.into_iter().collect(),
        orphans: status.orphans,
        images: status.images,
        hypervisor: Some(HypervisorVersions {
            libvirt: versions.libvirt,
            hypervisor: versions.hypervisor,
            security_drivers: status.confinement.map(|said| said.drivers),
        }),
        panics: 0,
        unreadable: 0,
    }
}

fn settled(
    observed: &HypervisorNode,
    wanted: &HypervisorNodeStatus,
    last: Option<&(HypervisorNodeStatus, Option<String>)>,
) -> bool {
    let current = observed.status.clone().map(node_half).unwrap_or_default();
    let repeated =
        last.is_some_and(|(status, version)| status == wanted && *version == observed.resource_version());
    current == *wanted || repeated
}

/// Without the fields of the controller.
fn node_half(status: HypervisorNodeStatus) -> HypervisorNodeStatus {
    HypervisorNodeStatus { namespaces: Vec::new(), allocated: None, conditions: Vec::new(), ..status }
}

#[cfg(test)]
mod tests {
    use holdfast_api::node::HypervisorNodeSpec;
    use holdfast_api::offer::NetworkOffer;

    use super::*;

    fn facts() -> Facts {
        Facts { kernel: "6.1".to_owned(), networks: NetworkOffer::default() }
    }

    fn observed(status: HypervisorNodeStatus) -> HypervisorNode {
        let mut node = HypervisorNode::new("edge-1", HypervisorNodeSpec::default());
        node.metadata.resource_version = Some("7".to_owned());
        node.status = Some(status);
        node
    }

    #[test]
    fn a_report_that_stands_already_is_not_written() {
        let wanted = status(&facts(), Accelerator::Tcg, &Proof::Holds, &Holdings::default());
        let mut current = wanted.clone();
        current.namespaces = vec!["shop".to_owned()];
        current.allocated = Some(Capacity::default());
        assert!(settled(&observed(current), &wanted, None));
        assert!(!settled(&observed(HypervisorNodeStatus::default()), &wanted, None));
    }

    #[test]
    fn a_restarted_daemon_repeats_its_former_report_until_it_has_looked() {
        let held = Holdings { virtual_machines: ["uid-1".to_owned()].into(), ..Holdings::default() };
        let before = status(&facts(), Accelerator::Tcg, &Proof::Holds, &held);
        let again = status(&facts(), Accelerator::Tcg, &Proof::Holds, &reported(&observed(before.clone())));
        assert_eq!(before, again);
    }

    #[test]
    fn a_field_another_manager_left_behind_is_not_fought_over() {
        let wanted = status(&facts(), Accelerator::Tcg, &Proof::Holds, &Holdings::default());
        let mut current = wanted.clone();
        current.virtual_machines = vec!["left-behind".to_owned()];
        let last = (wanted.clone(), Some("7".to_owned()));
        assert!(settled(&observed(current), &wanted, Some(&last)));
    }

    #[test]
    fn a_node_whose_libvirt_has_neither_apparmor_nor_selinux_says_so() {
        let said = |drivers: &[&str]| {
            let security_drivers = Some(drivers.iter().map(ToString::to_string).collect());
            let hypervisor = Some(HypervisorVersions { security_drivers, ..HypervisorVersions::default() });
            let held = Holdings { hypervisor, ..Holdings::default() };
            let reported = status(&facts(), Accelerator::Kvm, &Proof::Holds, &held).confinement.unwrap();
            assert_eq!(reported.drivers, drivers);
            reported.message
        };
        assert!(said(&["dac"]).contains("neither AppArmor nor SELinux") && !said(&[]).is_empty());
        assert_eq!((said(&["apparmor", "dac"]), said(&["selinux", "dac"])), (String::new(), String::new()));
        let silent = status(&facts(), Accelerator::Kvm, &Proof::Holds, &Holdings::default());
        assert_eq!(silent.confinement, None, "libvirt has not answered yet");
    }

    #[test]
    fn an_accelerator_that_was_not_proved_says_why() {
        let missing = Proof::Missing("no guest code ran".to_owned());
        let reported = status(&facts(), Accelerator::Kvm, &missing, &Holdings::default());
        let accelerator = reported.accelerator.unwrap();
        assert!(!accelerator.proved);
        assert_eq!(accelerator.message, "no guest code ran");
    }
}
