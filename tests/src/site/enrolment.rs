//! Waiting for a node to enrol, and approving it as a person does where nothing approves it by itself.

use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_api::{HypervisorNode, NodeEnrolment};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::wait::{Look, wait_for};

/// Enrolment itself takes seconds; a cold binary on two busy cores takes longer to start.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// Waits until the node's Ready condition is true.
pub(super) async fn wait_ready(client: &Client, name: &str) -> Result<()> {
    let nodes: Api<HypervisorNode> = Api::all(client.clone());
    wait_for(&format!("node {name} to be ready"), READY_LIMIT, async || {
        approve_pending(client, name).await?;
        let Some(node) = nodes.get_opt(name).await.context("could not read the node")? else {
            return Ok(Look::NotYet("no HypervisorNode".to_owned()));
        };
        let conditions = node.status.map(|status| status.conditions).unwrap_or_default();
        Ok(match conditions.iter().find(|condition| condition.type_ == "Ready") {
            Some(ready) if ready.status == "True" => Look::Done(()),
            Some(ready) => Look::NotYet(format!("{}: {}", ready.reason, ready.message)),
            None => Look::NotYet("no condition Ready".to_owned()),
        })
    })
    .await
}

async fn approve_pending(client: &Client, node: &str) -> Result<()> {
    let requests: Api<NodeEnrolment> = Api::all(client.clone());
    let all = requests.list(&ListParams::default()).await.context("could not list enrolments")?;
    for request in all.items.iter().filter(|request| request.spec.node_name == node) {
        if awaits_person(&request.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default())
        {
            approve(&requests, &request.name_any()).await?;
        }
    }
    Ok(())
}

/// The controller says so in the condition Issued; before it has looked there is nothing to decide.
fn awaits_person(conditions: &[Condition]) -> bool {
    let decided =
        conditions.iter().any(|condition| matches!(condition.type_.as_str(), "Approved" | "Rejected"));
    let waits = conditions.iter().any(|condition| condition.type_ == "Issued" && condition.status == "False");
    waits && !decided
}

async fn approve(requests: &Api<NodeEnrolment>, name: &str) -> Result<()> {
    let now = k8s_openapi::jiff::Timestamp::now();
    let approved = json!({
        "apiVersion": "holdfast.dev/v1alpha1",
        "kind": "NodeEnrolment",
        "status": {"conditions": [{
            "type": "Approved", "status": "True", "reason": "SiteSetUp",
            "message": "approved by whoever set up the site", "lastTransitionTime": now.to_string(),
        }]},
    });
    let parameters = PatchParams::apply("holdfast-site");
    let outcome = requests.patch_status(name, &parameters, &Patch::Apply(&approved)).await;
    outcome.map(drop).with_context(|| format!("could not approve enrolment {name}"))
}
