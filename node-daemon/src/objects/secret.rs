//! Secrets, read live each time: a node keeps no copy of what it may lose the right to read.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_client::Read;
use k8s_openapi::api::core::v1::Secret as SecretObject;

use super::{Lookup, Objects};
use crate::retry::Retry;
use crate::secret::Secret;

/// Bound of one read.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a Secret was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API did not answer, or the node is not enrolled.
    #[error("could not reach the API to read Secret {secret}")]
    Away { secret: String, source: Option<kube::Error> },
    /// The API refused; the right follows the placement and may come a moment later, or was withdrawn.
    #[error("the API does not let this node read Secret {secret}")]
    Refused { secret: String, source: kube::Error },
}

impl Error {
    /// When another attempt makes sense.
    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::Away { .. } | Self::Refused { .. } => Retry::Soon,
        }
    }
}

/// A Secret as it was read. It has no `Debug`: its bytes belong into the seed and nowhere else.
pub(crate) struct KeptSecret {
    /// UID of the object.
    pub(crate) uid: String,
    /// Version of the object.
    pub(crate) resource_version: String,
    /// Its bytes by key.
    pub(crate) data: BTreeMap<String, Secret<Vec<u8>>>,
}

impl Objects {
    /// Reads a Secret of a namespace this node serves, by its name; only those its virtual machines name are granted.
    pub(crate) async fn secret(&self, namespace: &str, name: &str) -> Result<Lookup<KeptSecret>, Error> {
        let secret = format!("{namespace}/{name}");
        let client = self.0.session.borrow().clone();
        let client = client.ok_or_else(|| Error::Away { secret: secret.clone(), source: None })?;
        let api = holdfast_client::namespaced::<SecretObject>(client, namespace);
        match tokio::time::timeout(TIMEOUT, api.get_opt(name)).await {
            Ok(Ok(Some(found))) => Ok(kept(found.into())),
            Ok(Ok(None)) => Ok(Lookup::Missing),
            Ok(Err(source)) => Err(failure(secret, source)),
            Err(_) => Err(Error::Away { secret, source: None }),
        }
    }
}

/// One that could not be read is unknown; nothing of it is named, since the reason could repeat its bytes.
fn kept(Read { object: secret, faults }: Read<SecretObject>) -> Lookup<KeptSecret> {
    if !faults.is_empty() {
        return Lookup::Unknown;
    }
    let data = secret.data.unwrap_or_default();
    Lookup::Found(KeptSecret {
        uid: secret.metadata.uid.unwrap_or_default(),
        resource_version: secret.metadata.resource_version.unwrap_or_default(),
        data: data.into_iter().map(|(key, bytes)| (key, Secret::new(bytes.0))).collect(),
    })
}

fn failure(secret: String, source: kube::Error) -> Error {
    match &source {
        kube::Error::Api(status) if matches!(status.code, 401 | 403) => Error::Refused { secret, source },
        _ => Error::Away { secret, source: Some(source) },
    }
}
