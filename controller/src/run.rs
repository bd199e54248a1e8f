//! `holdfast-controller run`: wiring, the leader's Lease, the end.
//!
//! Crash-only: a controller that loses its Lease or a part of itself ends, and the next start goes on from what stands
//! in the API. SIGTERM and SIGINT give the Lease back first, so that a successor need not wait for it to expire.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use holdfast_api::names::CONTROLLER;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use kube_lease_manager::LeaseManagerBuilder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::backoff::Backoff;
use crate::execute::Executor;
use crate::heartbeat::Heartbeats;
use crate::http;
use crate::metrics::Metrics;
use crate::observe::Caches;
use crate::reconcile::Reconciler;
use crate::unread::Told;
use crate::world::Settings;

/// The leader's Lease lives this long without renewal (s): a successor of a killed leader waits for it.
const LEASE_SECONDS: u64 = 15;
/// Renewed this much before its end (s); clocks of two controllers may differ by less.
const GRACE_SECONDS: u64 = 5;
/// To give the Lease back at the end; longer gains nothing, as it expires by then.
const RELEASE_LIMIT: Duration = Duration::from_secs(LEASE_SECONDS);

/// What the command line says.
pub(crate) struct Options {
    /// Where `/metrics` and the probes are served.
    pub(crate) listen: SocketAddr,
    /// Namespace of the leader's Lease.
    pub(crate) namespace: String,
    /// Name in the Lease; a process started anew under the same name need not wait for the old one's Lease.
    pub(crate) identity: Option<String>,
    pub(crate) settings: Settings,
}

/// Runs until SIGTERM, SIGINT or the loss of the Lease.
pub(crate) async fn run(options: Options) -> Result<()> {
    let client =
        Client::try_default().await.context("could not find a cluster: set KUBECONFIG, or run in one")?;
    run_with(client, options).await
}

async fn run_with(client: Client, options: Options) -> Result<()> {
    let metrics = Arc::new(Metrics::new());
    let serve = http::serve(options.listen, Arc::clone(&metrics));
    let mut told = pin!(told_to_end()?);
    let manager = tokio::select! {
        manager = manager(client.clone(), &options) => manager?,
        () = &mut told => return Ok(()),
    };
    let (mut leads, releasing) = manager.watch().await;
    tracing::info!(listen = %options.listen, "holdfast-controller started; asking for the lead");
    let ended = tokio::select! {
        ended = serve => ended,
        ended = lead(client, &options, &mut leads, &metrics) => ended,
        () = &mut told => Ok(()),
    };
    // Dropping the channel gives the Lease back.
    drop(leads);
    tokio::time::timeout(RELEASE_LIMIT, releasing)
        .await
        .context("the Lease was not given back in time: a successor waits until it expires")?
        .context("the task that keeps the Lease panicked")?
        .context("could not give the Lease back")?;
    tracing::info!("holdfast-controller ended");
    ended
}

/// Ends with the first SIGTERM or SIGINT from now on.
fn told_to_end() -> Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate()).context("could not listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("could not listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

async fn manager(client: Client, options: &Options) -> Result<kube_lease_manager::LeaseManager> {
    let builder = LeaseManagerBuilder::new(client, CONTROLLER)
        .with_namespace(&options.namespace)
        .with_duration(LEASE_SECONDS)
        .with_grace(GRACE_SECONDS);
    let builder = match &options.identity {
        Some(identity) => {
            builder.with_identity(identity).with_field_manager(format!("{CONTROLLER}-{identity}"))
        }
        None => builder,
    };
    builder.build().await.context("could not read the Lease of the leader")
}

/// Waits for the lead, then reconciles until it is lost.
async fn lead(
    client: Client,
    options: &Options,
    leads: &mut watch::Receiver<bool>,
    metrics: &Arc<Metrics>,
) -> Result<()> {
    leads.wait_for(|leads| *leads).await.context("the task that keeps the Lease ended")?;
    tracing::info!("leading");
    metrics.set_leader();
    let wake = Arc::new(Notify::new());
    let (caches, follow) = Caches::new(&client, &wake);
    let reporter = Reporter {
        controller: CONTROLLER.to_owned(),
        instance: Some(options.identity.clone().unwrap_or_else(|| CONTROLLER.to_owned())),
    };
    let reconciler = Reconciler {
        executor: Executor { client: client.clone(), recorder: Recorder::new(client.clone(), reporter) },
        client,
        caches,
        settings: options.settings,
        wake,
        metrics: Arc::clone(metrics),
        beats: Heartbeats::default(),
        backoff: Backoff::default(),
        told: Told::default(),
        unhurried: Instant::now(),
    };
    // Tasks of their own: a long pass must not keep the watches from being read. Dropping the set ends them, so nothing
    // is written once the Lease is given back.
    let mut tasks = JoinSet::new();
    tasks.spawn(follow);
    tasks.spawn(reconciler.run());
    tokio::select! {
        lost = leads.wait_for(|leads| !*leads) => lost.map(drop).context("the task that keeps the Lease ended")?,
        ended = tasks.join_next() => ended.context("no task runs")?.context("a task panicked")?,
    }
    bail!("the lead was lost: another controller may have taken over");
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn it_ends_when_told_though_the_api_never_answers() {
        // Another test may have been first; which of them does not matter.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", mute.local_addr().unwrap());
        let client = Client::try_from(kube::Config::new(server.parse().unwrap())).unwrap();
        let options = Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            namespace: "default".to_owned(),
            identity: None,
            settings: Settings::default(),
        };
        let running = tokio::spawn(run_with(client, options));
        // It asks for the Lease, so by now it listens to signals.
        let _connection = mute.accept().await.unwrap();
        let this = std::process::id().to_string();
        std::process::Command::new("kill").args(["-TERM", &this]).status().unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(10), running).await;
        ended.expect("it still runs").unwrap().unwrap();
    }
}
