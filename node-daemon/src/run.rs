//! The wiring: every loop of the daemon is started here and knows the others only through channels.
//!
//! ```text
//!   enrol ──Session──► lease ──Contact──► objects, report, enrol
//!                      objects ◄──────► vm driver ──Holdings──► report
//!                      accelerator ──Proof──► vm driver, report
//!                      vm driver ──Reach──► problems ◄── disk, clock
//!                                           problems ──► vm driver, report
//! ```
//!
//! Nothing here waits for the API, for libvirt or for the proof: each loop reports what it cannot reach and goes on.

use std::path::PathBuf;
use std::time::Duration;

use holdfast_api::node::{Capacity, NodeProblem};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::{info, warn};

use crate::accelerator::{self, Proof};
use crate::apart::apart;
use crate::clock::Clock;
use crate::config::Config;
use crate::contact::Contact;
use crate::enrol::Enroller;
use crate::health::{Health, Pulse};
use crate::identity::{self, Identity};
use crate::libvirt::Reach;
use crate::node::report::Reporter;
use crate::node::{self, Holdings, Wishes, disk, facts, lease, problems};
use crate::objects::Objects;
use crate::supervisor::{self, Supervisor};
use crate::vm;

/// Why the daemon ended though nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The state folder cannot be made.
    #[error("could not make the state folder {}", path.display())]
    StateDir { path: PathBuf, source: std::io::Error },
    /// There is no usable identity key.
    #[error("the node has no identity")]
    Identity { source: identity::Error },
    /// The host's size cannot be read.
    #[error("could not measure this host")]
    Facts { source: facts::Error },
    /// The system gave no thread.
    #[error("could not watch the disk of the state folder")]
    Disk { source: std::io::Error },
    /// The system gave no signal handler.
    #[error("could not listen for the signal to end")]
    Signal { source: std::io::Error },
    /// A loop ended or panicked: nothing of it is left to repair, the next start recovers.
    #[error("a part of the daemon ended by itself")]
    Part { source: Option<JoinError> },
}

/// The vm driver looks at everything at least every 45 s (30 s, spread); one pass late is still no hang.
const PASS: Duration = Duration::from_secs(120);

/// The configuration says `insecureDev`, or it would have been refused.
fn key_dir(config: &Config) -> PathBuf {
    config.insecure_dev.as_ref().map(|dev| dev.key_dir.clone()).unwrap_or_default()
}

/// Runs until SIGTERM or SIGINT. Guests are never touched by the end of the daemon.
pub(crate) async fn run(config: Config) -> Result<(), Error> {
    std::fs::create_dir_all(&config.state_dir)
        .map_err(|source| Error::StateDir { path: config.state_dir.clone(), source })?;
    let identity = Identity::open(&key_dir(&config)).map_err(|source| Error::Identity { source })?;
    let facts = facts::read(&config);
    let capacity = facts::measure(&config).map_err(|source| Error::Facts { source })?;
    info!(node = %config.node_name, version = env!("CARGO_PKG_VERSION"), "starting");
    warn!(keys = %key_dir(&config).display(), "insecureDev: the identity key of this node lies in a file that can be copied");
    let disk = disk::watch(config.state_dir.clone()).map_err(|source| Error::Disk { source })?;
    let mut parts = start(config, identity, facts, watch::Sender::new(capacity), disk);
    let ended = tokio::select! {
        asked = asked_to_end() => asked,
        ended = parts.join_next() => Err(Error::Part { source: ended.and_then(Result::err) }),
    };
    supervisor::stopping();
    ended
}

fn start(
    config: Config,
    identity: Identity,
    facts: facts::Facts,
    capacity: watch::Sender<Capacity>,
    disk: watch::Receiver<disk::Disk>,
) -> JoinSet<()> {
    let mut parts = JoinSet::new();
    let clock = Clock::start();
    let node = config.node_name.clone();
    let session = watch::Sender::new(None);
    let contact = watch::Sender::new(Contact::Never);
    let proof = watch::Sender::new(Proof::Pending);
    let holdings = watch::Sender::new(None::<Holdings>);
    let reach = watch::Sender::new(Reach::Untold);
    let problems = watch::Sender::new(None);
    let wishes = watch::Sender::new(Wishes::default());
    let health = Health::default();

    let (objects, serving) = Objects::new(node.clone(), session.subscribe(), contact.subscribe());
    let reporter = Reporter {
        node: node.clone(),
        session: session.subscribe(),
        contact: contact.subscribe(),
        own: objects.own(),
        facts,
        capacity: capacity.subscribe(),
        accelerator: config.accelerator,
        proof: proof.subscribe(),
        holdings: holdings.subscribe(),
        problems: problems.subscribe(),
        cut: false,
    };
    let supervisor = Supervisor {
        health: health.clone(),
        contact: contact.subscribe(),
        proof: proof.subscribe(),
        holdings: holdings.subscribe(),
        problems: problems.subscribe(),
    };
    let driver = Driver {
        capacity: capacity.subscribe(),
        objects: objects.clone(),
        proof: proof.subscribe(),
        wishes: wishes.subscribe(),
        holdings,
        problems: problems.subscribe(),
        clock: clock.clone(),
        reach: reach.clone(),
        pulse: health.pulse("virtual machines", PASS),
        config: config.clone(),
    };
    parts.spawn(facts::keep_measuring(config.clone(), capacity));
    parts.spawn(serving);
    parts.spawn(reporter.run());
    parts.spawn(supervisor.run());
    parts.spawn(node::follow_wishes(objects.own(), wishes));
    parts.spawn(lease::renew(node.clone(), session.subscribe(), contact.clone()));
    parts.spawn(problems::watch(reach.subscribe(), disk, clock.clone(), problems));
    let enroller = Enroller { node, kubeconfig: config.kubeconfig.clone(), identity, clock };
    parts.spawn(enroller.keep(session, contact.subscribe()));
    parts.spawn(prove(config, proof));
    parts.spawn(apart(vm::run(driver)));
    parts
}

/// The end of this loop is no failure: a proof that holds is not sought again.
async fn prove(config: Config, proof: watch::Sender<Proof>) {
    accelerator::keep_proving(config.accelerator, config.emulator, proof.clone()).await;
    std::future::pending::<()>().await;
}

/// What the vm driver is given.
pub(crate) struct Driver {
    pub(crate) config: Config,
    /// What virtual machines may be given.
    pub(crate) capacity: watch::Receiver<Capacity>,
    pub(crate) objects: Objects,
    pub(crate) proof: watch::Receiver<Proof>,
    pub(crate) wishes: watch::Receiver<Wishes>,
    pub(crate) holdings: watch::Sender<Option<Holdings>>,
    pub(crate) reach: watch::Sender<Reach>,
    /// What keeps the node from its work.
    pub(crate) problems: watch::Receiver<Option<Vec<NodeProblem>>>,
    pub(crate) clock: Clock,
    /// Beats after each pass; with a sentence when libvirt does not answer.
    pub(crate) pulse: Pulse,
}

async fn asked_to_end() -> Result<(), Error> {
    let failed = |source| Error::Signal { source };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("ending; guests run on");
    Ok(())
}
