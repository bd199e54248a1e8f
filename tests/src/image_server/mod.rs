//! An HTTP server for disk images on loopback, which serves well or badly, file by file, as a story asks.

mod answer;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::runtime;

/// How one file is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Whole and in ranges, with `ETag`, `Accept-Ranges` and `If-Range`.
    Good,
    /// Good, at most so many bytes a second.
    Throttled(u64),
    /// The length is announced, the connection ends after so many bytes of an answer.
    Truncated(u64),
    /// The connection stays open for ever after so many bytes of an answer.
    Stalled(u64),
    /// The right length with the first byte changed.
    WrongBytes,
    /// Ranges are ignored and there is no `ETag`.
    WithoutRanges,
    /// 404.
    NotFound,
    /// 200 with an HTML page, as a captive portal answers.
    HtmlPage,
    /// 302 to this address.
    Redirect(String),
}

/// A request as it came, for stories that count them or look at their ranges.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The path asked for.
    pub path: String,
    /// The `Range` header, if any.
    pub range: Option<String>,
}

#[derive(Clone)]
struct Served {
    file: PathBuf,
    behaviour: Behaviour,
}

#[derive(Default)]
struct Shared {
    files: HashMap<String, Served>,
    seen: Vec<Seen>,
}

type Shelf = Arc<Mutex<Shared>>;

/// The running server; it ends when dropped.
pub struct ImageServer {
    port: u16,
    shelf: Shelf,
    task: AbortHandle,
}

impl ImageServer {
    /// Starts a server on a free loopback port.
    pub async fn start() -> Result<Self> {
        Self::start_on(0).await
    }

    /// Starts a server on a loopback port that stays the same over restarts of a site; 0 picks a free one.
    pub async fn start_on(port: u16) -> Result<Self> {
        let shelf = Shelf::default();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shelf));
        let runtime = runtime::harness()?;
        let bound = runtime.spawn(TcpListener::bind((Ipv4Addr::LOCALHOST, port))).await;
        let listener =
            bound.context("the harness runtime ended")?.context("could not listen for image requests")?;
        let port = listener.local_addr().context("could not read the image server's port")?.port();
        let task = runtime.spawn(async move { axum::serve(listener, router).await });
        Ok(Self { port, shelf, task: task.abort_handle() })
    }

    /// The loopback port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Serves `file` as `name` from now on and returns its address (the same inside a host that has a link to us).
    pub fn serve(&self, name: &str, file: &Path, behaviour: Behaviour) -> String {
        lock(&self.shelf).files.insert(format!("/{name}"), Served { file: file.to_owned(), behaviour });
        self.url(name)
    }

    /// The address of a name.
    pub fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}", self.port)
    }

    /// Requests for a name so far, oldest first.
    pub fn seen(&self, name: &str) -> Vec<Seen> {
        let path = format!("/{name}");
        lock(&self.shelf).seen.iter().filter(|seen| seen.path == path).cloned().collect()
    }
}

impl Drop for ImageServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(shelf: &Shelf) -> MutexGuard<'_, Shared> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(State(shelf): State<Shelf>, request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let range = request.headers().get("range").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let served = {
        let mut shared = lock(&shelf);
        shared.seen.push(Seen { path: path.clone(), range });
        shared.files.get(&path).cloned()
    };
    match served {
        None => answer::plain(404, "text/plain", "no such file\n"),
        Some(served) => answer::give(&served.file, &served.behaviour, request.headers()).await,
    }
}
