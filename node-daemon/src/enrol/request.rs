//! One `NodeEnrolment`: asked for with the install credential, then looked at until it is answered.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use holdfast_api::node_enrolment::{EnrolmentMode, NodeEnrolmentSpec};
use holdfast_api::{NodeEnrolment, condition};
use holdfast_client::{Raw, Read};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::Error;
use crate::config::NodeName;
use crate::identity::Identity;
use crate::jitter;

/// Bound of one call.
const TIMEOUT: Duration = Duration::from_secs(10);
/// First pause between two looks: the cluster signs within two seconds. It doubles.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// Longest pause between two looks: a person who approves should see the node come within the minute.
const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// What a look at the request found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// PEM.
    Certificate(String),
    /// A person turned it away; it stays until somebody removes it.
    Rejected(String),
    /// Nobody has decided; the sentence says what it waits for.
    Pending(String),
}

/// The certificate of a request: of the one that is open, if it still is, else of a new one.
///
/// Waits as long as the request stands, since a person may have to decide. The caller is a task of its own.
pub(super) async fn certificate(
    client: Client,
    node: &NodeName,
    identity: &Identity,
) -> Result<String, Error> {
    let api = holdfast_client::all::<NodeEnrolment>(client);
    let name = match identity.pending_enrolment() {
        Some(name) if exists(&api, &name).await? => name,
        _ => ask(&api, node, identity).await?,
    };
    wait(&api, &name).await
}

async fn exists(api: &Api<Raw>, name: &str) -> Result<bool, Error> {
    Ok(bounded(api.get_opt(name)).await?.is_some())
}

async fn ask(api: &Api<Raw>, node: &NodeName, identity: &Identity) -> Result<String, Error> {
    let failed = |source| Error::Identity { source };
    let name = format!("{node}-{}", jitter::suffix());
    let csr = identity.signing_request(node).map_err(failed)?;
    let spec = NodeEnrolmentSpec {
        node_name: node.to_string(),
        mode: EnrolmentMode::InsecureDev,
        csr: BASE64_STANDARD.encode(csr),
        response: String::new(),
    };
    // The name first: a request nobody remembers would stay open for ever.
    identity.remember_enrolment(&name).map_err(failed)?;
    let request = Raw::from(&NodeEnrolment::new(&name, spec));
    bounded(api.create(&PostParams::default(), &request)).await?;
    info!(enrolment = name, "asked to be let in");
    Ok(name)
}

async fn wait(api: &Api<Raw>, name: &str) -> Result<String, Error> {
    let (mut pause, mut said) = (FIRST_LOOK, None);
    loop {
        let found = bounded(api.get_opt(name)).await?;
        let answer = found.map(|enrolment| answer(&Read::from(enrolment).object));
        let answer = answer.ok_or_else(|| Error::Vanished { name: name.to_owned() })?;
        if said.as_ref() != Some(&answer) {
            say(name, &answer);
        }
        match answer {
            Answer::Certificate(pem) => return Ok(pem),
            Answer::Rejected(_) | Answer::Pending(_) => said = Some(answer),
        }
        sleep(jitter::spread(pause)).await;
        pause = (pause * 2).min(LONGEST_LOOK);
    }
}

fn say(name: &str, answer: &Answer) {
    match answer {
        Answer::Certificate(_) => {}
        Answer::Rejected(why) => warn!(
            enrolment = name,
            why, "this node was turned away; to let it ask again, delete the NodeEnrolment"
        ),
        Answer::Pending(why) => info!(enrolment = name, why, "waiting to be let in"),
    }
}

fn answer(enrolment: &NodeEnrolment) -> Answer {
    let Some(status) = &enrolment.status else { return Answer::Pending(String::new()) };
    if !status.certificate.is_empty() {
        return Answer::Certificate(status.certificate.clone());
    }
    let message = |type_| condition::find(&status.conditions, type_).map(|found| found.message.clone());
    if condition::is_true(&status.conditions, condition::REJECTED) {
        return Answer::Rejected(message(condition::REJECTED).unwrap_or_default());
    }
    Answer::Pending(message(condition::ISSUED).unwrap_or_default())
}

async fn bounded<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
    match timeout(TIMEOUT, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) if status.code < 500 && status.code != 429 => {
            Err(Error::Refused { source: kube::Error::Api(status) })
        }
        Ok(Err(source)) => Err(Error::Away { source: Some(source) }),
        Err(_) => Err(Error::Away { source: None }),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_api::condition::{APPROVED, Finding, ISSUED, REJECTED, conditions};
    use holdfast_api::node_enrolment::NodeEnrolmentStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn enrolment(certificate: &str, findings: &[Finding]) -> NodeEnrolment {
        let spec = NodeEnrolmentSpec {
            node_name: "edge-1".to_owned(),
            mode: EnrolmentMode::InsecureDev,
            csr: String::new(),
            response: String::new(),
        };
        let now = Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        let mut enrolment = NodeEnrolment::new("edge-1-x", spec);
        enrolment.status = Some(NodeEnrolmentStatus {
            certificate: certificate.to_owned(),
            conditions: conditions(&[], findings, None, &now),
            ..NodeEnrolmentStatus::default()
        });
        enrolment
    }

    #[test]
    fn a_certificate_is_the_answer_whatever_else_is_said() {
        let issued = enrolment("PEM", &[Finding::new(APPROVED, true, "SameIdentity", "")]);
        assert_eq!(answer(&issued), Answer::Certificate("PEM".to_owned()));
    }

    #[test]
    fn a_request_that_waits_says_for_what() {
        let waiting =
            enrolment("", &[Finding::new(ISSUED, false, "ApprovalNeeded", "a person must approve it")]);
        assert_eq!(answer(&waiting), Answer::Pending("a person must approve it".to_owned()));
    }

    #[test]
    fn a_rejection_is_told_from_a_wait() {
        let rejected = enrolment("", &[Finding::new(REJECTED, true, "Unknown", "not ours")]);
        assert_eq!(answer(&rejected), Answer::Rejected("not ours".to_owned()));
    }
}
