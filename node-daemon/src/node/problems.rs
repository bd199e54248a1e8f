//! What keeps this node from its work: pure, from what was seen of libvirt, the disk and the clock.

use std::io::ErrorKind;
use std::time::Duration;

use holdfast_api::condition;
use holdfast_api::node::NodeProblem;
use tokio::sync::watch;
use tokio::time::sleep;

use super::disk::{Disk, Heard};
use crate::clock::{Clock, Pace};
use crate::libvirt::{REMEDY, Reach};

/// Between two looks when nothing else turns.
const LOOK: Duration = Duration::from_secs(10);

/// Below this the disk is full: what guests, logs and the daemon itself still write soon fails.
const FULL: u64 = 64 << 20;
/// It counts as full until this much is free, so that nothing goes to and fro.
const FREED: u64 = 96 << 20;

const READ_ONLY: &str = "the disk of the node's state folder takes no writes: nothing is started or imported there until it does; see \
    dmesg on the node for why, repair the disk, and mount it writable again";
const HANGS: &str = "the disk of the node's state folder has not answered for 30 seconds: it hangs; guests whose disks lie there wait, \
    and nothing is started or imported there until it answers; see dmesg on the node for why, and bring the disk or the way to it back";
const DISK_FULL: &str = "the disk of the node's state folder is full, less than 64 MiB are free: what frees it is to delete virtual \
    machines, to delete images that no virtual machine uses, or to remove what else lies on that disk; guests run on, and one that is \
    frozen because it could not write continues by itself";
const CLOCK: &str = "the clock of the node jumped by more than 30 days, or is older than the node's certificate: guests would begin with a \
    wrong time, and sources of images could not be verified; nothing is restarted and nothing expires for it; set the clock right, or, \
    if what it says now is right, restart holdfast-node, which touches no guest";

/// All that was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) reach: Reach,
    pub(crate) disk: Disk,
    /// The disk does not answer: what was seen of it is old.
    pub(crate) hangs: bool,
    pub(crate) pace: Pace,
}

/// Tells of the problems for ever.
pub(crate) async fn watch(
    mut reach: watch::Receiver<Reach>,
    mut disk: watch::Receiver<Disk>,
    clock: Clock,
    problems: watch::Sender<Option<Vec<NodeProblem>>>,
) {
    let mut heard = Heard::now();
    loop {
        let reach_now = *reach.borrow_and_update();
        let seen = Seen { reach: reach_now, disk: *disk.borrow(), hangs: heard.hangs(), pace: clock.look() };
        let before = problems.borrow().clone();
        let now = told(&seen, before.as_deref().unwrap_or_default());
        if now != before {
            tell(before.as_deref().unwrap_or_default(), now.as_deref().unwrap_or_default());
            problems.send_replace(now);
        }
        tokio::select! {
            Ok(()) = reach.changed() => {}
            Ok(()) = disk.changed() => heard = Heard::now(),
            () = sleep(LOOK) => {}
        }
    }
}

/// The log tells when a problem begins and when it ends.
fn tell(before: &[NodeProblem], now: &[NodeProblem]) {
    let without = |some: &[NodeProblem], other: &[NodeProblem]| -> Vec<NodeProblem> {
        some.iter().filter(|problem| !other.contains(problem)).cloned().collect()
    };
    for problem in without(now, before) {
        tracing::warn!(reason = problem.reason, "{}", problem.message);
    }
    for problem in without(before, now) {
        tracing::info!(reason = problem.reason, "a problem of this node ended");
    }
}

/// What may be told: a daemon that has just started does not call its node well before it knows of libvirt.
fn told(seen: &Seen, before: &[NodeProblem]) -> Option<Vec<NodeProblem>> {
    let problems = of(seen, before);
    (seen.reach != Reach::Untold || !problems.is_empty()).then_some(problems)
}

/// The problems, the gravest first. None of them says anything that moves while it lasts. `before` are those that were
/// seen last.
pub(crate) fn of(seen: &Seen, before: &[NodeProblem]) -> Vec<NodeProblem> {
    let was_full = before.iter().any(|problem| problem.reason == condition::DISK_FULL);
    [hypervisor(seen.reach), hang(seen.hangs), disk(&seen.disk, was_full), clock(seen.pace)]
        .into_iter()
        .flatten()
        .collect()
}

fn problem(reason: &str, message: impl Into<String>) -> NodeProblem {
    NodeProblem { reason: reason.to_owned(), message: message.into() }
}

fn hypervisor(reach: Reach) -> Option<NodeProblem> {
    let message = || format!("libvirt does not answer: {REMEDY}");
    (reach == Reach::Silent).then(|| problem(condition::HYPERVISOR_UNREACHABLE, message()))
}

fn hang(hangs: bool) -> Option<NodeProblem> {
    hangs.then(|| problem(condition::STATE_UNREACHABLE, HANGS))
}

