//! Judges a node's certificate signing request to the byte: what is signed must be exactly what we mean to sign. Pure.
//!
//! Allowed is one shape only (PKCS #10, RFC 2986, canonical DER): subject `O=holdfast:nodes, CN=holdfast:node:<name>`, a
//! P-256 key as an uncompressed point, ECDSA with SHA-256 by that key, no attribute at all, so no names beyond the subject.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_api::names::{NODES_GROUP, node_user};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Decode, Encode, EncodePem};
use x509_cert::name::Name;
use x509_cert::request::CertReq;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");
/// A P-256 request of this shape has about 300 bytes; what is larger is something else.
const MOST_BYTES: usize = 1024;

/// A request that may be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    /// SHA-256 of the public key (`SubjectPublicKeyInfo`, DER), hexadecimal.
    pub(crate) key_sha256: String,
    /// The request as the cluster takes it.
    pub(crate) pem: String,
}

/// Why a request is not signed; a sentence for `NodeEnrolment.status`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "spec.csr is refused: {0}; the node must make a request for a P-256 key with exactly the subject O={NODES_GROUP}, CN={1}"
)]
pub(crate) struct Refused(&'static str, String);

/// Checks the request of the node with this name; `text` is DER in base64.
pub(crate) fn check(text: &str, node: &str) -> Result<Checked, Refused> {
    judge(text, &node_user(node)).map_err(|why| Refused(why, node_user(node)))
}

/// The key a request is for, as in [`Checked::key_sha256`]; nothing is checked yet, not even that the sender has the key.
pub(crate) fn claimed_key(text: &str) -> Option<String> {
    key_sha256(&parse(text).ok()?).ok()
}

fn judge(text: &str, user: &str) -> Result<Checked, &'static str> {
    let request = parse(text)?;
    if !request.info.attributes.is_empty() {
        return Err("it asks for extensions or carries attributes");
    }
    subject(&request.info.subject, user)?;
    key(&request.info.public_key)?;
    signature(&request)?;
    let pem = request.to_pem(LineEnding::LF).map_err(|_| "it cannot be encoded")?;
    Ok(Checked { key_sha256: key_sha256(&request)?, pem })
}

fn parse(text: &str) -> Result<CertReq, &'static str> {
    let der = STANDARD.decode(text).map_err(|_| "it is not base64")?;
    if der.len() > MOST_BYTES {
        return Err("it is longer than such a request can be");
    }
    let request = CertReq::from_der(&der).map_err(|_| "it is not a certificate signing request in DER")?;
    if request.to_der().ok().as_deref() != Some(der.as_slice()) {
        return Err("it is not in canonical DER");
    }
    Ok(request)
}

fn key_sha256(request: &CertReq) -> Result<String, &'static str> {
    let key = request.info.public_key.to_der().map_err(|_| "its key cannot be encoded")?;
    Ok(hex(digest(&SHA256, &key).as_ref()))
}

fn subject(subject: &Name, user: &str) -> Result<(), &'static str> {
    let wanted = [(ORGANIZATION, NODES_GROUP), (COMMON_NAME, user)];
    let single = subject.iter_rdn().all(|rdn| rdn.len() == 1);
    let found: Vec<_> = subject.iter().collect();
    let says = |oid: ObjectIdentifier, text: &str| {
        found.iter().any(|part| part.oid == oid && part.value.value() == text.as_bytes())
    };
    if single && found.len() == wanted.len() && wanted.iter().all(|(oid, text)| says(*oid, text)) {
        return Ok(());
    }
    Err("its subject is another one")
}

fn key(key: &SubjectPublicKeyInfoOwned) -> Result<(), &'static str> {
    let curve = key.algorithm.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
    let point = key.subject_public_key.as_bytes().unwrap_or_default();
    let uncompressed = point.len() == 65 && point.first() == Some(&4);
    if key.algorithm.oid == EC_PUBLIC_KEY && curve == Some(P_256) && uncompressed {
        return Ok(());
    }
    Err("its key is not a P-256 key")
}

fn signature(request: &CertReq) -> Result<(), &'static str> {
    if request.algorithm.oid != ECDSA_WITH_SHA256 || request.algorithm.parameters.is_some() {
        return Err("it is not signed by ECDSA with SHA-256");
    }
    let point = request.info.public_key.subject_public_key.as_bytes().unwrap_or_default();
    let signed = request.info.to_der().map_err(|_| "it cannot be encoded")?;
    let signature = request.signature.as_bytes().unwrap_or_default();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
        .verify(&signed, signature)
        .map_err(|_| "its signature is not by its key")
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}

#[cfg(test)]
mod tests;
