//! The `CertificateSigningRequest` of an enrolment: made by us, approved by us, signed by the cluster.

use holdfast_api::NodeEnrolment;
use holdfast_api::names::CONTROLLER_USER;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt;

use crate::csr::Checked;
use crate::world::{World, node_label};
use crate::write::{Kind, Target, Verb, Write, json};

/// Signs client certificates of the API server; k3s and kubeadm clusters have it.
const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// A cluster signs within a second; one that has not by now may have nobody who does, and the person who waits shall know.
const SOON: SignedDuration = SignedDuration::from_secs(10);

/// How far the request to the cluster is.
pub(crate) enum Signing {
    Do(Write),
    Wait,
    /// The cluster is slow to sign, or never will; the sentence says what to look at.
    Late(String),
    Failed(String),
    /// The certificate, PEM.
    Signed(String),
}

/// The next step for this enrolment.
pub(crate) fn next(world: &World, enrolment: &NodeEnrolment, checked: &Checked) -> Signing {
    let name = request_name(enrolment);
    let Some(request) = world.requests.get(&name) else {
        let target = Target::cluster(Kind::SigningRequest, name.clone());
        return Signing::Do(Write::new(target, Verb::Create(json(&make(world, enrolment, name, checked)))));
    };
    if request.spec != with_author(spec(checked), request) {
        return Signing::Failed(format!(
            "a CertificateSigningRequest named {name} exists that the controller did not make: delete it"
        ));
    }
    let status = request.status.clone().unwrap_or_default();
    let says = |type_: &str| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.find(|condition| condition.type_ == type_ && condition.status == "True")
    };
    if let Some(no) = says("Denied").or_else(|| says("Failed")) {
        let why = no.message.clone().unwrap_or_default();
        return Signing::Failed(format!("the cluster did not sign CertificateSigningRequest {name}: {why}"));
    }
    if let Some(certificate) = &status.certificate {
        return match String::from_utf8(certificate.0.clone()) {
            Ok(pem) => Signing::Signed(pem),
            Err(_) => Signing::Failed("the cluster's certificate is not PEM".to_owned()),
        };
    }
    if says("Approved").is_some() {
        return waits(world, request);
    }
    Signing::Do(approve(world, request))
}

fn waits(world: &World, request: &CertificateSigningRequest) -> Signing {
    let made = request.creation_timestamp().map_or(world.now.0, |made| made.0);
    if world.now.0.duration_since(made) < SOON {
        return Signing::Wait;
    }
    Signing::Late(format!(
        "CertificateSigningRequest {} is approved and waits for the cluster to sign it: the signer {SIGNER} must be at \
         work there (kube-controller-manager with --cluster-signing-cert-file)",
        request.name_any()
    ))
}

/// One per enrolment object: one that is made again has another UID and asks again.
fn request_name(enrolment: &NodeEnrolment) -> String {
    format!("holdfast-{}", enrolment.uid().unwrap_or_default())
}

fn make(
    world: &World,
    enrolment: &NodeEnrolment,
    name: String,
    checked: &Checked,
) -> CertificateSigningRequest {
    CertificateSigningRequest {
        metadata: ObjectMeta {
            name: Some(name),
            labels: Some(node_label(&enrolment.spec.node_name)),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            expiration_seconds: Some(world.settings.certificate_seconds),
            ..spec(checked)
        },
        status: None,
    }
}

fn spec(checked: &Checked) -> CertificateSigningRequestSpec {
    CertificateSigningRequestSpec {
        request: ByteString(checked.pem.clone().into_bytes()),
        signer_name: SIGNER.to_owned(),
        usages: Some(vec!["client auth".to_owned()]),
        ..CertificateSigningRequestSpec::default()
    }
}

/// What the API server fills in, and how long it shall be valid, which an admission policy judges when we approve.
fn with_author(
    spec: CertificateSigningRequestSpec,
    found: &CertificateSigningRequest,
) -> CertificateSigningRequestSpec {
    CertificateSigningRequestSpec {
        expiration_seconds: found.spec.expiration_seconds,
        username: Some(CONTROLLER_USER.to_owned()),
        uid: found.spec.uid.clone(),
        groups: found.spec.groups.clone(),
        extra: found.spec.extra.clone(),
        ..spec
    }
}

fn approve(world: &World, request: &CertificateSigningRequest) -> Write {
    let mut approved = request.clone();
    let condition = CertificateSigningRequestCondition {
        type_: "Approved".to_owned(),
        status: "True".to_owned(),
        reason: Some("HoldfastEnrolment".to_owned()),
        message: Some("the NodeEnrolment was approved".to_owned()),
        last_update_time: Some(world.now.clone()),
        last_transition_time: Some(world.now.clone()),
    };
    let status = approved.status.get_or_insert_default();
    status.conditions.get_or_insert_default().push(condition);
    Write::new(Target::of(Kind::SigningRequest, request), Verb::Approve(json(&approved)))
}
