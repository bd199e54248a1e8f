use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P384_SHA384, SanType};

use super::*;

fn params(organization: &str, name: &str) -> CertificateParams {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, organization);
    subject.push(DnType::CommonName, name);
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params
}

fn good() -> CertificateParams {
    params("holdfast:nodes", "holdfast:node:edge-1")
}

fn text(params: &CertificateParams, key: &KeyPair) -> String {
    STANDARD.encode(params.serialize_request(key).unwrap().der())
}

fn refusal(params: &CertificateParams) -> String {
    check(&text(params, &KeyPair::generate().unwrap()), "edge-1").unwrap_err().to_string()
}

#[test]
fn the_request_of_a_node_is_accepted_and_its_key_is_known() {
    let key = KeyPair::generate().unwrap();
    let first = check(&text(&good(), &key), "edge-1").unwrap();
    assert_eq!(first.key_sha256, check(&text(&good(), &key), "edge-1").unwrap().key_sha256);
    assert_eq!(first.key_sha256.len(), 64);
    assert!(first.pem.starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"));
}

#[test]
fn another_subject_is_refused() {
    for (organization, name) in [
        ("system:masters", "holdfast:node:edge-1"),
        ("holdfast:nodes", "holdfast:node:edge-2"),
        ("holdfast:nodes", "holdfast:node:edge-1 "),
        ("holdfast:nodes", "system:admin"),
    ] {
        assert!(refusal(&params(organization, name)).contains("its subject is another one"));
    }
    let mut more = good();
    more.distinguished_name.push(DnType::OrganizationalUnitName, "more");
    assert!(refusal(&more).contains("its subject is another one"));
}

#[test]
fn names_beyond_the_subject_are_refused() {
    let mut named = good();
    named.subject_alt_names = vec![SanType::DnsName("kubernetes".try_into().unwrap())];
    assert!(refusal(&named).contains("extensions"));
}

#[test]
fn another_kind_of_key_is_refused() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let refused = check(&text(&good(), &key), "edge-1").unwrap_err().to_string();
    assert!(refused.contains("its key is not a P-256 key"), "{refused}");
}

#[test]
fn every_altered_byte_is_refused_or_harmless() {
    let key = KeyPair::generate().unwrap();
    let der = good().serialize_request(&key).unwrap().der().to_vec();
    for at in 0..der.len() {
        for flip in [0x01, 0x80] {
            let mut altered = der.clone();
            altered[at] ^= flip;
            assert!(
                check(&STANDARD.encode(&altered), "edge-1").is_err(),
                "byte {at} may be {:02x}",
                altered[at]
            );
        }
    }
}

#[test]
fn what_is_no_request_is_refused_in_a_sentence() {
    for text in ["", "AAAA", "%%%", &"A".repeat(8192)] {
        let refused = check(text, "edge-1").unwrap_err().to_string();
        assert!(refused.starts_with("spec.csr is refused: ") && refused.contains("CN=holdfast:node:edge-1"));
    }
}
