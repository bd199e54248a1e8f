//! The node's half of a virtual machine's status: written by server-side apply, and only when it says something new.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_api::virtual_machine::VirtualMachineStatus;
use holdfast_api::{VirtualMachine, condition, names};
use holdfast_client::Read;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::Objects;
use super::unread::is_usable;
use crate::retry::Retry;

/// Bound of one write.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The node has no identity yet; the status is written when it has.
    #[error("the status of {vm} waits until the node is enrolled")]
    NotEnrolled { vm: String },
    /// The API did not answer.
    #[error("could not reach the API to write the status of {vm}")]
    Away { vm: String, source: Option<kube::Error> },
    /// The object changed, was replaced or is gone since we looked at it.
    #[error("the object {vm} is no longer what the status was made from")]
    Stale { vm: String, source: kube::Error },
    /// The API refused it; the right may come late or not at all.
    #[error("the API refused the status of {vm}")]
    Refused { vm: String, source: kube::Error },
}

impl Error {
    /// When another attempt makes sense.
    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::Away { .. } | Self::Stale { .. } => Retry::Soon,
            Self::NotEnrolled { .. } | Self::Refused { .. } => Retry::Later,
        }
    }
}

/// What was written last, by UID: tells our own echo from somebody else's writing.
#[derive(Default)]
pub(super) struct Written(Mutex<HashMap<String, Record>>);

struct Record {
    status: VirtualMachineStatus,
    resource_version: Option<String>,
}

/// What is to be done about a wanted status.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// It stands there already.
    Nothing,
    /// We wrote last: apply over it.
    Apply,
    /// Somebody else wrote, or we have just started: apply only to the very object that was read.
    TakeOver,
}

impl Objects {
    /// Writes the node's half of the status, unless the object says the same already (times aside). Fields of the
    /// controller in `status` (`nodeName`, `Scheduled`) are left out. A replaced object is never written to.
    pub(crate) async fn patch_status(
        &self,
        vm: &VirtualMachine,
        status: &VirtualMachineStatus,
    ) -> Result<(), Error> {
        let wanted = node_half(status);
        let uid = vm.metadata.uid.clone().unwrap_or_default();
        let seen = self.virtual_machine(&uid);
        let observed = seen.as_deref().unwrap_or(vm);
        match self.0.written.decide(&uid, observed, &wanted) {
            Decision::Nothing => Ok(()),
            Decision::Apply => self.apply(observed, wanted, None).await,
            Decision::TakeOver => self.apply(observed, wanted, observed.resource_version()).await,
        }
    }

    async fn apply(
        &self,
        vm: &VirtualMachine,
        wanted: VirtualMachineStatus,
        resource_version: Option<String>,
    ) -> Result<(), Error> {
        let name = full_name(vm);
        let client =
            self.0.session.borrow().clone().ok_or_else(|| Error::NotEnrolled { vm: name.clone() })?;
        let api = holdfast_client::namespaced::<VirtualMachine>(client, &vm.namespace().unwrap_or_default());
        let (parameters, patch) = request(vm, &wanted, resource_version);
        let object = vm.name_any();
        let written = api.patch_status(&object, &parameters, &patch);
        match tokio::time::timeout(TIMEOUT, written).await {
            Ok(Ok(answer)) => self.remember(answer.into(), wanted),
            Ok(Err(source)) => return Err(failure(name, source)),
            Err(_) => {
                return Err(Error::Away { vm: name, source: None });
            }
        }
        Ok(())
    }

    fn remember(&self, Read { object: answer, faults }: Read<VirtualMachine>, wanted: VirtualMachineStatus) {
        let uid = answer.metadata.uid.clone().unwrap_or_default();
        let record = Record { status: wanted, resource_version: answer.resource_version() };
        let held: Vec<_> = self.virtual_machines();
        self.0.written.insert(uid, record, &held);
        if is_usable(&faults) {
            self.0.virtual_machines.refresh(Arc::new(answer));
        }
    }

