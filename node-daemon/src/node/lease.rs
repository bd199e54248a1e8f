//! The heartbeat: one Lease, renewed every 10 s. The controller counts from when it *saw* the renewal, so the clock in
//! it is for people. The outcome of each renewal is what the daemon knows about its link to the API.

use std::time::{Duration, Instant};

use holdfast_api::names;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::config::NodeName;
use crate::contact::{Attempt, Contact};
use crate::jitter;
use crate::objects::Session;

/// Between two renewals: every node costs the store this one write.
const PERIOD: Duration = Duration::from_secs(10);
/// Bound of one renewal.
const TIMEOUT: Duration = Duration::from_secs(8);
/// Without a renewal for this long the controller calls the node lost: three may get lost on the way.
const DURATION_SECONDS: i32 = 40;
/// An API server that restarts is no news; one that stays away this long is.
const NEWS: Duration = Duration::from_secs(30);

/// Renews for ever.
pub(crate) async fn renew(node: NodeName, mut session: Session, contact: watch::Sender<Contact>) {
    let mut said = false;
    // Nodes that start together after a power cut do not call together.
    sleep(jitter::within(Duration::from_secs(1))).await;
    loop {
        let Some(client) = session.borrow_and_update().clone() else {
            if session.changed().await.is_err() {
                return;
            }
            continue;
        };
        let attempt = attempt(client, &node).await;
        contact.send_if_modified(|contact| replace(contact, attempt));
        said = tell(*contact.borrow(), said);
        tokio::select! {
            () = sleep(PERIOD) => {}
            // A new identity is tried at once.
            Ok(()) = session.changed() => {}
        }
    }
}

fn replace(contact: &mut Contact, attempt: Attempt) -> bool {
    let next = contact.after(attempt, Instant::now());
    let changed = *contact != next;
    *contact = next;
    changed
}

async fn attempt(client: Client, node: &NodeName) -> Attempt {
    let lease = names::node_lease(node.as_str());
    let api = holdfast_client::namespaced::<Lease>(client, names::SYSTEM_NAMESPACE);
    let patch = Patch::Merge(json!({ "spec": {
        "holderIdentity": node.as_str(),
        "leaseDurationSeconds": DURATION_SECONDS,
        "renewTime": MicroTime(Timestamp::now()),
    }}));
    let parameters = PatchParams { field_manager: Some(names::NODE_DAEMON.to_owned()), ..Default::default() };
    let renewal = api.patch(&lease, &parameters, &patch);
    match timeout(TIMEOUT, renewal).await {
        Ok(answer) => Attempt::of(&answer),
        Err(_) => Attempt::NoAnswer,
    }
}

/// Logs what lasts, once; returns whether it was said.
fn tell(contact: Contact, said: bool) -> bool {
    match contact {
        Contact::Reachable if said => info!("the API answers again"),
        Contact::Away { since } if !said && since.elapsed() >= NEWS => {
            warn!("the API does not answer; guests run on and are restarted as they should be");
            return true;
        }
        Contact::Refused { since } if !said && since.elapsed() >= NEWS => {
            warn!("the API refuses this node's identity; guests run on, the node will enrol anew");
            return true;
        }
        Contact::Never | Contact::Reachable | Contact::Away { .. } | Contact::Refused { .. } => {}
    }
    said && contact != Contact::Reachable
}