/// A write that fails says more than what is free.
pub(super) fn disk(disk: &Disk, was_full: bool) -> Option<NodeProblem> {
    let limit = if was_full { FREED } else { FULL };
    let full = disk.free < limit
        || disk.out_of_files
        || matches!(disk.refused, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded));
    match (disk.read_only || disk.refused.is_some() && !full, full) {
        (true, _) => Some(problem(condition::STATE_READ_ONLY, READ_ONLY)),
        (false, true) => Some(problem(condition::DISK_FULL, DISK_FULL)),
        (false, false) => None,
    }
}

fn clock(pace: Pace) -> Option<NodeProblem> {
    (pace == Pace::Jumped).then(|| problem(condition::CLOCK_JUMPED, CLOCK))
}

/// Whether the disk of the state folder hangs, and with it whoever works on it.
pub(crate) fn hanging(problems: &[NodeProblem]) -> bool {
    problems.iter().any(|problem| problem.reason == condition::STATE_UNREACHABLE)
}

/// Why nothing may be started or imported, and its reason: of the problems, only a disk that takes no writes. On a full one
/// a guest that is there already may well run, and a wrong clock is no reason to leave it off.
pub(crate) fn bar(problems: &[NodeProblem]) -> Option<(&'static str, &NodeProblem)> {
    let bars = [condition::STATE_UNREACHABLE, condition::STATE_READ_ONLY];
    let found =
        |reason| problems.iter().find(|problem| problem.reason == reason).map(|problem| (reason, problem));
    bars.into_iter().find_map(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Seen = Seen { reach: Reach::Answers, disk: Disk::WELL, hangs: false, pace: Pace::Right };

    fn reasons(seen: &Seen, before: &[NodeProblem]) -> Vec<String> {
        of(seen, before).into_iter().map(|problem| problem.reason).collect()
    }

    #[test]
    fn each_part_that_fails_is_a_problem_of_the_node_and_ends_when_its_cause_does() {
        let ill = Seen {
            reach: Reach::Silent,
            disk: Disk { refused: Some(ErrorKind::Other), ..Disk::WELL },
            hangs: true,
            pace: Pace::Jumped,
        };
        let all = ["HypervisorUnreachable", "StateUnreachable", "StateReadOnly", "ClockJumped"];
        assert_eq!(reasons(&ill, &[]), all);
        assert!(reasons(&WELL, &of(&ill, &[])).is_empty());
    }

    #[test]
    fn a_daemon_that_has_just_started_does_not_call_its_node_well_before_it_knows_of_libvirt() {
        let untold = Seen { reach: Reach::Untold, ..WELL };
        assert_eq!(told(&untold, &[]), None);
        assert_eq!(told(&Seen { pace: Pace::Jumped, ..untold }, &[]).map(|problems| problems.len()), Some(1));
        assert_eq!(told(&WELL, &[]), Some(Vec::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_hangs_when_no_look_comes_back_and_never_while_they_do() {
        let (reach, disk) = (watch::Sender::new(Reach::Answers), watch::Sender::new(Disk::WELL));
        let problems = watch::Sender::new(None);
        let mut told = problems.subscribe();
        tokio::spawn(super::watch(reach.subscribe(), disk.subscribe(), Clock::start(), problems));
        let mut after = async |looks: bool, seconds| {
            for second in 0..seconds {
                if looks && second % 10 == 0 {
                    disk.send_replace(Disk::WELL);
                }
                sleep(Duration::from_secs(1)).await;
            }
            hanging(told.borrow_and_update().as_deref().unwrap())
        };
        assert!(!after(true, 200).await, "it answers");
        assert!(after(false, 45).await, "it does not");
        assert!(!after(true, 2).await, "it does again");
    }

    #[test]
    fn a_disk_that_is_nearly_full_does_not_go_to_and_fro() {
        let with = |free| Seen { disk: Disk { free, ..Disk::WELL }, ..WELL };
        let full = of(&with(FULL - 1), &[]);
        assert_eq!(full[0].reason, "DiskFull");
        assert_eq!(reasons(&with(FULL + 1), &full), ["DiskFull"]);
        assert!(reasons(&with(FULL + 1), &[]).is_empty());
        assert!(reasons(&with(FREED), &full).is_empty());
    }

    #[test]
    fn only_a_disk_that_takes_no_writes_bars_starts() {
        let ill =
            Seen { disk: Disk { free: 0, ..Disk::WELL }, pace: Pace::Jumped, reach: Reach::Silent, ..WELL };
        assert!(bar(&of(&ill, &[])).is_none());
        let read_only = Seen { disk: Disk { read_only: true, ..Disk::WELL }, ..WELL };
        assert_eq!(bar(&of(&read_only, &[])).unwrap().0, "StateReadOnly");
        let hangs = of(&Seen { hangs: true, ..WELL }, &[]);
        assert_eq!(bar(&hangs).unwrap().0, "StateUnreachable");
        assert!(hanging(&hangs) && !hanging(&of(&read_only, &[])));
    }
}
