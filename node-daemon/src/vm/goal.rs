//! What a virtual machine shall come to: from its object where there is one, from the domain's record where not.
//!
//! An object that is not there is unknown, never a command: the guest runs on as its record says. It goes only when its
//! object was read with a deletion timestamp, or when a person discards it by UID and it is an orphan for sure.

use std::sync::Arc;
use std::time::Duration;

use holdfast_api::VirtualMachine;
use holdfast_api::virtual_machine::RunStrategy;
use uuid::Uuid;

use super::context::Context;
use super::desired::{self, Desired};
use super::observed::{Domain, Obstacle};
use super::orphan::is_orphan;
use super::plan::{Goal, Removal};

/// An object, its domain and the judgement over both.
pub(crate) struct Judged {
    /// Who it is about.
    pub(crate) uid: Uuid,
    /// The object, as last read.
    pub(crate) object: Option<Arc<VirtualMachine>>,
    /// The domain, as just read.
    pub(crate) domain: Domain,
    /// What it shall come to; `None` where neither object nor record says anything.
    goal: Option<Goal>,
    /// Why the object's spec was refused; the goal is then the last good one.
    pub(crate) refused: Option<Obstacle>,
}

impl Judged {
    /// Before the first look.
    pub(crate) fn nothing(uid: Uuid) -> Self {
        Self { uid, object: None, domain: Domain::Absent, goal: None, refused: None }
    }

    /// What it shall come to.
    pub(crate) fn goal(&self) -> Option<&Goal> {
        self.goal.as_ref()
    }
}

impl Goal {
    /// The wanted state, unless the virtual machine shall go.
    pub(crate) fn desired(&self) -> Option<&Desired> {
        match self {
            Self::Run(desired) | Self::Halt(desired) => Some(desired),
            Self::Delete(_) => None,
        }
    }

    fn of(desired: Desired) -> Self {
        match desired.run_strategy() {
            RunStrategy::Halted => Self::Halt(desired),
            RunStrategy::Always | RunStrategy::RerunOnFailure | RunStrategy::Once => Self::Run(desired),
        }
    }
}

/// Judges anew, from what is known now.
pub(crate) fn judge(context: &Context, uid: Uuid, domain: Domain) -> Judged {
    let object = context.objects.virtual_machine(&uid.to_string());
    let discard = discarded(context, uid, &domain);
    let (goal, refused) = decide(uid, object.as_deref(), &domain, discard);
    Judged { uid, object, domain, goal, refused }
}

/// A person wrote this UID into the node's `spec.discard`, and nobody asks for it any more.
fn discarded(context: &Context, uid: Uuid, domain: &Domain) -> bool {
    context.wishes.borrow().discard.contains(&uid.to_string()) && is_orphan(context, uid, domain.record())
}

fn decide(
    uid: Uuid,
    object: Option<&VirtualMachine>,
    domain: &Domain,
    discard: bool,
) -> (Option<Goal>, Option<Obstacle>) {
    let remembered =
        || domain.record().and_then(|record| Desired::from_record(uid, record).ok()).map(Goal::of);
    match object {
        Some(vm) if vm.metadata.deletion_timestamp.is_some() => {
            (Some(Goal::Delete(removal(uid, Some(vm), domain))), None)
        }
        Some(vm) => match judge_spec(vm, domain) {
            Ok(desired) => (Some(Goal::of(desired)), None),
            Err(refused) => (remembered(), Some(Obstacle::stalled("InvalidSpec", refused.to_string()))),
        },
        None if discard => (Some(Goal::Delete(removal(uid, None, domain))), None),
        None => (remembered(), None),
    }
}

fn judge_spec(vm: &VirtualMachine, domain: &Domain) -> Result<Desired, desired::Refused> {
    let desired = Desired::try_from(vm)?;
    if let Some(record) = domain.record() {
        desired.follows(&record.spec)?;
        // A disk that was removed and came back since the start is still the guest's.
        if let Some(applied) = &record.applied {
            desired.follows(&applied.spec)?;
        }
    }
    Ok(desired)
}

/// The newest grace period counts: a person may shorten it to hasten a deletion.
fn removal(uid: Uuid, object: Option<&VirtualMachine>, domain: &Domain) -> Removal {
    let wanted = object.map(|vm| vm.spec.termination_grace_period_seconds);
    let remembered = domain.record().map(|record| record.spec.termination_grace_period_seconds);
    let seconds = wanted.or(remembered).unwrap_or(60).clamp(0, 3600);
    Removal { uid, grace: Duration::from_secs(seconds.unsigned_abs().into()) }
}

#[cfg(test)]
mod tests {
    use super::super::plan::model::{UID, World, spec};
    use super::*;

    fn running() -> World {
        let mut world = World::new(spec());
        world.settle();
        world
    }

    #[test]
    fn a_guest_without_its_object_runs_on_as_its_record_says() {
        assert!(matches!(decide(UID, None, &running().domain, false).0, Some(Goal::Run(_))));
    }

    #[test]
    fn a_discarded_orphan_goes_with_the_grace_it_remembers() {
        let removal = Removal { uid: UID, grace: Duration::from_secs(60) };
        assert_eq!(decide(UID, None, &running().domain, true).0, Some(Goal::Delete(removal)));
    }

    #[test]
    fn a_disk_that_comes_back_from_another_image_before_it_left_the_guest_is_refused() {
        let mut world = running();
        let disk = world.spec.disks.pop().unwrap();
        world.generation += 1;
        world.settle();
        let image = Some(holdfast_api::reference::ObjectRef { name: "tiny".into() });
        world.edit(|spec| {
            spec.disks.push(holdfast_api::virtual_machine::Disk { image, blank: None, ..disk });
        });
        let refused = decide(UID, Some(&world.object()), &world.domain, false).1.unwrap();
        assert!(refused.message.contains("source of a disk cannot change"), "{}", refused.message);
    }

    #[test]
    fn no_discard_touches_what_an_object_asks_for() {
        let world = running();
        let object = world.object();
        assert!(matches!(decide(UID, Some(&object), &world.domain, true).0, Some(Goal::Run(_))));
    }
}
