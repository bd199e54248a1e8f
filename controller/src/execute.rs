//! Carries writes out: one effect each, no decisions. What the API answers goes into the caches.

use std::time::Duration;

use futures::{StreamExt, stream};
use holdfast_api::names::CONTROLLER;
use holdfast_api::{
    HypervisorNode, NodeEnrolment, SSHKey, VirtualMachine, VirtualMachineImage, VirtualMachineNetwork,
};
use holdfast_client::Raw;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::{Event, EventType, Recorder};

use crate::observe::Caches;
use crate::write::{Exactly, Kind, Target, Tell, Verb, Weight, Write};

/// Writes under way at once. A store of one disk bears few; more would only queue there.
const AT_ONCE: usize = 8;
/// No write may hold up others for longer.
const LIMIT: Duration = Duration::from_secs(20);
/// Nor all writes of a pass together, or the probe would take a slow API for a loop that stands still. What was not
/// written by then is planned anew.
const PASS_LIMIT: Duration = Duration::from_secs(60);
/// Nor events that no write goes with.
const TELL_LIMIT: Duration = Duration::from_secs(2);
/// What the events API takes as a note, in bytes.
const NOTE_LIMIT: usize = 1024;

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The object changed or went since it was read; the next look decides anew.
    #[error("{target} changed meanwhile")]
    Changed { target: Target, source: kube::Error },
    /// The API refused, or did not answer.
    #[error("could not write {target}")]
    Refused { target: Target, source: kube::Error },
    /// No answer in time; whether it was written will be seen.
    #[error("no answer within {} s when writing {target}", LIMIT.as_secs())]
    Late { target: Target },
}

/// When the next pass sees what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// At once: the answer was the object.
    Now,
    /// When the watch tells, as after a deletion.
    Later,
}

/// Writes, remembers and tells.
pub(crate) struct Executor {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
}

impl Executor {
    /// Carries out the writes of a pass, a few at once, and returns what became of each that was begun in time.
    pub(crate) async fn all(
        &self,
        caches: &Caches,
        writes: Vec<Write>,
    ) -> Vec<(Target, Result<Known, Error>)> {
        let each = stream::iter(writes).map(async |write| {
            let target = write.target.clone();
            (target, self.one(caches, write).await)
        });
        each.buffer_unordered(AT_ONCE).take_until(tokio::time::sleep(PASS_LIMIT)).collect().await
    }

    /// Tells what no write goes with, and does not hold a pass up for it.
    pub(crate) async fn tell_all(&self, news: Vec<Tell>) {
        let each = stream::iter(news).map(|tell| self.tell(tell)).buffer_unordered(AT_ONCE);
        each.take_until(tokio::time::sleep(TELL_LIMIT)).collect::<()>().await;
    }

    async fn one(&self, caches: &Caches, write: Write) -> Result<Known, Error> {
        let Write { target, verb, tell } = write;
        let answer = match tokio::time::timeout(LIMIT, self.send(&target, verb)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(source)) if stale(&source) => return Err(Error::Changed { target, source }),
            Ok(Err(source)) => return Err(Error::Refused { target, source }),
            Err(_) => return Err(Error::Late { target }),
        };
        let known = answer.map_or(Known::Later, |answer| {
            caches.learn(target.kind, answer);
            Known::Now
        });
        for tell in tell {
            self.tell(tell).await;
        }
        Ok(known)
    }

    async fn send(&self, target: &Target, verb: Verb) -> Result<Option<Raw>, kube::Error> {
        let kind = resource(target.kind);
        let api: Api<Raw> = match target.namespace.as_str() {
            "" => Api::all_with(self.client.clone(), &kind),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &kind),
        };
        let name = target.name.as_str();
        let apply = PatchParams::apply(CONTROLLER).force();
        let (patch, post) =
            (PatchParams { field_manager: Some(CONTROLLER.to_owned()), ..PatchParams::default() }, post());
        let object = match verb {
            Verb::Apply(body) => api.patch(name, &apply, &Patch::Apply(body)).await?,
            Verb::ApplyStatus(body) => api.patch_status(name, &apply, &Patch::Apply(body)).await?,
            Verb::Merge(body) => api.patch(name, &patch, &Patch::Merge(body)).await?,
            Verb::ReplaceStatus(body) => api.replace_status(name, &post, &Raw::new(body)).await?,
            Verb::Approve(body) => api.replace_subresource("approval", name, &post, &Raw::new(body)).await?,
            Verb::Create(body) => api.create(&post, &Raw::new(body)).await?,
            Verb::Delete(exactly) => return delete(&api, name, exactly).await,
        };
        Ok(Some(object))
    }

    /// An event is a courtesy: a namespace on its way out refuses it, and the write stands all the same.
    async fn tell(&self, tell: Tell) {
        let event = Event {
            type_: match tell.weight {
                Weight::Normal => EventType::Normal,
                Weight::Warning => EventType::Warning,
            },
            reason: tell.reason.to_owned(),
            note: Some(shortened(tell.note)),
            action: tell.reason.to_owned(),
            secondary: tell.related,
        };
        match tokio::time::timeout(LIMIT, self.recorder.publish(&event, &tell.regarding)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(
                    reason = tell.reason,
                    error = &error as &dyn std::error::Error,
                    "event not taken"
                );
            }
            Err(_) => tracing::debug!(reason = tell.reason, "event not taken in time"),
        }
    }
}

