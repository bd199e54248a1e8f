//! Plans for a domain that is off: what its end meant, and whether it starts again.

use std::time::Duration;

use holdfast_api::virtual_machine::RunStrategy;

use super::super::desired::Desired;
use super::super::observed::{Ended, Observed};
use super::super::record::{Failures, Record, Run, serve};
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
    let request = &desired.spec().restart_request;
    if record.stop.is_some() {
        return Plan::Do(vec![remember(stopped(record, request))]);
    }
    if let Some(settled) = settle(desired.run_strategy(), ended, record, moment.now) {
        return Plan::Do(vec![remember(settled)]);
    }
    let asked = record.wants_restart(request);
    if record.run == Run::Done && desired.run_strategy() != RunStrategy::Always && !asked {
        let wanted = judged(desired, record);
        return if wanted == *record { Plan::Converged } else { Plan::Do(vec![remember(wanted)]) };
    }
    match back_off(record.failures, moment.now) {
        Some(until) if !asked => Plan::Wait { on: On::BackOff, until },
        _ => start::again(desired, record, observed),
    }
}

/// Stopped by us, to start again. Whatever that start comes to, a request stops the guest once only.
fn stopped(record: &Record, request: &str) -> Record {
    let mut stopped =
        Record { run: Run::Stopped, stop: None, failures: Failures::default(), ..record.clone() };
    serve(&mut stopped.served_restarts, request);
    stopped
}

/// What the end of the last run meant, where that was not settled yet.
///
/// A start is written down after it succeeded. A domain that is off without that may have run and ended before: then
/// libvirt tells another end than before the start. With the same end the guest was frozen or not started, so it did
/// not run, and it can only have failed to start.
fn settle(strategy: RunStrategy, ended: Ended, record: &Record, now: i64) -> Option<Record> {
    let news = ended != Ended::Unknown && record.ended != Some(ended);
    match record.run {
        Run::Started => Some(ran(strategy, ended, record, now)),
        Run::Ready if news => Some(ran(strategy, ended, record, now)),
        Run::Ready if ended == Ended::Failed => Some(failed(record, now)),
        Run::Ready | Run::Done | Run::Stopped => None,
    }
}

fn ran(strategy: RunStrategy, ended: Ended, record: &Record, now: i64) -> Record {
    match (strategy, ended) {
        (_, Ended::NeverStarted) => failed(record, now),
        // After a power cut every guest starts at once: only what the guest did itself counts.
        (RunStrategy::Always | RunStrategy::RerunOnFailure, Ended::Unknown) => {
            Record { run: Run::Stopped, ..record.clone() }
        }
        (RunStrategy::Always, _) | (RunStrategy::RerunOnFailure, Ended::Failed) => {
            Record { restarts: record.restarts.saturating_add(1), ..failed(record, now) }
        }
        (RunStrategy::RerunOnFailure, Ended::PoweredOff) | (RunStrategy::Once | RunStrategy::Halted, _) => {
            Record { run: Run::Done, ..record.clone() }
        }
    }
}

/// One failure more. `Stopped` marks the end as seen: neither a run (`Started`) nor one still to be judged (`Ready`).
fn failed(record: &Record, now: i64) -> Record {
    let well = now.saturating_sub(record.failures.last) > WELL_AFTER;
    let count = if well { 0 } else { record.failures.count };
    let failures = Failures { count: count.saturating_add(1), last: now };
    Record { run: Run::Stopped, failures, ..record.clone() }
}

/// How long the next start has to wait. After a clock went back it does not wait at all, rather than for years.
fn back_off(failures: Failures, now: i64) -> Option<Duration> {
    let exponent = failures.count.checked_sub(2)?.min(5);
    let wait = (10_u64 << exponent).min(LONGEST_BACK_OFF);
    let passed = u64::try_from(now.saturating_sub(failures.last)).ok()?;
    (passed < wait).then(|| Duration::from_secs(wait - passed))
}
