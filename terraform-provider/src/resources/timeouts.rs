//! How long operations may take: durations such as `20m`, and the attribute that sets them.

use std::time::Duration;

use crate::plugin::diagnostic::Diagnostics;
use crate::plugin::path::Path;
use crate::plugin::schema::{Attribute, Shape};
use crate::plugin::ty::Type;
use crate::plugin::value::Value;

/// Where nothing is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) create: Duration,
    pub(crate) update: Duration,
    pub(crate) delete: Duration,
}

const MINUTE: u64 = 60;
const OPERATIONS: [&str; 4] = ["create", "read", "update", "delete"];

/// One answer of the API.
pub(crate) const READ: Duration = Duration::from_secs(MINUTE);
/// Objects that only the controller has to look at.
pub(crate) const SHORT: Times = Times::minutes(5, 5, 5);

impl Times {
    pub(crate) const fn minutes(create: u64, update: u64, delete: u64) -> Self {
        Self {
            create: Duration::from_secs(create * MINUTE),
            update: Duration::from_secs(update * MINUTE),
            delete: Duration::from_secs(delete * MINUTE),
        }
    }
}

/// The attribute `timeouts`.
pub(crate) fn attribute(times: Times) -> Attribute {
    let default = |operation: &str| match operation {
        "create" => times.create,
        "update" => times.update,
        "delete" => times.delete,
        _ => READ,
    };
    let one = |operation: &str| {
        let minutes = default(operation).as_secs() / MINUTE;
        let text =
            format!("How long `{operation}` may take, such as `90s` or `1h30m`; default `{minutes}m`.");
        Attribute::optional(operation, Type::String, text)
    };
    let text = "How long operations may take. A change of these alone asks nothing of the API.";
    Attribute::optional("timeouts", Shape::single(OPERATIONS.map(one).to_vec()), text)
}

/// The time for an operation.
pub(crate) fn of(model: &Value, operation: &str, default: Duration) -> Duration {
    match model.attribute("timeouts").attribute(operation) {
        Value::String(text) => parse(text).unwrap_or(default),
        _ => default,
    }
}

/// Refuses what is no duration.
pub(crate) fn check(config: &Value, diagnostics: &mut Diagnostics) {
    for operation in OPERATIONS {
        if let Value::String(text) = config.attribute("timeouts").attribute(operation)
            && parse(text).is_none()
        {
            let at = Path::of("timeouts").attribute(operation);
            let detail = format!("{at} must be a duration such as 90s, 20m or 1h30m.");
            diagnostics.error(at, "Value of the wrong form", detail);
        }
    }
}

/// `1h30m`: whole numbers, each with h, m or s, the larger before the smaller.
fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0_u64;
    for (unit, size) in [('h', MINUTE * MINUTE), ('m', MINUTE), ('s', 1)] {
        if let Some((number, after)) = rest.split_once(unit) {
            seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(size)?)?;
            rest = after;
        }
    }
    (rest.is_empty() && seconds > 0).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_everything_else_is_refused() {
        assert_eq!(parse("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse("90s"), Some(Duration::from_secs(90)));
        for text in ["", "5", "m", "1m1h", "0s", "1.5h", "-1s", "5 m"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
