//! The cluster: all that is asked of the Kubernetes API, and the only file that holds its client.
//!
//! - **Create never adopts**: the object must not be there, and the server refuses the apply if it is (`call.rs`).
//! - **Update and delete carry the UID**: what took an object's place is neither overwritten nor deleted.
//! - **A plan reads each kind and namespace once** (`reading.rs`).
//! - **Each object is read alone**, from raw JSON: what somebody wrote into one makes no list or answer unreadable.
//! - **Waiting watches**: it ends at the deadline, at the user's interrupt, or when the object says so.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use holdfast_client::{Raw, Read};
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::{Client, Config, ResourceExt};
use serde_json::Value as Json;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::access::{self, Access};
use super::timeouts;

mod call;
mod reading;
mod writing;

pub(crate) use call::Create;
use reading::Lists;

/// Field manager of everything we write.
pub(crate) const MANAGER: &str = "terraform-provider-holdfast";
/// The server ends a watch before this; then everything is read again.
const WATCH_SECONDS: u32 = 290;
/// Between two tries while the API is away.
const RETRY: Duration = Duration::from_secs(1);
/// How often somebody who waits is told.
const TELL: Duration = Duration::from_secs(10);
/// Events that explain a failure; older ones rarely do.
const EVENTS: usize = 5;
/// Of this many the last ones are chosen; an object has fewer, since events go after an hour.
const EVENTS_READ: u32 = 500;

/// The API, as far as it is known how to reach it.
pub(crate) struct Cluster {
    access: Result<Access, Vec<&'static str>>,
    agent: String,
    force: bool,
    client: OnceCell<Client>,
    /// Where the client leads to, for messages.
    host: OnceLock<String>,
    /// Whether anything ever came back from there.
    answered: AtomicBool,
    lists: Lists,
}

/// One object, there or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) kind: ApiResource,
    /// Empty for kinds without namespaces.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// How long to wait, and what ends it earlier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience<'a> {
    pub(crate) until: Instant,
    pub(crate) cancel: &'a CancellationToken,
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the provider's {} not known yet: apply first what decides it", .0.join(" and "))]
    Unknown(Vec<&'static str>),
    #[error("there is no way to the API")]
    Access(#[source] access::Error),
    #[error("there are no credentials for the API: {0}")]
    Login(String),
    #[error("could not make a client for the API")]
    Client(#[source] kube::Error),
    #[error("the API at {host} does not answer")]
    Away { host: String, source: Box<kube::Error> },
    #[error("the API refused")]
    Api(#[source] kube::Error),
    /// It may or may not be there.
    #[error("nobody said whether it was made")]
    Unanswered(#[source] Box<Error>),
    #[error("it exists already")]
    Exists,
    /// What is written beside an object exists already.
    #[error("{} exists already", .0)]
    Beside(Box<Target>),
    #[error("it was deleted")]
    Deleted,
    #[error("another object has taken its place")]
    Replaced,
    #[error("the time is over")]
    Late,
    #[error("interrupted")]
    Cancelled,
}

impl Target {
    /// As people write it.
    pub(crate) fn id(&self) -> String {
        if self.namespace.is_empty() {
            self.name.clone()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }
}

impl fmt::Display for Target {
    /// Such as `VirtualMachine shop/web`; a whole kind is `all HypervisorNodes`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            write!(f, "all {}s", self.kind.kind)
        } else {
            write!(f, "{} {}", self.kind.kind, self.id())
        }
    }
}

impl<'a> Patience<'a> {
    /// The time that one answer of the API may take.
    pub(crate) fn to_read(cancel: &'a CancellationToken) -> Self {
        Self { until: Instant::now() + timeouts::READ, cancel }
    }
}

impl Patience<'_> {
    /// Waits for something, at most until the end.
    pub(crate) async fn with<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            // What is already there counts, whatever else happened.
            biased;
            done = work => Ok(done),
            () = self.cancel.cancelled() => Err(Error::Cancelled),
            () = tokio::time::sleep_until(self.until.into()) => Err(Error::Late),
        }
    }
}

impl Cluster {
    /// A cluster that is reached like this, or with the names of what is unknown about it.
    pub(crate) fn new(access: Result<Access, Vec<&'static str>>, agent: String, force: bool) -> Self {
        Self {
            access,
            agent,
            force,
            client: OnceCell::new(),
            host: OnceLock::new(),
            answered: AtomicBool::new(false),
            lists: Lists::default(),
        }
    }

    async fn client(&self) -> Result<&Client, Error> {
        let make = async || {
            let access = self.access.as_ref().map_err(|names| Error::Unknown(names.clone()))?;
            let mut config = access.config().await.map_err(Error::Access)?;
            if let (Ok(name), Ok(agent)) = ("user-agent".parse(), self.agent.parse()) {
                config.headers.push((name, agent));
            }
            self.host.get_or_init(|| host(&config));
            Client::try_from(config).map_err(|error| match error {
                kube::Error::Auth(error) => Error::Login(access::told(&error)),
                error => Error::Client(error),
            })
        };
        self.client.get_or_try_init(make).await
    }

    /// What came from the API, be it a refusal; or that nothing came.
    fn heard<T>(&self, answer: Result<T, kube::Error>) -> Result<T, Error> {
        match answer {
            Err(error @ (kube::Error::HyperError(_) | kube::Error::Service(_))) => {
                let host = self.host.get().cloned().unwrap_or_default();
                Err(Error::Away { host, source: Box::new(error) })
            }
            // Credentials are renewed on the way.
            Err(kube::Error::Auth(error)) => Err(Error::Login(access::told(&error))),
            answer => {
                self.answered.store(true, Ordering::Relaxed);
                answer.map_err(Error::Api)
            }
        }
    }

