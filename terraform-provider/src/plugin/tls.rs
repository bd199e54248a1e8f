//! Mutual TLS with the host. It hands us its certificate in the environment, and we ours in the handshake line: each
//! side accepts that one certificate and no other, so no other process of the machine can drive the provider.
//!
//! The host's certificate is self-signed for P-521 and has the CA flag. The stock verifier refuses such a one as
//! `CaUsedAsEndEntity`, and making client authentication optional, as others do, would let everybody in.

use std::sync::Arc;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use tokio_rustls::TlsAcceptor;

/// The name the host dials.
const NAME: &str = "localhost";

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the host sent is not a certificate.
    #[error("could not read the host's certificate from PLUGIN_CLIENT_CERT")]
    HostCertificate(#[source] rustls::pki_types::pem::Error),
    /// Which of them would be the one to trust?
    #[error("PLUGIN_CLIENT_CERT holds {0} certificates, and exactly one is the host's")]
    HostCertificates(usize),
    /// Our own certificate.
    #[error("could not make the provider's certificate")]
    OwnCertificate(#[source] rcgen::Error),
    /// Our own configuration.
    #[error("could not set up TLS")]
    Setup(#[source] rustls::Error),
}

/// Our side of TLS, made anew for each process.
pub struct Identity {
    acceptor: TlsAcceptor,
    certificate: CertificateDer<'static>,
}

impl Identity {
    /// An identity that answers the host with this certificate, given as PEM, and nobody else.
    pub fn for_host(pem: &str) -> Result<Self, Error> {
        let pinned = Pinned::new(only_certificate(pem)?, &aws_lc_rs::default_provider());
        let (certificate, key) = own_certificate().map_err(Error::OwnCertificate)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(Error::Setup)?
            .with_client_cert_verifier(Arc::new(pinned))
            .with_single_cert(vec![certificate.clone()], key)
            .map_err(Error::Setup)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificate })
    }

    /// Our certificate, for the handshake line.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// What turns a connection into one we trust.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }
}

fn only_certificate(pem: &str) -> Result<CertificateDer<'static>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let mut found = found.map_err(Error::HostCertificate)?;
    match (found.pop(), found.len()) {
        (Some(only), 0) => Ok(only),
        (None, _) => Err(Error::HostCertificates(0)),
        (Some(_), others) => Err(Error::HostCertificates(others + 1)),
    }
}

fn own_certificate() -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new([NAME.to_owned()])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key)?;
    Ok((certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
}

/// Accepts one certificate, byte by byte. That the peer holds its key is left to rustls to check.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    const fn new(certificate: CertificateDer<'static>, provider: &CryptoProvider) -> Self {
        Self { certificate, algorithms: provider.signature_verification_algorithms }
    }
}

impl ClientCertVerifier for Pinned {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    /// None: the host has one certificate and needs no help to choose.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    /// No dates are looked at: the certificate came from the process that started us, a moment ago.
    fn verify_client_cert(
        &self,
        presented: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if presented == &self.certificate {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem() -> String {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
        CertificateParams::new([NAME.to_owned()]).unwrap().self_signed(&key).unwrap().pem()
    }

    #[test]
    fn exactly_one_certificate_can_be_pinned() {
        assert!(Identity::for_host(&pem()).is_ok());
        assert!(matches!(Identity::for_host(&(pem() + &pem())), Err(Error::HostCertificates(2))));
        assert!(matches!(Identity::for_host("nothing"), Err(Error::HostCertificates(0))));
        let broken = pem().replace("-----END", "!-----END");
        assert!(matches!(Identity::for_host(&broken), Err(Error::HostCertificate(_))));
    }

    #[test]
    fn the_host_can_prove_a_key_of_its_curve() {
        let pinned = Pinned::new(CertificateDer::from(vec![]), &aws_lc_rs::default_provider());
        assert!(pinned.supported_verify_schemes().contains(&SignatureScheme::ECDSA_NISTP521_SHA512));
    }
}
