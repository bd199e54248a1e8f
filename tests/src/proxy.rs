//! A proxy before the API server that counts writes and can cut the line after any of them.
//!
//! It listens without TLS on loopback and passes each client's own credentials on, so that a program's rights stay its
//! own. A write that was let through has happened; whether its answer arrives is the story's choice. A write that is kept
//! waits here, and so does whoever sent it. So "killed between two writes" needs nothing in the program under test.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::files;
use crate::kubeconfig::Server;

/// Larger than any object the API server takes.
const BODY_LIMIT: usize = 4 << 20;

/// The proxy; dropping it cuts every line.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    upstream: String,
    client: reqwest::Client,
    /// How many writes may still pass.
    left: AtomicUsize,
    /// Whether further writes are kept for later.
    keeps: AtomicBool,
    kept: Mutex<Vec<Kept>>,
    passed: Mutex<Vec<String>>,
}

/// A write on its way. Who sent it waits for the answer; without one it is refused when this is dropped.
pub struct Kept {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    answer: oneshot::Sender<Response>,
}

impl Proxy {
    /// Starts one before `server`.
    pub async fn start(server: &Server) -> Result<Self> {
        let authority =
            reqwest::Certificate::from_pem(server.authority.as_bytes()).context("no authority")?;
        let client = reqwest::Client::builder().tls_certs_only([authority]).no_proxy().build();
        let shared = Arc::new(Shared {
            upstream: format!("https://{}:{}", server.host, server.port),
            client: client.context("could not make an HTTP client")?,
            left: AtomicUsize::new(usize::MAX),
            keeps: AtomicBool::new(false),
            kept: Mutex::default(),
            passed: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.context("could not listen")?;
        let port = listener.local_addr().context("could not tell the port")?.port();
        let routes = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let serving = tokio::spawn(async move { drop(axum::serve(listener, routes).await) });
        Ok(Self { port, shared, serving })
    }

    /// Writes a kubeconfig that leads through the proxy.
    pub fn write_kubeconfig(&self, file: &Path, token: &str) -> Result<()> {
        let document = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": {"server": format!("http://127.0.0.1:{}", self.port)}}],
            "users": [{"name": "proxy", "user": {"token": token}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
            "current-context": "proxy",
        });
        files::write_private(file, document.to_string())
    }

    /// Lets this many more writes pass, then cuts the line: nothing passes and no answer arrives, not even the last one.
    pub fn cut_after(&self, writes: usize) {
        self.shared.keeps.store(false, Ordering::SeqCst);
        self.shared.left.store(writes, Ordering::SeqCst);
    }

    /// Lets this many more writes pass, then keeps those that come after, as a slow line does. All else passes, so that
    /// whoever writes hears what it waits for and comes to its next write.
    pub fn keep_after(&self, writes: usize) {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.shared.keeps.store(true, Ordering::SeqCst);
        self.shared.left.store(writes, Ordering::SeqCst);
    }

    /// Whether a write is kept.
    pub fn keeps(&self) -> bool {
        !self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Takes the writes that were kept, for their delivery.
    pub fn take_kept(&self) -> Vec<Kept> {
        std::mem::take(&mut *self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends writes that were kept, and returns which were taken. Who still waits for an answer gets it.
    pub async fn deliver(&self, kept: Vec<Kept>) -> Result<Vec<String>> {
        let mut taken = Vec::new();
        for Kept { method, path, headers, body, answer } in kept {
            let name = format!("{method} {path}");
            let target = format!("{}{path}", self.shared.upstream);
            let sent = self.shared.client.request(method, target).headers(headers).body(body).send().await;
            let sent = sent.context("could not deliver a write")?;
            if sent.status().is_success() {
                taken.push(name);
            }
            if let Ok(response) = passed_on(sent) {
                // One that was killed waits no more.
                drop(answer.send(response));
            }
        }
        Ok(taken)
    }

    /// Lets everything pass again.
    pub fn mend(&self) {
        self.shared.left.store(usize::MAX, Ordering::SeqCst);
    }

    /// Whether the line is cut.
    pub fn is_cut(&self) -> bool {
        self.shared.left.load(Ordering::SeqCst) == 0
    }

    /// The writes that passed so far, such as `PATCH /apis/…`; events and Leases of leaders are left out.
    pub fn writes(&self) -> Vec<String> {
        self.shared.passed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A write whose loss matters: events are a courtesy, and the leader's Lease is renewed all the time.
fn counts(method: &Method, path: &str) -> bool {
    let reads = *method == Method::GET || *method == Method::HEAD;
    !reads
        && !path.contains("/events")
        && !path.ends_with("/leases/holdfast-controller")
        && !path.ends_with("/leases")
        || *method == Method::POST && path.ends_with("/leases")
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, StatusCode> {
    let (parts, body) = request.into_parts();
    let counted = counts(&parts.method, parts.uri.path());
    if !shared.admit(counted) {
        match (shared.keeps.load(Ordering::SeqCst), counted) {
            (true, true) => return shared.keep(parts, body).await,
            (true, false) => {}
            (false, _) => return Err(StatusCode::SERVICE_UNAVAILABLE),
        }
    }
    if counted {
        let mut passed = shared.passed.lock().unwrap_or_else(PoisonError::into_inner);
        passed.push(format!("{} {}", parts.method, parts.uri.path()));
    }
    let body = to_bytes(body, BODY_LIMIT).await.map_err(|_| StatusCode::BAD_REQUEST)?;
    let target = format!("{}{}", shared.upstream, parts.uri);
    let sent = shared.client.request(parts.method, target).headers(forwarded(parts.headers)).body(body);
    let answer = sent.send().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let lost = shared.left.load(Ordering::SeqCst) == 0 && !shared.keeps.load(Ordering::SeqCst);
    if counted && lost {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    passed_on(answer)
}

fn passed_on(answer: reqwest::Response) -> Result<Response, StatusCode> {
    let mut response = Response::builder().status(answer.status());
    if let Some(kind) = answer.headers().get(header::CONTENT_TYPE) {
        response = response.header(header::CONTENT_TYPE, kind);
    }
    response.body(Body::from_stream(answer.bytes_stream())).map_err(|_| StatusCode::BAD_GATEWAY)
}

impl Shared {
    /// Keeps a write, and answers it with what comes of its delivery.
    async fn keep(&self, parts: Parts, body: Body) -> Result<Response, StatusCode> {
        let body = to_bytes(body, BODY_LIMIT).await.map_err(|_| StatusCode::BAD_REQUEST)?;
        let path = parts.uri.to_string();
        let (answer, delivered) = oneshot::channel();
        let kept = Kept { method: parts.method, path, headers: forwarded(parts.headers), body, answer };
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
        delivered.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
    }

    /// Whether the request may pass; a write that counts takes its place.
    fn admit(&self, counted: bool) -> bool {
        let take = |left: usize| match (left, counted) {
            (0, _) => None,
            (usize::MAX, _) | (_, false) => Some(left),
            (_, true) => Some(left - 1),
        };
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }
}

/// Headers that belong to the request, not to the connection; compressed answers would need no less care than plain ones.
fn forwarded(mut headers: HeaderMap) -> HeaderMap {
    for name in [header::HOST, header::CONNECTION, header::CONTENT_LENGTH, header::ACCEPT_ENCODING] {
        headers.remove(name);
    }
    headers
}