    /// Rings for a change of a virtual machine, but not for the echo of our own write.
    pub(super) fn announce(&self, before: Option<&VirtualMachine>, after: Option<&VirtualMachine>) {
        let unchanged = before.zip(after).is_some_and(|(before, after)| before == after);
        for vm in [before, after].into_iter().flatten() {
            let uid = vm.metadata.uid.as_deref().unwrap_or_default();
            if !unchanged && !self.0.written.is_echo(uid, after) {
                self.0.changes.one(uid);
            }
        }
    }
}

fn request(
    vm: &VirtualMachine,
    wanted: &VirtualMachineStatus,
    resource_version: Option<String>,
) -> (PatchParams, Patch<serde_json::Value>) {
    let mut metadata = json!({ "name": vm.name_any(), "namespace": vm.namespace(), "uid": vm.metadata.uid });
    if let Some(version) = resource_version {
        metadata["resourceVersion"] = version.into();
    }
    let body = json!({
        "apiVersion": VirtualMachine::api_version(&()),
        "kind": VirtualMachine::kind(&()),
        "metadata": metadata,
        "status": wanted,
    });
    (PatchParams::apply(names::NODE_DAEMON).force(), Patch::Apply(body))
}

fn failure(vm: String, source: kube::Error) -> Error {
    match &source {
        kube::Error::Api(status) if matches!(status.code, 404 | 409) => Error::Stale { vm, source },
        kube::Error::Api(status) if status.code < 500 && status.code != 429 => Error::Refused { vm, source },
        _ => Error::Away { vm, source: Some(source) },
    }
}

impl Written {
    fn decide(&self, uid: &str, observed: &VirtualMachine, wanted: &VirtualMachineStatus) -> Decision {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        decide(records.get(uid), observed, wanted)
    }

    /// Remembers a write, and forgets those of virtual machines that are no longer seen.
    fn insert(&self, uid: String, record: Record, held: &[Arc<VirtualMachine>]) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.retain(|uid, _| held.iter().any(|vm| vm.metadata.uid.as_deref() == Some(uid)));
        records.insert(uid, record);
    }

    fn is_echo(&self, uid: &str, after: Option<&VirtualMachine>) -> bool {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = records.get(uid).and_then(|record| record.resource_version.clone());
        written.is_some() && after.is_some_and(|vm| vm.resource_version() == written)
    }
}

fn decide(record: Option<&Record>, observed: &VirtualMachine, wanted: &VirtualMachineStatus) -> Decision {
    let current = observed.status.as_ref().map(node_half).unwrap_or_default();
    if same(&current, wanted) {
        return Decision::Nothing;
    }
    let Some(record) = record else {
        return Decision::TakeOver;
    };
    // Apply leaves fields of another manager behind; writing the same again would not remove them.
    if same(&record.status, wanted) && record.resource_version == observed.resource_version() {
        return Decision::Nothing;
    }
    if same(&record.status, &current) { Decision::Apply } else { Decision::TakeOver }
}

/// The fields the node owns.
fn node_half(status: &VirtualMachineStatus) -> VirtualMachineStatus {
    let mut half = status.clone();
    half.node_name.clear();
    half.conditions.retain(|condition| condition.type_ != condition::SCHEDULED);
    half
}

/// Whether two statuses say the same: times aside, and conditions in whatever order the server keeps them.
fn same(left: &VirtualMachineStatus, right: &VirtualMachineStatus) -> bool {
    timeless(left) == timeless(right)
}

fn timeless(status: &VirtualMachineStatus) -> VirtualMachineStatus {
    let mut status = status.clone();
    status.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    for condition in &mut status.conditions {
        condition.last_transition_time = Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
    }
    status
}

fn full_name(vm: &VirtualMachine) -> String {
    format!("{}/{}", vm.namespace().unwrap_or_default(), vm.name_any())
}

#[cfg(test)]
mod tests;
