//! Says what became of a pass: status, events, and when to look again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use holdfast_api::VirtualMachine;
use holdfast_api::virtual_machine::{Address, Progress, SeedStatus, VirtualMachineStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use uuid::Uuid;

use super::context::Context;
use super::execute::libvirt_obstacle;
use super::goal::Judged;
use super::memory::Memory;
use super::observed::{Domain, Obstacle, PausedBy, State};
use super::plan::{Goal, On, Plan, Step};
use super::record::Run;
use super::status::{self, Outcome, Report};
use super::{addresses, inputs, pending, unseen};
use crate::jitter::spread;
use crate::libvirt::{self, Reach};
use crate::objects::Severity;
use crate::retry::Retry;

/// Steady state: correctness must not depend on events.
const STEADY: Duration = Duration::from_secs(30);
/// Libvirt or the API come back within seconds, as a rule.
const SOON: Duration = Duration::from_secs(3);
/// Somebody has to act on another object; its change wakes us, this only catches what no watch tells.
const LATER: Duration = Duration::from_secs(20);
/// A guest that has no address yet is looked at this often…
const NAMELESS: Duration = Duration::from_secs(2);
/// …for so long; one that never asks for an address must not cost more than any other.
const NAMELESS_FOR: Duration = Duration::from_secs(300);
/// How often the Secrets of a running guest are compared with those in its seed.
const SECRETS: Duration = Duration::from_secs(600);

/// Says of what nobody can act on but us what it means and whom to tell.
const PANICKED: &str = "the node's work on this virtual machine failed by a fault of Holdfast and is tried again by itself; \
    its guest is left alone, and so are other virtual machines; please report it with journalctl -u holdfast-node";

/// How a pass ended.
pub(crate) enum Ending {
    /// With a plan that asks for no more steps now.
    Plan(Plan),
    /// With a step that failed.
    Failed(Obstacle),
}

/// Writes the status where there is an object, and returns when to look again: `None` when nothing is left to look at.
pub(crate) async fn report(
    context: &Context,
    judged: &Judged,
    ending: Ending,
    memory: &mut Memory,
) -> Option<Duration> {
    if judged.goal().is_none() && judged.refused.is_none() {
        return ghost(judged, &ending);
    }
    let addresses = addresses::of(context, judged).await;
    let next = next(judged, &ending, addresses.is_empty(), memory);
    if let Some(vm) = &judged.object {
        tell_obstacle(context, judged, &ending, memory);
        let status = make(context, judged, &ending, addresses, vm, memory).await;
        if let Err(error) = context.objects.patch_status(vm, &status).await {
            tracing::debug!(vm = %judged.uid, error = super::sentence(&error), "status not written");
            return Some(retry(error.retry()).min(next));
        }
    }
    Some(next)
}

/// Libvirt did not tell of the domain: what was last known stands, and the status says so. A restart of libvirt passes
/// within seconds and is not worth a word.
pub(crate) async fn unseen(context: &Context, uid: Uuid, error: &libvirt::Error) -> Option<Duration> {
    let obstacle = libvirt_obstacle(error);
    let away = matches!(error, libvirt::Error::Unreachable { .. } | libvirt::Error::Busy { .. });
    if !away || context.libvirt.reach() == Reach::Silent {
        say_unseen(context, uid, &obstacle).await;
    }
    Some(retry(obstacle.retry))
}

/// The work on this virtual machine panicked: that is its condition, an event and one more in the node's count.
pub(crate) async fn panicked(context: Arc<Context>, uid: Uuid) {
    context.panics.fetch_add(1, Ordering::Relaxed);
    let obstacle = Obstacle::later("Internal", PANICKED);
    if let Some(vm) = context.objects.virtual_machine(&uid.to_string()) {
        context.objects.event(&vm, Severity::Warning, obstacle.reason, &obstacle.message);
    }
    say_unseen(&context, uid, &obstacle).await;
}

async fn say_unseen(context: &Context, uid: Uuid, obstacle: &Obstacle) {
    let Some(vm) = context.objects.virtual_machine(&uid.to_string()) else { return };
    let status = unseen::status(&vm, obstacle, &Time(Timestamp::now()));
    if let Err(error) = context.objects.patch_status(&vm, &status).await {
        tracing::debug!(vm = %uid, error = super::sentence(&error), "status not written");
    }
}

/// No object and no record: a foreign domain, or nothing at all.
fn ghost(judged: &Judged, ending: &Ending) -> Option<Duration> {
    match (&judged.domain, ending) {
        (_, Ending::Failed(obstacle)) => Some(retry(obstacle.retry)),
        (Domain::Absent, _) => None,
        _ => Some(STEADY),
    }
}

async fn make(
    context: &Context,
    judged: &Judged,
    ending: &Ending,
    addresses: Vec<Address>,
    vm: &VirtualMachine,
    memory: &mut Memory,
) -> VirtualMachineStatus {
    let desired = judged.goal().and_then(Goal::desired);
    let ssh_keys = desired.map(|desired| inputs::ssh_keys(&context.objects, desired)).transpose();
    let secrets = secrets(context, judged, memory).await;
    let unseeded = ssh_keys.as_ref().err().or(secrets.as_ref().err()).filter(|_| reseeds(judged));
    let hindrance = memory.hindrance.as_ref().or(unseeded);
    let before = vm.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let waits = matches!(ending, Ending::Plan(Plan::Wait { on: On::Image, .. }));
    status::status(&Report {
        uid: judged.uid,
        generation: vm.metadata.generation.unwrap_or(0),
        goal: judged.goal(),
        refused: judged.refused.as_ref(),
        domain: &judged.domain,
        outcome: match ending {
            Ending::Plan(plan) => Outcome::Plan(plan),
            Ending::Failed(obstacle) => Outcome::Failed(obstacle),
        },
        addresses,
        pins: &memory.pins,
        progress: memory.progress.filter(|_| waits).map(progress),
        inputs: pending::Inputs {
            ssh_keys: ssh_keys.as_ref().ok().and_then(Option::as_deref),
            secrets: secrets.as_ref().ok().and_then(Option::as_ref),
        },
        hindrance,
        before,
        now: Time(Timestamp::now()),
    })
}

fn progress(progress: crate::image::Progress) -> Progress {
    let count = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    Progress {
        what: "Fetching image".to_owned(),
        bytes: count(progress.bytes),
        total: progress.total.map(count),
    }
}

/// Whether a new seed waits for the next start.
fn reseeds(judged: &Judged) -> bool {
    let reseed = judged.goal().and_then(Goal::desired).map(|desired| &desired.cloud_init().reseed);
    judged.domain.record().zip(reseed).is_some_and(|(record, reseed)| record.wants_reseed(reseed))
}

/// Which Secrets a seed would be made from now: looked up rarely, since each look is a request.
async fn secrets(
    context: &Context,
    judged: &Judged,
    memory: &mut Memory,
) -> Result<Option<SeedStatus>, Obstacle> {
    let Some(desired) = judged.goal().and_then(Goal::desired) else { return Ok(None) };
    let cloud_init = desired.cloud_init();
    let named = cloud_init.user_data_secret.is_some() || cloud_init.network_data_secret.is_some();
    if !named || judged.domain.record().is_none() || !context.objects.reachable() {
        return Ok(None);
    }
    if let Some((at, generation, secrets)) = &memory.secrets
        && at.elapsed() < SECRETS
        && *generation == desired.generation()
    {
        return Ok(Some(secrets.clone()));
    }
    match inputs::gather(&context.objects, desired).await.0 {
        super::observed::Inputs::Ready { secrets, .. } => {
            memory.secrets = Some((Instant::now(), desired.generation(), secrets.clone()));
            Ok(Some(secrets))
        }
        super::observed::Inputs::Unavailable(obstacle) => Err(obstacle),
    }
}

fn next(judged: &Judged, ending: &Ending, nameless: bool, memory: &mut Memory) -> Duration {
    match ending {
        Ending::Failed(obstacle) | Ending::Plan(Plan::Blocked(obstacle)) => retry(obstacle.retry),
        Ending::Plan(Plan::Wait { until, .. }) => (*until).max(Duration::from_millis(100)),
        Ending::Plan(Plan::Do(_)) => SOON,
        Ending::Plan(Plan::Converged) => converged(judged, nameless, memory),
    }
}

fn converged(judged: &Judged, nameless: bool, memory: &mut Memory) -> Duration {
    match &judged.domain {
        Domain::Ours { state: State::Paused(PausedBy::IoError), .. } => SOON,
        Domain::Ours { state: State::Running, .. } if nameless && memory.nameless_for() < NAMELESS_FOR => {
            NAMELESS
        }
        _ => spread(STEADY),
    }
}

fn retry(retry: Retry) -> Duration {
    match retry {
        Retry::Soon => SOON,
        Retry::Later => spread(LATER),
        Retry::OnChange => spread(STEADY),
    }
}

/// Events mark transitions: what was done…
pub(crate) fn tell(context: &Context, judged: &Judged, steps: &[Step], memory: &mut Memory, seen: Instant) {
    let Some(vm) = &judged.object else { return };
    for step in steps.iter().filter(|step| is_news(step, &judged.domain, memory)) {
        let Some((reason, note)) = story(step) else { continue };
        let took_us = seen.elapsed().as_micros();
        let (namespace, name) = (&vm.metadata.namespace, &vm.metadata.name);
        tracing::info!(vm = %judged.uid, namespace, name, reason, took_us, "{note}");
        context.objects.event(vm, Severity::Normal, reason, note);
    }
}

/// A guest frozen by a full disk is let run again and again, one just started for the first time, and a download is tried
/// again and again: no story.
fn is_news(step: &Step, domain: &Domain, memory: &mut Memory) -> bool {
    match step {
        Step::Resume => match domain {
            Domain::Ours { state: State::Paused(PausedBy::IoError), .. } => false,
            Domain::Ours { record, .. } => record.run != Run::Ready,
            Domain::Absent | Domain::Foreign => true,
        },
        Step::FetchImage { .. } => !std::mem::replace(&mut memory.told_fetch, true),
        _ => true,
    }
}

fn story(step: &Step) -> Option<(&'static str, &'static str)> {
    match step {
        Step::FetchImage { .. } => {
            Some(("FetchingImage", "the node fetches the image; status.progress counts the bytes"))
        }
        Step::Start { .. } => Some(("Started", "the guest was started")),
        Step::RequestShutdown => Some(("Stopping", "the guest was asked to power off")),
        Step::Destroy => Some(("Stopped", "the guest did not power off in time and was stopped by force")),
        Step::Suspend => Some(("Paused", "the guest's processors were frozen")),
        Step::Resume => Some(("Resumed", "the guest's processors run again")),
        Step::RemoveFiles => Some(("Removed", "nothing of the virtual machine is left on the node")),
        Step::MakeFolder
        | Step::CreateOverlay { .. }
        | Step::CreateBlank { .. }
        | Step::Grow { .. }
        | Step::WriteSeed(_)
        | Step::EnsureNetwork { .. }
        | Step::Define(_)
        | Step::Guard
        | Step::Remember(_)
        | Step::Undefine => None,
    }
}

/// …and what is in the way, once per reason.
fn tell_obstacle(context: &Context, judged: &Judged, ending: &Ending, memory: &mut Memory) {
    let obstacle = match (&judged.refused, ending) {
        (Some(refused), _) => Some(refused),
        (None, Ending::Failed(obstacle) | Ending::Plan(Plan::Blocked(obstacle))) => Some(obstacle),
        (None, Ending::Plan(_)) => None,
    };
    let reason = obstacle.map(|obstacle| obstacle.reason);
    if matches!(ending, Ending::Plan(Plan::Wait { on: On::Image, .. })) {
        // Another attempt at what failed before: when it fails in the same way, nothing has changed.
        return;
    }
    // What passes within seconds is in the conditions while it lasts, and no story afterwards.
    if let (Some(vm), Some(obstacle)) =
        (&judged.object, obstacle.filter(|obstacle| obstacle.retry != Retry::Soon))
        && memory.told != reason
    {
        tracing::warn!(vm = %judged.uid, reason = obstacle.reason, "{}", obstacle.message);
        context.objects.event(vm, Severity::Warning, obstacle.reason, &obstacle.message);
    }
    memory.told = reason;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_attempt_to_fetch_is_told_until_the_guest_has_started() {
        let (mut memory, fetch) = (Memory::default(), Step::FetchImage { image: "debian".to_owned() });
        let told = |memory: &mut Memory| is_news(&fetch, &Domain::Absent, memory);
        assert_eq!([told(&mut memory), told(&mut memory)], [true, false]);
        memory.before(&[Step::Start { paused: false }]);
        assert!(told(&mut memory));
    }
}
