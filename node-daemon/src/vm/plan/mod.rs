//! The planner: what to do next, from what shall be and what is. Pure; the heart of the daemon.
//!
//! ```text
//!            prepare, define, start                 suspend
//!   Absent ───────────────────────▶ Running ◀──────────────▶ Paused
//!     ▲  undefine, remove files     │     ▲       resume
//!     └───────────── Off ◀──────────┘     └─ define, start (by run strategy) ─ Off
//!                         stop, destroy, or the guest's own doing
//! ```
//!
//! Guarantees: a plan never touches a foreign domain, never removes files while the guest runs, and every step may be
//! the last before a crash: the next look plans on from whatever is there. `Remember` is written *before* a stop is
//! requested and *after* a start succeeded, and a guest whose last end libvirt still tells is frozen until then, so an
//! end is never mistaken for another.

mod off;
mod running;
mod start;

use std::net::IpAddr;
use std::time::Duration;

use uuid::Uuid;

use super::desired::Desired;
use super::mac::Mac;
use super::observed::{Domain, Folder, Observed, Obstacle, State};
use super::record::Record;

/// What a virtual machine shall come to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Goal {
    /// It runs, as far as its run strategy says.
    Run(Desired),
    /// It is off.
    Halt(Desired),
    /// Nothing of it is left.
    Delete(Removal),
}

/// A virtual machine that shall go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    /// Which one.
    pub(crate) uid: Uuid,
    /// Time to power off before it is stopped by force.
    pub(crate) grace: Duration,
}

/// What the driver knows besides the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Seconds since 1970.
    pub(crate) now: i64,
    /// Time since the guest was first asked to power off, where it was.
    pub(crate) stopping_for: Option<Duration>,
    /// Time since it was last asked.
    pub(crate) asked_ago: Option<Duration>,
    /// Time since its processors were last let run again.
    pub(crate) resumed_ago: Option<Duration>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Plan {
    /// All is as it shall be.
    Converged,
    /// These steps, in this order, up to the first that fails; then look again.
    Do(Vec<Step>),
    /// Nothing now.
    Wait {
        /// What for.
        on: On,
        /// When to look again at the latest.
        until: Duration,
    },
    /// Something is in the way.
    Blocked(Obstacle),
}

/// What a plan waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// An image on its way.
    Image,
    /// The guest to power off.
    PowerOff,
    /// The next start after failures.
    BackOff,
    /// The daemon to see guest code run.
    Proof,
    /// Room on a disk that could not be written.
    Disk,
}

/// One effect.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Begin to fetch the image of this name, unless that is under way.
    FetchImage { image: String },
    /// Make the folder.
    MakeFolder,
    /// Make a disk over its image.
    CreateOverlay { disk: String, image: crate::image::Digest, bytes: u64 },
    /// Make an empty disk.
    CreateBlank { disk: String, bytes: u64 },
    /// Make a disk larger.
    Grow { disk: String, kind: super::dir::DiskKind, bytes: u64 },
    /// Write the seed this record describes.
    WriteSeed(Box<Record>),
    /// Make the network of this interface exist and work.
    EnsureNetwork {
        interface: String,
        mac: Mac,
        network: crate::network::NetworkRecord,
        addresses: Vec<IpAddr>,
    },
    /// Define the domain this record describes.
    Define(Box<Record>),
    /// Keep every guest that is defined in its bounds, whatever it sends.
    Guard,
    /// Start it; with its processors frozen if so wanted, or until the start is remembered.
    Start { paused: bool },
    /// Write the record into the domain's metadata.
    Remember(Box<Record>),
    /// Ask the guest to power off.
    RequestShutdown,
    /// Stop it by force.
    Destroy,
    /// Freeze its processors.
    Suspend,
    /// Let them run.
    Resume,
    /// Remove the domain.
    Undefine,
    /// Remove the folder and all in it.
    RemoveFiles,
}

/// What to do next.
pub(crate) fn plan(goal: &Goal, observed: &Observed, moment: &Moment) -> Plan {
    match (goal, &observed.domain) {
        (_, Domain::Foreign) => Plan::Blocked(foreign()),
        (Goal::Delete(_), Domain::Absent) => remove_files(observed.folder),
        (Goal::Delete(removal), Domain::Ours { state, record }) => delete(removal, *state, record, moment),
        (Goal::Halt(_), Domain::Absent) => Plan::Converged,
        (Goal::Halt(desired), Domain::Ours { state: State::Off(_), record }) => off::halted(desired, record),
        (Goal::Halt(desired), Domain::Ours { state, record }) => {
            running::halt(desired, *state, record, moment)
        }
        (Goal::Run(desired), Domain::Absent) => start::first(desired, observed),
        (Goal::Run(desired), Domain::Ours { state: State::Off(ended), record }) => {
            off::run(desired, *ended, record, observed, moment)
        }
        (Goal::Run(desired), Domain::Ours { state, record }) => {
            running::run(desired, *state, record, observed, moment)
        }
    }
}

/// Why an edit that waits for the next start would not be part of it, as far as its disks and interfaces go.
pub(crate) fn hindrance(goal: &Goal, observed: &Observed) -> Option<Obstacle> {
    match (goal, &observed.domain) {
        (Goal::Run(desired), Domain::Ours { state: State::Running | State::Paused(_), record })
            if record.rebuilds(desired.spec()) =>
        {
            start::obstacle(desired, record, observed)
        }
        _ => None,
    }
}

fn delete(removal: &Removal, state: State, record: &Record, moment: &Moment) -> Plan {
    match state {
        State::Off(_) => Plan::Do(vec![Step::Undefine, Step::RemoveFiles]),
        State::Running | State::Paused(_) => {
            running::stop(super::record::Stop::Halt, removal.grace, state, record, moment)
        }
    }
}

fn remove_files(folder: Folder) -> Plan {
    match folder {
        Folder::Present => Plan::Do(vec![Step::RemoveFiles]),
        Folder::Absent => Plan::Converged,
    }
}

fn foreign() -> Obstacle {
    Obstacle::later(
        "ForeignDomain",
        "the node has a libvirt domain with this UUID that Holdfast did not make and never touches: remove it on the node with virsh undefine",
    )
}

fn remember(record: Record) -> Step {
    Step::Remember(Box::new(record))
}

#[cfg(test)]
pub(super) mod model;
#[cfg(test)]
mod offer_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod test_driver;
#[cfg(test)]
mod tests;
