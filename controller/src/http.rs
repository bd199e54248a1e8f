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
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// A loop that leads passes at least every few seconds; one that has not for this long is stuck.
const STUCK: Duration = Duration::from_secs(120);

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
    axum::serve(listener, routes).await.context("the HTTP server ended")
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
