//! `holdfast-controller`: places virtual machines, enrols nodes, grants each node what its placements need.
//!
//! ```text
//! watches ─► cache ─► world ─► access, enrol, vm, node, image, network, ssh_key (pure) ─► writes ─► execute ─► API
//! ```

mod access;
mod backoff;
mod cache;
mod capacity;
mod certificate;
mod crds;
mod csr;
mod enrol;
mod execute;
mod finalizer;
mod heartbeat;
mod http;
mod image;
mod jitter;
mod metrics;
#[cfg(test)]
mod model;
mod network;
mod node;
mod observe;
mod place;
mod reconcile;
mod run;
mod signing;
mod ssh_key;
mod unread;
mod vm;
mod world;
mod write;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::{Parser, Subcommand};
use holdfast_api::names::SYSTEM_NAMESPACE;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged: what `RUST_LOG` says, or info. The client's own words repeat each error that we report.
fn logged() -> Targets {
    let asked = std::env::var("RUST_LOG").ok().and_then(|text| text.parse().ok());
    let usual = Targets::new().with_default(LevelFilter::INFO).with_target("kube_client", LevelFilter::OFF);
    asked.unwrap_or(usual)
}

/// The Holdfast controller.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Place virtual machines and enrol nodes until told to stop. Finds the cluster by KUBECONFIG or from inside it.
    Run(Run),
    /// Print the `CustomResourceDefinitions`, or write one file per kind into a folder.
    Crds {
        /// Folder to write into.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

#[derive(clap::Args)]
struct Run {
    /// Let nodes in whose identity key lies in a file, without asking a person. For development only.
    #[arg(long, env = "HOLDFAST_ACCEPT_INSECURE_DEV")]
    accept_insecure_dev: bool,
    /// Address of /metrics, /healthz and /readyz.
    #[arg(long, env = "HOLDFAST_LISTEN", default_value = "127.0.0.1:9797")]
    listen: SocketAddr,
    /// Namespace of the leader's Lease.
    #[arg(long, env = "HOLDFAST_NAMESPACE", default_value = SYSTEM_NAMESPACE)]
    namespace: String,
    /// Name of this controller in the leader's Lease; must differ between controllers that run at once. Random when absent.
    #[arg(long, env = "HOLDFAST_IDENTITY")]
    identity: Option<String>,
    /// How long a node's certificate is valid, in seconds: 10 minutes to 90 days. The node renews it at two thirds.
    #[arg(long, env = "HOLDFAST_CERTIFICATE_SECONDS", default_value_t = world::MOST_CERTIFICATE_SECONDS,
          value_parser = clap::value_parser!(i32).range(600..=i64::from(world::MOST_CERTIFICATE_SECONDS)))]
    certificate_seconds: i32,
    /// Log as JSON instead of text. What is logged stands in `RUST_LOG`, such as info or `holdfast_controller=debug`.
    #[arg(long, env = "HOLDFAST_LOG_JSON")]
    log_json: bool,
}

fn main() -> Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow!("another TLS provider is installed already"))?;
    match Args::parse().command {
        Command::Crds { dir } => crds::write(dir.as_deref()),
        Command::Run(run) => start(run),
    }
}

#[tokio::main]
async fn start(run: Run) -> Result<()> {
    let log = tracing_subscriber::registry().with(logged());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if run.log_json {
        log.with(lines.json()).init();
    } else {
        log.with(lines).init();
    }
    run::run(run::Options {
        listen: run.listen,
        namespace: run.namespace,
        identity: run.identity,
        settings: world::Settings {
            accept_insecure_dev: run.accept_insecure_dev,
            certificate_seconds: run.certificate_seconds,
        },
    })
    .await
}
