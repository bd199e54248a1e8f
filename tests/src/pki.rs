//! The keys and certificates of a throw-away control plane, kept in one folder so that it can be started again.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::files;

/// The names under which clients inside and outside the hosts reach the API server.
const SERVING_NAMES: [&str; 4] = ["127.0.0.1", "localhost", "kubernetes", "kubernetes.default.svc"];

/// A certificate and its key, both PEM.
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// A certificate authority with the files a control plane needs.
pub struct Pki {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Opens the authority in `folder`, making it at the first call.
    pub fn open(folder: &Path) -> Result<Self> {
        files::create_folder(folder)?;
        let key_file = folder.join("ca.key");
        if !key_file.exists() {
            create_authority(folder, &key_file)?;
        }
        let key =
            KeyPair::from_pem(&files::read(&key_file)?).context("could not read the authority's key")?;
        let pki = Self { folder: folder.to_owned(), issuer: Issuer::new(authority_params(), key) };
        pki.write_serving_certificate()?;
        Ok(pki)
    }

    /// A file of the authority: `ca.crt`, `ca.key`, `apiserver.crt`, `apiserver.key`, `sa.key`, `sa.pub`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The authority's certificate, PEM.
    pub fn authority(&self) -> Result<String> {
        files::read(&self.file("ca.crt"))
    }

    /// A client certificate for a user and its groups.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Identity> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Result<Identity> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().context("could not make a key")?;
        let signed = params.signed_by(&key, &self.issuer).context("could not sign a certificate")?;
        Ok(Identity { certificate: signed.pem(), key: key.serialize_pem() })
    }

    fn write_serving_certificate(&self) -> Result<()> {
        let names = SERVING_NAMES.map(str::to_owned);
        let params = CertificateParams::new(names).context("could not name the API server")?;
        let identity = self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)?;
        files::write(&self.file("apiserver.crt"), identity.certificate)?;
        files::write_private(&self.file("apiserver.key"), identity.key)
    }
}

fn create_authority(folder: &Path, key_file: &Path) -> Result<()> {
    let key = KeyPair::generate().context("could not make the authority's key")?;
    let certificate = authority_params().self_signed(&key).context("could not sign the authority")?;
    files::write(&folder.join("ca.crt"), certificate.pem())?;
    let accounts = KeyPair::generate().context("could not make the service-account key")?;
    files::write_private(&folder.join("sa.key"), accounts.serialize_pem())?;
    files::write(&folder.join("sa.pub"), accounts.public_key_pem())?;
    // Last, since its presence says that the others are there.
    files::write_private(key_file, key.serialize_pem())
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "holdfast test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}