fn post() -> PostParams {
    PostParams { field_manager: Some(CONTROLLER.to_owned()), ..PostParams::default() }
}

async fn delete(
    api: &Api<Raw>,
    name: &str,
    Exactly { uid, resource_version }: Exactly,
) -> Result<Option<Raw>, kube::Error> {
    let exactly = Preconditions { uid, resource_version };
    match api.delete(name, &DeleteParams::default().preconditions(exactly)).await {
        Ok(answer) => Ok(answer.left()),
        Err(error) if code(&error) == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

fn stale(error: &kube::Error) -> bool {
    matches!(code(error), Some(404 | 409))
}

fn shortened(mut note: String) -> String {
    if note.len() > NOTE_LIMIT {
        let end = (0..=NOTE_LIMIT - 4).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0);
        note.truncate(end);
        note.push_str(" ...");
    }
    note
}

fn resource(kind: Kind) -> ApiResource {
    match kind {
        Kind::VirtualMachine => ApiResource::erase::<VirtualMachine>(&()),
        Kind::VirtualMachineImage => ApiResource::erase::<VirtualMachineImage>(&()),
        Kind::VirtualMachineNetwork => ApiResource::erase::<VirtualMachineNetwork>(&()),
        Kind::SshKey => ApiResource::erase::<SSHKey>(&()),
        Kind::HypervisorNode => ApiResource::erase::<HypervisorNode>(&()),
        Kind::NodeEnrolment => ApiResource::erase::<NodeEnrolment>(&()),
        Kind::Lease => ApiResource::erase::<Lease>(&()),
        Kind::Role => ApiResource::erase::<Role>(&()),
        Kind::RoleBinding => ApiResource::erase::<RoleBinding>(&()),
        Kind::ClusterRole => ApiResource::erase::<ClusterRole>(&()),
        Kind::ClusterRoleBinding => ApiResource::erase::<ClusterRoleBinding>(&()),
        Kind::SigningRequest => ApiResource::erase::<CertificateSigningRequest>(&()),
    }
}

impl Caches {
    /// Puts what a write returned where the next pass looks.
    fn learn(&self, kind: Kind, answer: Raw) {
        match kind {
            Kind::VirtualMachine => self.machines.learn(answer),
            Kind::VirtualMachineImage => self.images.learn(answer),
            Kind::VirtualMachineNetwork => self.networks.learn(answer),
            Kind::SshKey => self.keys.learn(answer),
            Kind::HypervisorNode => self.nodes.learn(answer),
            Kind::NodeEnrolment => self.enrolments.learn(answer),
            Kind::Lease => self.leases.learn(answer),
            Kind::Role => self.roles.learn(answer),
            Kind::RoleBinding => self.role_bindings.learn(answer),
            Kind::ClusterRole => self.cluster_roles.learn(answer),
            Kind::ClusterRoleBinding => self.cluster_role_bindings.learn(answer),
            Kind::SigningRequest => self.requests.learn(answer),
        }
    }
}
