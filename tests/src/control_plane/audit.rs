//! Counting requests where they arrive: the API server's own audit log, so nothing stands between it and its clients.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::files;

/// What the API server is told to write down.
const POLICY: &str = include_str!("audit.yaml");

/// A request of one of our programs, as the API server answered it. A watch appears when it ends.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, …
    pub verb: String,
    user: User,
    object_ref: Option<Object>,
    response_status: Option<Status>,
}

#[derive(Clone, Debug, Deserialize)]
struct User {
    username: String,
}

/// What a request was about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Object {
    /// Plural name of the kind.
    pub resource: String,
    /// `status`, `finalizers`, … or empty.
    pub subresource: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// Empty for lists.
    pub name: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Status {
    code: u16,
}

impl Request {
    /// Who asked.
    pub fn user(&self) -> &str {
        &self.user.username
    }

    /// What it was about.
    pub fn object(&self) -> Object {
        self.object_ref.clone().unwrap_or_default()
    }

    /// The HTTP code of the answer, 0 if there was none.
    pub fn code(&self) -> u16 {
        self.response_status.as_ref().map_or(0, |status| status.code)
    }

    /// Whether it changes something when it succeeds.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// `verb resource/subresource`, to count by.
    pub fn what(&self) -> String {
        let object = self.object();
        let separator = if object.subresource.is_empty() { "" } else { "/" };
        format!("{} {}{separator}{}", self.verb, object.resource, object.subresource)
    }
}

/// Counts requests by verb and kind, for a message or a bench.
pub fn count(requests: &[Request]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in requests {
        *counts.entry(request.what()).or_default() += 1;
    }
    counts
}

/// The audit log of one control plane.
pub struct Audit {
    folder: PathBuf,
}

/// A place in the log.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

impl Audit {
    pub(super) fn new(folder: &Path) -> Result<Self> {
        files::write(&folder.join("audit-policy.yaml"), POLICY)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Arguments that make the API server write the log.
    pub(super) fn arguments(&self) -> [String; 2] {
        [
            format!("--audit-policy-file={}/audit-policy.yaml", self.folder.display()),
            format!("--audit-log-path={}", self.log().display()),
        ]
    }

    fn log(&self) -> PathBuf {
        self.folder.join("logs/audit.log")
    }

    /// The end of the log as it is now.
    pub fn mark(&self) -> Mark {
        Mark(files::read(&self.log()).map_or(0, |text| text.len()))
    }

    /// Requests answered since `mark`, oldest first.
    pub fn since(&self, mark: Mark) -> Result<Vec<Request>> {
        let text = files::read(&self.log())?;
        let fresh = text.get(mark.0..).unwrap_or_default();
        // The last line may be in the middle of being written.
        let whole = fresh.rfind('\n').map_or("", |end| &fresh[..end]);
        whole.lines().map(|line| serde_json::from_str(line).context("an audit line does not parse")).collect()
    }
}