    async fn api(&self, target: &Target) -> Result<Api<Raw>, Error> {
        let client = self.client().await?.clone();
        Ok(if target.namespace.is_empty() {
            Api::all_with(client, &target.kind)
        } else {
            Api::namespaced_with(client, &target.namespace, &target.kind)
        })
    }

    /// The object as it is now.
    pub(crate) async fn get(&self, target: &Target) -> Result<Option<DynamicObject>, Error> {
        match self.heard(self.api(target).await?.get(&target.name).await) {
            Ok(object) => Ok(Some(object.into())),
            // Without the kind the server says 404 too, but names no object.
            Err(Error::Api(kube::Error::Api(status)))
                if status.is_not_found() && names_an_object(&status) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Looks at the object again and again, whenever it changes, until there is an answer. One that the API has just
    /// shown is looked at first and not asked for again.
    pub(crate) async fn until<T>(
        &self,
        target: &Target,
        mut shown: Option<DynamicObject>,
        patience: Patience<'_>,
        mut look: impl FnMut(Option<&DynamicObject>) -> Option<T>,
    ) -> Result<T, Error> {
        loop {
            let read = match shown.take() {
                Some(object) => Ok(Some(object)),
                None => patience.with(self.get(target)).await?,
            };
            let version = match read {
                Ok(object) => {
                    if let Some(answer) = look(object.as_ref()) {
                        return Ok(answer);
                    }
                    object.and_then(|object| object.resource_version()).unwrap_or_else(|| "0".to_owned())
                }
                Err(error) if passes(&error) => {
                    tracing::warn!(object = target.id(), "the API does not answer; trying again");
                    patience.with(tokio::time::sleep(RETRY)).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some(answer) = self.watch(target, &version, patience, &mut look).await? {
                return Ok(answer);
            }
        }
    }

    /// One watch; without an answer everything is to be read again.
    async fn watch<T>(
        &self,
        target: &Target,
        version: &str,
        patience: Patience<'_>,
        look: &mut impl FnMut(Option<&DynamicObject>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let params = WatchParams::default().fields(&format!("metadata.name={}", target.name));
        let api = self.api(target).await?;
        let Ok(stream) = patience.with(api.watch(&params.timeout(WATCH_SECONDS), version)).await? else {
            patience.with(tokio::time::sleep(RETRY)).await?;
            return Ok(None);
        };
        let mut stream = stream.boxed();
        let mut told = tokio::time::interval_at((Instant::now() + TELL).into(), TELL);
        loop {
            let event = tokio::select! {
                event = patience.with(stream.try_next()) => event?,
                _ = told.tick() => {
                    tracing::info!(object = target.id(), "still waiting");
                    continue;
                }
            };
            let answer = match event {
                Ok(Some(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                    look(Some(&object.into()))
                }
                Ok(Some(WatchEvent::Deleted(_))) => look(None),
                Ok(Some(WatchEvent::Bookmark(_))) => None,
                Ok(Some(WatchEvent::Error(_)) | None) | Err(_) => return Ok(None),
            };
            if answer.is_some() {
                return Ok(answer);
            }
        }
    }

    /// The last events about an object, as sentences; none where they cannot be read.
    pub(crate) async fn events(&self, object: &DynamicObject) -> Vec<String> {
        let (Ok(client), Some(uid)) = (self.client().await, object.uid()) else { return Vec::new() };
        let namespace = object.namespace().unwrap_or_else(|| "default".to_owned());
        let api = holdfast_client::namespaced::<Event>(client.clone(), &namespace);
        let params = ListParams::default().fields(&format!("involvedObject.uid={uid}")).limit(EVENTS_READ);
        let Ok(list) = api.list(&params).await else { return Vec::new() };
        let mut events: Vec<Event> = list.items.into_iter().map(|raw| Read::from(raw).object).collect();
        events.sort_by_key(|event| event.metadata.creation_timestamp.clone().map(|time| time.0));
        let told = |event: &Event| {
            let text = |part: &Option<String>| part.clone().unwrap_or_default();
            format!("{} {}: {}", text(&event.type_), text(&event.reason), text(&event.message))
        };
        events.iter().rev().take(EVENTS).rev().map(told).collect()
    }
}

/// Whether this may pass: the API is away, or has too much to do.
fn passes(error: &Error) -> bool {
    match error {
        Error::Away { .. } => true,
        Error::Api(kube::Error::Api(status)) => status.code == 429 || status.code >= 500,
        _ => false,
    }
}

/// Host and port, as people look for them.
fn host(config: &Config) -> String {
    let url = &config.cluster_url;
    url.authority().map_or_else(|| url.to_string(), ToString::to_string)
}

/// Without randomness, which the kernel does not refuse once it is up, two creates could not be told apart; the server
/// still makes no object twice.
fn random() -> u128 {
    let mut bytes = [0_u8; 16];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        tracing::warn!("the system gave no random bytes");
    }
    u128::from_le_bytes(bytes)
}

/// A missing object is named in the answer, a missing kind is not.
fn names_an_object(status: &kube::core::Status) -> bool {
    status.details.as_ref().is_some_and(|details| !details.name.is_empty())
}

/// The object that an apply sends.
pub(crate) fn body(
    target: &Target,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Json {
    let mut body = serde_json::json!({
        "apiVersion": target.kind.api_version,
        "kind": target.kind.kind,
        "metadata": {"name": target.name},
    });
    if !target.namespace.is_empty() {
        body["metadata"]["namespace"] = target.namespace.as_str().into();
    }
    for (part, entries) in [("labels", labels), ("annotations", annotations)] {
        if !entries.is_empty() {
            body["metadata"][part] = serde_json::json!(entries);
        }
    }
    body
}
