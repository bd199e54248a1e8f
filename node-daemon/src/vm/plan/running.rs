//! Plans for a guest that runs or is paused.

use std::time::Duration;

use super::super::desired::Desired;
use super::super::observed::{Observed, Obstacle, PausedBy, State};
use super::super::record::{Record, Run, Stop};
use super::{Moment, On, Plan, Step, remember, start};

/// A guest may miss the power button while its firmware or boot loader runs: it is pressed again this often.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// A guest frozen by a full disk repeats its write when it is let run: not more often than this.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// How soon a guest that is powering off is looked at again; an event usually comes first.
const LOOK: Duration = Duration::from_secs(2);

/// The guest shall run.
pub(super) fn run(
    desired: &Desired,
    state: State,
    record: &Record,
    observed: &Observed,
    moment: &Moment,
) -> Plan {
    // A guest that could not start again is not stopped for that.
    let asked = record.wants_restart(&desired.spec().restart_request);
    let hindered = if asked { start::hindrance(desired, record, observed) } else { None };
    if record.stop.is_some() || (asked && hindered.is_none()) {
        return end(Stop::Restart, desired, state, record, moment);
    }
    let wanted = Record { run: Run::Started, ..judged(desired, record) };
    if wanted != *record {
        let waits = record.run == Run::Ready && matches!(state, State::Paused(_)) && !desired.paused();
        return Plan::Do([remember(wanted)].into_iter().chain(waits.then_some(Step::Resume)).collect());
    }
    match (state, desired.paused()) {
        (State::Running, true) => Plan::Do(vec![Step::Suspend]),
        (State::Paused(PausedBy::IoError), false)
            if moment.resumed_ago.is_some_and(|ago| ago < TRY_AGAIN) =>
        {
            Plan::Wait {
                on: On::Disk,
                until: TRY_AGAIN.saturating_sub(moment.resumed_ago.unwrap_or_default()),
            }
        }
        (State::Paused(_), false) => Plan::Do(vec![Step::Resume]),
        (State::Paused(PausedBy::Request | PausedBy::IoError), true)
        | (State::Running | State::Off(_), _) => match hindered {
            Some(plan) => runs_on(plan),
            None => start::full(desired, observed.room)
                .or_else(|| start::cramped(desired, Some(record), observed.room))
                .map_or(Plan::Converged, Plan::Blocked),
        },
    }
}

/// The restart waits.
fn runs_on(hindered: Plan) -> Plan {
    match hindered {
        Plan::Blocked(obstacle) => {
            let message =
                format!("the guest runs on, since it could not start again now: {}", obstacle.message);
            Plan::Blocked(Obstacle { message, ..obstacle })
        }
        other => other,
    }
}

/// The guest shall be off.
pub(super) fn halt(desired: &Desired, state: State, record: &Record, moment: &Moment) -> Plan {
    end(Stop::Halt, desired, state, record, moment)
}

/// Stops the guest for what is wanted now. That is remembered first, so that with no API, too, it is known what was served.
fn end(why: Stop, desired: &Desired, state: State, record: &Record, moment: &Moment) -> Plan {
    let wanted = Record { stop: Some(why), ..judged(desired, record) };
    if wanted != *record {
        return Plan::Do(vec![remember(wanted)]);
    }
    stop(why, desired.grace(), state, record, moment)
}

/// Gracefully first, by force after the grace period. Why it stops is remembered before it is asked.
pub(super) fn stop(why: Stop, grace: Duration, state: State, record: &Record, moment: &Moment) -> Plan {
    if record.stop != Some(why) {
        return Plan::Do(vec![remember(Record { stop: Some(why), ..record.clone() })]);
    }
    let asked = moment.stopping_for.unwrap_or_default();
    if asked >= grace {
        return Plan::Do(vec![Step::Destroy]);
    }
    if moment.asked_ago.is_none_or(|ago| ago >= ASK_AGAIN) {
        // A frozen guest hears nothing.
        let thaw = matches!(state, State::Paused(_)).then_some(Step::Resume);
        return Plan::Do(thaw.into_iter().chain([Step::RequestShutdown]).collect());
    }
    Plan::Wait { on: On::PowerOff, until: LOOK.min(grace.saturating_sub(asked)) }
}

/// The record with the newest good spec, so that what follows with no API follows it.
pub(super) fn judged(desired: &Desired, record: &Record) -> Record {
    Record { generation: desired.generation(), spec: desired.spec().clone(), ..record.clone() }
}
