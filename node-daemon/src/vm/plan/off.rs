//! Plans for a domain that is off: what its end meant, and whether it starts again.

use std::time::Duration;

use holdfast_api::virtual_machine::RunStrategy;

use super::super::desired::Desired;
use super::super::observed::{Ended, Observed};
use super::super::record::{Failures, Record, Run};
use super::running::judged;
use super::{Moment, On, Plan, remember, start};

/// The first restart comes at once, the next ones after 10 s, 20 s, 40 s, … up to this.
const LONGEST_BACK_OFF: u64 = 300;
/// A guest that ran this many seconds is well again: its failures are forgotten.
const WELL_AFTER: i64 = 600;

/// The guest shall be off, and is.
pub(super) fn halted(desired: &Desired, record: &Record) -> Plan {
    let wanted =
        Record { run: Run::Stopped, stop: None, failures: Failures::default(), ..judged(desired, record) };
    if wanted == *record { Plan::Converged } else { Plan::Do(vec![remember(wanted)]) }
}

/// The guest shall run as far as its strategy says, and is off.
pub(super) fn run(
    desired: &Desired,
    ended: Ended,
    record: &Record,
    observed: &Observed,
    moment: &Moment,
) -> Plan {
    if let Some(settled) = settle(desired.run_strategy(), ended, record, moment.now) {
        return Plan::Do(vec![remember(settled)]);
    }
    let asked = record.wants_restart(&desired.spec().restart_request);
    if record.run == Run::Done && desired.run_strategy() != RunStrategy::Always && !asked {
        let wanted = judged(desired, record);
        return if wanted == *record { Plan::Converged } else { Plan::Do(vec![remember(wanted)]) };
    }
    match back_off(record.failures, moment.now) {
        Some(until) if !asked => Plan::Wait { on: On::BackOff, until },
        _ => start::again(desired, record, observed),
    }
}

/// What the end of the last run meant, where that was not settled yet.
///
/// A start is remembered only after it succeeded, so a domain that is off without that either never ran (libvirt knows
/// no end, or still the one before) or ended before we could write it down.
fn settle(strategy: RunStrategy, ended: Ended, record: &Record, now: i64) -> Option<Record> {
    let news = ended != Ended::Unknown && record.ended != Some(ended);
    let ran = record.run == Run::Started || (record.run == Run::Ready && news);
    if record.stop.is_some() {
        return Some(Record { run: Run::Stopped, stop: None, ..record.clone() });
    }
    if !ran {
        return None;
    }
    let run = match (strategy, ended) {
        (_, Ended::NeverStarted) => Run::Ready,
        (RunStrategy::Always, _) | (RunStrategy::RerunOnFailure, Ended::Failed | Ended::Unknown) => {
            Run::Ready
        }
        (RunStrategy::RerunOnFailure, Ended::PoweredOff) | (RunStrategy::Once | RunStrategy::Halted, _) => {
            Run::Done
        }
    };
    Some(counted(record, run, ended, now))
}

/// Only what the guest did itself counts: after a power cut every guest starts at once.
///
/// `Stopped` marks the end as seen: it is neither a run (`Started`) nor an end still to be judged (`Ready`).
fn counted(record: &Record, run: Run, ended: Ended, now: i64) -> Record {
    let again = run == Run::Ready;
    let by_itself = again && ended != Ended::Unknown;
    let well = now.saturating_sub(record.failures.last) > WELL_AFTER;
    let count = if well { 0 } else { record.failures.count };
    Record {
        run: if again { Run::Stopped } else { run },
        restarts: record.restarts.saturating_add(i32::from(by_itself && ended != Ended::NeverStarted)),
        failures: if by_itself {
            Failures { count: count.saturating_add(1), last: now }
        } else {
            record.failures
        },
        ..record.clone()
    }
}

/// How long the next start has to wait. After a clock went back it does not wait at all, rather than for years.
fn back_off(failures: Failures, now: i64) -> Option<Duration> {
    let exponent = failures.count.checked_sub(2)?.min(5);
    let wait = (10_u64 << exponent).min(LONGEST_BACK_OFF);
    let passed = u64::try_from(now.saturating_sub(failures.last)).ok()?;
    (passed < wait).then(|| Duration::from_secs(wait - passed))
}
