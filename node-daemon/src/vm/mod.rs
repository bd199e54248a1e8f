//! Virtual machines: observe, plan, execute, report, for each one alone.
//!
//! ```text
//! object (API) ─┐                      ┌─ plan (pure) ─▶ execute (one effect per step) ─▶ look again
//! domain, files ┴▶ goal ─▶ observe ────┘        └──────▶ report (status, event) ─▶ wait for a nudge
//! ```
//!
//! Level-triggered: events only bring the next look forward, and everything is read again at each. `supervise` runs one
//! task per virtual machine, so that none delays another.

mod addresses;
mod context;
mod desired;
pub(crate) mod dir;
mod execute;
mod fetches;
mod goal;
mod guard;
mod guest_user;
mod holdings;
mod inputs;
mod mac;
mod memory;
mod needs;
mod observe;
mod observed;
mod orphan;
mod panics;
mod pending;
mod plan;
mod record;
mod report;
pub(crate) mod room;
mod status;
mod supervise;
mod unseen;

use std::time::{Duration, Instant};

use uuid::Uuid;

pub(crate) use context::Context;
pub(crate) use supervise::run;

use execute::Execution;
use goal::Judged;
use memory::Memory;
use observed::{Domain, Obstacle, State};
use plan::{Plan, Step};
use report::Ending;

/// A start needs three rounds, a deletion four; more means that two rules push against each other.
const ROUNDS: usize = 12;

/// One pass over one virtual machine. Returns how long it may be left alone, or `None` when nothing of it exists.
pub(crate) async fn reconcile(context: &Context, uid: Uuid, memory: &mut Memory) -> Option<Duration> {
    let mut ending =
        Ending::Failed(Obstacle::later("Unsettled", "the node keeps changing its mind; please report it"));
    let mut judged = Judged::nothing(uid);
    let seen = Instant::now();
    for _ in 0..ROUNDS {
        let domain = match observe::domain(&context.libvirt, uid).await {
            Ok(domain) => domain,
            Err(error) => return report::unseen(context, uid, &error).await,
        };
        judged = goal::judge(context, uid, domain);
        if !matches!(&judged.domain, Domain::Ours { state: State::Running | State::Paused(_), .. }) {
            memory.at_rest();
        }
        let Some(goal) = judged.goal() else { break };
        let look = observe::observe(context, uid, goal.desired(), judged.domain.clone()).await;
        memory.progress = look.progress;
        memory.pins = look.pins;
        memory.hindrance = plan::hindrance(goal, &look.observed);
        match plan::plan(goal, &look.observed, &memory.moment(&context.clock)) {
            Plan::Do(steps) => {
                memory.before(&steps);
                let mut execution = Execution::new(context, uid, goal.desired(), &look.material);
                if let Err((step, obstacle)) = execution.all(&steps).await {
                    tracing::warn!(vm = %uid, step, reason = obstacle.reason, error = obstacle.message, "step failed");
                    ending = Ending::Failed(obstacle);
                    break;
                }
                report::tell(context, &judged, &steps, memory, seen);
            }
            plan => {
                ending = Ending::Plan(plan);
                break;
            }
        }
    }
    report::report(context, &judged, ending, memory).await
}

impl Step {
    /// The step as a word for the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::FetchImage { .. } => "fetch-image",
            Self::MakeFolder => "make-folder",
            Self::CreateOverlay { .. } => "create-overlay",
            Self::CreateBlank { .. } => "create-blank",
            Self::Grow { .. } => "grow",
            Self::WriteSeed(_) => "write-seed",
            Self::EnsureNetwork { .. } => "ensure-network",
            Self::Define(_) => "define",
            Self::Guard => "guard",
            Self::Start { .. } => "start",
            Self::Remember(_) => "remember",
            Self::RequestShutdown => "request-shutdown",
            Self::Destroy => "destroy",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Undefine => "undefine",
            Self::RemoveFiles => "remove-files",
        }
    }
}

/// An error with its causes as one sentence, for a condition.
pub(crate) fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
