//! Certificates as go-plugin makes them for the host (mtls.go): self-signed, P-521, with the CA flag.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PKCS_ECDSA_P521_SHA512,
};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;

/// A certificate and the key it is presented with.
pub(crate) struct Identity {
    certificate: Certificate,
    key: KeyPair,
}

impl Identity {
    /// What a host makes when it starts a plugin.
    pub(crate) fn of_a_host() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap();
        Self { certificate: params().self_signed(&key).unwrap(), key }
    }

    /// The same names and key in a certificate signed once more: equal but for the signature.
    pub(crate) fn signed_again(&self) -> Self {
        let key = KeyPair::from_pem(&self.key.serialize_pem()).unwrap();
        Self { certificate: params().self_signed(&key).unwrap(), key }
    }

    /// The very certificate with another key: what somebody has who read the plugin's environment.
    pub(crate) fn with_another_key(&self) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap();
        Self { certificate: self.certificate.clone(), key }
    }

    /// The certificate as it stands in the environment.
    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Presents it to whoever asks.
    pub(crate) fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        let key = any_ecdsa_type(&PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()).unwrap();
        Arc::new(Always(Arc::new(CertifiedKey::new(vec![self.certificate.der().clone()], key))))
    }
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params
}

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
