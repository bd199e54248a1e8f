//! Who the node is to the API: its identity key, the certificate the cluster signed for it, and the client made of both.
//!
//! The key lies in a file behind the setting `insecureDev`. This file is the seam: a key in hardware replaces what is in
//! here and nothing else, since everybody else sees a [`kube::Client`].

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use holdfast_api::names;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use x509_cert::Certificate;
use x509_cert::der::{DecodePem, Encode};

use crate::config::NodeName;
use crate::durable;

/// A silent link must not hold a request longer than the bounds of its callers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A link that went silent in the middle of an answer is given up. More than a watch may be silent (65 s), less than TCP
/// takes to notice; without it a list could wait for ever (kube#1791).
const SILENCE: Duration = Duration::from_secs(90);

/// Why there is no identity, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file of the key folder cannot be read or written.
    #[error("could not use {} as part of the node's identity", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The key file holds no P-256 key, or the library failed with it.
    #[error("the key in {} cannot be used; restore it, or remove it to enrol as a new node", path.display())]
    Key { path: PathBuf, source: rcgen::Error },
    /// The kubeconfig is absent or wrong.
    #[error("could not read the server from the kubeconfig {}", path.display())]
    Kubeconfig { path: PathBuf, source: KubeconfigError },
    /// The kubeconfig asks not to check who answers.
    #[error(
        "the kubeconfig {} has insecure-skip-tls-verify, so anybody on the line could be the API: leave that out, and give \
         the cluster's certificate-authority-data",
        path.display()
    )]
    Unchecked { path: PathBuf },
    /// Key, certificate and CA do not make a client.
    #[error("could not make a client of the API")]
    Client { source: kube::Error },
    /// What was issued is no certificate for our key.
    #[error("what was issued is not a certificate for the key of this node")]
    NotOurs,
}

/// From when to when a certificate is good, by the clock of whoever signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

/// The node's key and the folder it lies in.
pub(crate) struct Identity {
    folder: PathBuf,
    key: KeyPair,
}

impl Identity {
    /// Reads the key, or makes one where there is none yet. The folder is made with mode 0700, the key with 0600.
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| Error::File { path: folder.to_owned(), source })?;
        let path = folder.join("identity.key");
        let key = match fs::read_to_string(&path) {
            Ok(pem) => parse_key(&path, &pem)?,
            Err(source) if source.kind() == io::ErrorKind::NotFound => new_key(&path)?,
            Err(source) => return Err(Error::File { path, source }),
        };
        Ok(Self { folder: folder.to_owned(), key })
    }

    /// The request to sign this key, in DER: common name and organisation, no extension, nothing else.
    pub(crate) fn signing_request(&self, node: &NodeName) -> Result<Vec<u8>, Error> {
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, names::NODES_GROUP);
        name.push(DnType::CommonName, names::node_user(node.as_str()));
        let mut request = CertificateParams::default();
        request.distinguished_name = name;
        let request = request.serialize_request(&self.key).map_err(|source| self.key_error(source))?;
        Ok(request.der().to_vec())
    }

    /// When the certificate at hand is good; `None` when there is none for this key.
    pub(crate) fn validity(&self) -> Option<Validity> {
        let pem = fs::read(self.certificate_path()).ok()?;
        self.judge(&pem).ok()
    }

    /// Keeps a certificate that was issued; refuses one that is not for this key.
    pub(crate) fn keep(&self, certificate: &str) -> Result<Validity, Error> {
        let validity = self.judge(certificate.as_bytes())?;
        let path = self.certificate_path();
        write(&path, certificate.as_bytes())?;
        Ok(validity)
    }

    /// A client that speaks as this node to the server of the kubeconfig. The kubeconfig is read each time, so that a
    /// new address or CA counts from the next client on.
    pub(crate) async fn client(&self, kubeconfig: &Path) -> Result<Client, Error> {
        let mut config = server(kubeconfig).await?;
        config.auth_info = AuthInfo {
            client_certificate: Some(self.certificate_path().display().to_string()),
            client_key: Some(self.folder.join("identity.key").display().to_string()),
            ..AuthInfo::default()
        };
        Client::try_from(config).map_err(|source| Error::Client { source })
    }

    /// The enrolment that was asked for and not answered yet: its name survives a restart of the daemon.
    pub(crate) fn pending_enrolment(&self) -> Option<String> {
        fs::read_to_string(self.pending_path()).ok().filter(|name| !name.is_empty())
    }

    /// Remembers the enrolment that is about to be asked for.
    pub(crate) fn remember_enrolment(&self, name: &str) -> Result<(), Error> {
        write(&self.pending_path(), name.as_bytes())
    }

    /// The enrolment is answered, or gone.
    pub(crate) fn forget_enrolment(&self) -> Result<(), Error> {
        let path = self.pending_path();
        durable::remove(&path).map_err(|source| Error::File { path, source })
    }

    fn judge(&self, pem: &[u8]) -> Result<Validity, Error> {
        let certificate = Certificate::from_pem(pem).map_err(|_| Error::NotOurs)?;
        let body = certificate.tbs_certificate();
        let theirs = body.subject_public_key_info().to_der().map_err(|_| Error::NotOurs)?;
        if theirs != self.key.subject_public_key_info() {
            return Err(Error::NotOurs);
        }
        let (from, to) = (body.validity().not_before, body.validity().not_after);
        Ok(Validity { not_before: from.to_system_time(), not_after: to.to_system_time() })
    }

    fn certificate_path(&self) -> PathBuf {
        self.folder.join("identity.crt")
    }

    fn pending_path(&self) -> PathBuf {
        self.folder.join("enrolment")
    }

    fn key_error(&self, source: rcgen::Error) -> Error {
        Error::Key { path: self.folder.join("identity.key"), source }
    }
}

