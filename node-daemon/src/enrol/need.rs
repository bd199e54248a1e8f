//! When a node enrols: pure, with the clock as an argument, since the clock may be ten years off (F16).

use std::time::{Duration, SystemTime};

use crate::identity::Validity;

/// How long the API must refuse us before we doubt our standing: rights follow a new identity within seconds, and an
/// API server that starts answers 403 for a moment.
const LASTING: Duration = Duration::from_secs(60);
/// A fresh certificate that is refused is given this long before the next request: a person may be at work.
const PATIENCE: Duration = Duration::from_secs(600);

/// Why the node enrols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// There is no certificate for its key.
    First,
    /// A request of before a restart was never answered, or its answer never taken.
    Open,
    /// Two thirds of the certificate's life are over.
    Renewal,
    /// The certificate has expired.
    Expired,
    /// The API refuses the identity, lastingly.
    Refused,
}

impl Why {
    /// For the log.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Open => "an earlier request is still open",
            Self::First => "this node has no certificate",
            Self::Renewal => "two thirds of the certificate's life are over",
            Self::Expired => "the certificate has expired",
            Self::Refused => "the API refuses this node's identity",
        }
    }
}

/// Whether to enrol now. `refused` = for how long the API has refused us; `since_issue` = the age of a certificate that
/// this process received, by the monotonic clock.
pub(super) fn need(
    certificate: Option<Validity>,
    clock: SystemTime,
    refused: Option<Duration>,
    since_issue: Option<Duration>,
) -> Option<Why> {
    let Some(Validity { not_before, not_after }) = certificate else { return Some(Why::First) };
    let life = not_after.duration_since(not_before).unwrap_or_default();
    let age = clock.duration_since(not_before).unwrap_or_default();
    // What the wall clock says of a certificate we have just received says more about the clock.
    let settled = since_issue.is_none_or(|since| since >= life / 10);
    if settled && age >= life {
        return Some(Why::Expired);
    }
    if settled && age >= life * 2 / 3 {
        return Some(Why::Renewal);
    }
    let patient = since_issue.is_some_and(|since| since < PATIENCE);
    (!patient && refused.is_some_and(|refused| refused >= LASTING)).then_some(Why::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const START: SystemTime = SystemTime::UNIX_EPOCH;

    /// What is needed with a certificate that is good from day 1000 to day 1090.
    fn need_90(clock: SystemTime, refused: Option<Duration>, since_issue: Option<Duration>) -> Option<Why> {
        let certificate = Validity { not_before: on_day(0), not_after: on_day(90) };
        need(Some(certificate), clock, refused, since_issue)
    }

    fn on_day(day: u32) -> SystemTime {
        START + DAY * (1000 + day)
    }

    #[test]
    fn a_node_without_a_certificate_enrols() {
        assert_eq!(need(None, START, None, None), Some(Why::First));
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_and_after_it() {
        assert_eq!(need_90(on_day(59), None, None), None);
        assert_eq!(need_90(on_day(60), None, None), Some(Why::Renewal));
        assert_eq!(need_90(on_day(91), None, None), Some(Why::Expired));
    }

    #[test]
    fn a_clock_that_is_ten_years_off_does_not_make_it_spin() {
        assert_eq!(need_90(on_day(3650), None, Some(DAY)), None);
        assert_eq!(need_90(START, None, None), None);
    }

    #[test]
    fn a_lasting_refusal_means_to_enrol_anew_but_not_at_once_again() {
        let second = Duration::from_secs(1);
        assert_eq!(need_90(on_day(1), Some(second * 5), None), None);
        assert_eq!(need_90(on_day(1), Some(second * 60), None), Some(Why::Refused));
        assert_eq!(need_90(on_day(1), Some(second * 60), Some(second * 300)), None);
        assert_eq!(need_90(on_day(1), Some(second * 60), Some(DAY)), Some(Why::Refused));
    }
}
