//! `/metrics`, `/healthz` (the loop goes round) and `/readyz` (it leads and has seen every kind, or stands by).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::metrics::Metrics;

/// A loop that leads passes at least every few seconds; one that has not for this long is stuck.
const STUCK: Duration = Duration::from_secs(120);

/// Connections at once: a few who scrape and the probes. Each costs some 20 KiB, and more would not be answered sooner.
const MOST_CONNECTIONS: usize = 32;
/// A connection ends after this long, whatever it does, so that nobody keeps the probes from their turn.
const CONNECTION_LIMIT: Duration = Duration::from_secs(5);
/// One that has not asked by then gives up its place.
const SILENCE: Duration = Duration::from_secs(1);
/// After a connection that could not be taken, for want of files, say.
const PAUSE: Duration = Duration::from_millis(100);

struct Health {
    metrics: Arc<Metrics>,
    last: Mutex<(u64, Instant)>,
}

/// Serves until the process ends.
pub(crate) async fn serve(address: SocketAddr, metrics: Arc<Metrics>) -> Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("could not listen on {address}; choose another address with --listen"))?;
    let health = Health { metrics, last: Mutex::new((0, Instant::now())) };
    let routes = Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Arc::new(health));
    take(listener, routes, CONNECTION_LIMIT).await
}

/// Takes connections while there are places; the others wait in the kernel.
async fn take(listener: TcpListener, routes: Router, limit: Duration) -> Result<()> {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.context("the HTTP server ended")?;
        match listener.accept().await {
            Ok((connection, _)) => {
                let routes = routes.clone();
                tokio::spawn(async move {
                    timeout(limit, answer(connection, routes)).await.ok();
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "could not take a connection");
                sleep(PAUSE).await;
            }
        }
    }
}

/// One request, one answer. A client that breaks off is no news.
async fn answer(connection: TcpStream, routes: Router) {
    let mut http = http1::Builder::new();
    let served = http
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(SILENCE)
        .serve_connection(TokioIo::new(connection), TowerToHyperService::new(routes))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke off");
    }
}

async fn metrics_text(State(health): State<Arc<Health>>) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (kind, health.metrics.text())
}

async fn healthz(State(health): State<Arc<Health>>) -> (StatusCode, &'static str) {
    if health.goes_round() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no pass for 2 minutes")
    }
}

async fn readyz(State(health): State<Arc<Health>>) -> (StatusCode, &'static str) {
    match (health.metrics.leads(), health.metrics.synced()) {
        (true, true) => (StatusCode::OK, "ok"),
        (true, false) => (StatusCode::SERVICE_UNAVAILABLE, "not every kind was listed yet"),
        (false, _) => (StatusCode::OK, "standing by"),
    }
}

impl Health {
    fn goes_round(&self) -> bool {
        let passes = self.metrics.passes();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if passes != last.0 {
            *last = (passes, Instant::now());
        }
        !self.metrics.synced() || last.1.elapsed() < STUCK
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(300);

    async fn serving(limit: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/healthz", get(async || "ok"));
        tokio::spawn(take(listener, routes, limit));
        address
    }

    async fn probe(address: SocketAddr) -> String {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        let mut text = String::new();
        connection.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn the_endpoint_takes_so_many_connections_and_no_idle_one_keeps_a_probe_from_its_turn() {
        let address = serving(LIMIT).await;
        assert!(probe(address).await.ends_with("ok"));
        let mut idle = Vec::new();
        for _ in 0..2 * MOST_CONNECTIONS {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let start = Instant::now();
        assert!(timeout(LIMIT / 2, probe(address)).await.is_err(), "more connections than places are served");
        let answer = timeout(LIMIT * 20, probe(address)).await.expect("the probe never has its turn");
        assert!(answer.starts_with("HTTP/1.1 200") && start.elapsed() >= LIMIT, "{answer}");
    }

    #[tokio::test]
    async fn a_client_that_asks_nothing_gives_up_its_place_soon() {
        let address = serving(SILENCE * 60).await;
        let mut silent = Vec::new();
        for _ in 0..MOST_CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let answer = timeout(SILENCE * 10, probe(address)).await.expect("silence keeps its place");
        assert!(answer.ends_with("ok"), "{answer}");
    }
}