/// A client with the install credential: it can ask for enrolment and nothing else.
pub(crate) async fn install_client(kubeconfig: &Path) -> Result<Client, Error> {
    Client::try_from(server(kubeconfig).await?).map_err(|source| Error::Client { source })
}

/// How the API server of the kubeconfig is reached.
pub(crate) async fn server(path: &Path) -> Result<Config, Error> {
    let failed = |source| Error::Kubeconfig { path: path.to_owned(), source };
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(failed)?;
    if config.accept_invalid_certs {
        return Err(Error::Unchecked { path: path.to_owned() });
    }
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Ok(config)
}

fn parse_key(path: &Path, pem: &str) -> Result<KeyPair, Error> {
    KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256)
        .map_err(|source| Error::Key { path: path.to_owned(), source })
}

fn new_key(path: &Path) -> Result<KeyPair, Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|source| Error::Key { path: path.to_owned(), source })?;
    write(path, key.serialize_pem().as_bytes())?;
    Ok(key)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    durable::replace(path, 0o600, |file| file.write_all(bytes))
        .map_err(|source| Error::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn name() -> NodeName {
        NodeName::try_from("edge-1".to_owned()).unwrap()
    }

    fn self_signed(identity: &Identity) -> String {
        CertificateParams::default().self_signed(&identity.key).unwrap().pem()
    }

    #[test]
    fn the_key_is_made_once_and_readable_by_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("keys");
        let first = Identity::open(&folder).unwrap();
        let second = Identity::open(&folder).unwrap();
        assert_eq!(first.key.public_key_pem(), second.key.public_key_pem());
        for (path, mode) in [(folder.clone(), 0o700), (folder.join("identity.key"), 0o600)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode);
        }
    }

    #[test]
    fn a_damaged_key_is_reported_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("identity.key"), "no key").unwrap();
        assert!(matches!(Identity::open(dir.path()), Err(Error::Key { .. })));
        assert_eq!(fs::read_to_string(dir.path().join("identity.key")).unwrap(), "no key");
    }

    #[test]
    fn the_signing_request_names_the_node_and_nothing_else() {
        use x509_cert::der::Decode;
        let dir = tempfile::tempdir().unwrap();
        let der = Identity::open(dir.path()).unwrap().signing_request(&name()).unwrap();
        let request = x509_cert::request::CertReq::from_der(&der).unwrap();
        assert_eq!(request.info.subject.to_string(), "CN=holdfast:node:edge-1,O=holdfast:nodes");
        assert!(request.info.attributes.is_empty());
    }

    #[tokio::test]
    async fn a_kubeconfig_that_skips_the_check_of_the_api_is_refused() {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        for (skips, refused) in [("true", true), ("false", false)] {
            let text = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
                 clusters: [{{name: c, cluster: {{server: \"https://h\", insecure-skip-tls-verify: {skips}}}}}]\n\
                 users: [{{name: u, user: {{token: t}}}}]\n"
            );
            fs::write(&path, text).unwrap();
            let outcome = install_client(&path).await;
            assert_eq!(matches!(outcome, Err(Error::Unchecked { .. })), refused, "{:?}", outcome.err());
            let own = Identity::open(dir.path()).unwrap().client(&path).await;
            assert_eq!(matches!(own, Err(Error::Unchecked { .. })), refused);
        }
    }

    #[test]
    fn only_a_certificate_for_this_key_is_kept() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let identity = Identity::open(dir.path()).unwrap();
        let stranger = Identity::open(other.path()).unwrap();
        assert!(matches!(identity.keep(&self_signed(&stranger)), Err(Error::NotOurs)));
        assert!(matches!(identity.keep("banana"), Err(Error::NotOurs)));
        assert_eq!(identity.validity(), None);
        let kept = identity.keep(&self_signed(&identity)).unwrap();
        assert_eq!(identity.validity(), Some(kept));
    }
}
