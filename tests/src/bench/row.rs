//! A row of the table, and when it passes.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::stats::{Estimate, estimate, median};

/// How far from 1 the limit may be against itself; beyond that a ratio decides nothing.
const QUIET: f64 = 0.05;
/// Columns are as wide as their widest cell may become, since each row is printed as soon as it is measured.
const WIDTHS: [usize; 9] = [4, 31, 5, 12, 29, 10, 19, 5, 0];
const HEAD: [&str; 9] =
    ["id", "what", "accel", "ours", "limit", "", "ratio [95 %]", "must", "moon   verdict"];

/// One figure against its limit.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Such as `B5`.
    pub id: &'static str,
    /// What is measured.
    pub what: &'static str,
    /// `kvm`, `tcg`, `none`, …: rows with different words are never compared.
    pub accelerator: &'static str,
    /// What it is compared with.
    pub limit: &'static str,
    /// Ours and the limit.
    pub value: Value,
    /// What a release needs.
    pub must: f64,
    /// What we dream of; `None` where it is measured elsewhere.
    pub moon: Option<f64>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub enum Value {
    /// Ours over the limit, pair by pair, in milliseconds: ours, and the limit before and after it.
    Ratio(Vec<[f64; 3]>),
    /// A figure of its own with its unit.
    Figure(f64, &'static str),
}

/// Whether a row reached its `must`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It did.
    Pass,
    /// It did not.
    Fail,
    /// The machine was too noisy to say: the limit against itself was not 1.
    Noisy,
    /// The machine was quiet, and `must` lies within the interval: more pairs would tell.
    Open,
    /// It has no `must`.
    None,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::Noisy => "noisy",
            Self::Open => "open",
            Self::None => "-",
        }
    }
}

impl Row {
    /// A ratio passes when its whole interval lies at or below `must`, fails when all of it lies above.
    pub fn verdict(&self) -> Verdict {
        match &self.value {
            _ if self.must.is_infinite() => Verdict::None,
            Value::Figure(figure, _) if *figure <= self.must => Verdict::Pass,
            Value::Figure(..) => Verdict::Fail,
            Value::Ratio(pairs) if noisy(pairs) => Verdict::Noisy,
            Value::Ratio(pairs) => match ratio(pairs) {
                Estimate { high, .. } if high <= self.must => Verdict::Pass,
                Estimate { low, .. } if low > self.must => Verdict::Fail,
                _ => Verdict::Open,
            },
        }
    }

    /// Whether it is asked for by this name; `B1*` and `B7h` are asked for with what they belong to.
    pub(super) fn is(&self, id: &str) -> bool {
        self.id.trim_end_matches(['*', 'h']) == id
    }

    /// Its line of the table.
    pub(super) fn line(&self) -> String {
        line(&self.cells())
    }

    /// All there is to keep of it.
    pub(super) fn record(&self) -> Json {
        let (ratio, itself) = match &self.value {
            Value::Ratio(pairs) => (Some(ratio(pairs)), Some(null(pairs))),
            Value::Figure(..) => (None, None),
        };
        json!({"row": self, "ratio": ratio, "limitAgainstItself": itself, "verdict": self.verdict()})
    }

    fn cells(&self) -> [String; 9] {
        let verdict = self.verdict().word();
        let moon = self.moon.map_or_else(|| "-".to_owned(), |moon| moon.to_string());
        let (ours, limit, figure) = match &self.value {
            Value::Figure(figure, unit) => (format!("{figure:.2} {unit}"), "-".to_owned(), "-".to_owned()),
            Value::Ratio(pairs) => {
                let Estimate { median: middle, low, high } = ratio(pairs);
                let ours = median(&pairs.iter().map(|pair| pair[0]).collect::<Vec<_>>());
                let limit = median(&pairs.iter().flat_map(|pair| [pair[1], pair[2]]).collect::<Vec<_>>());
                (
                    format!("{ours:.1} ms"),
                    format!("{limit:.1} ms"),
                    format!("{middle:.2} [{low:.2}, {high:.2}]"),
                )
            }
        };
        [
            self.id.to_owned(),
            self.what.to_owned(),
            self.accelerator.to_owned(),
            ours,
            self.limit.to_owned(),
            limit,
            figure,
            if self.must.is_infinite() { "-".to_owned() } else { self.must.to_string() },
            format!("{} {verdict}", pad(&moon, 6)),
        ]
    }
}

fn ratio(pairs: &[[f64; 3]]) -> Estimate {
    estimate(
        &pairs.iter().map(|[ours, before, after]| ours / f64::midpoint(*before, *after)).collect::<Vec<_>>(),
    )
}

/// The limit against itself: on a quiet machine that is 1.
fn null(pairs: &[[f64; 3]]) -> Estimate {
    estimate(&pairs.iter().map(|[_, before, after]| before / after).collect::<Vec<_>>())
}

/// A narrow interval beside 1 is no quiet machine either: it drifted.
fn noisy(pairs: &[[f64; 3]]) -> bool {
    let Estimate { low, high, .. } = null(pairs);
    low < 1.0 - QUIET || high > 1.0 + QUIET
}

/// The line above the rows.
pub(super) fn head() -> String {
    line(&HEAD.map(str::to_owned))
}

fn line(cells: &[String; 9]) -> String {
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(WIDTHS) {
        let _ = write!(text, "{}  ", pad(cell, width));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn pad(text: &str, width: usize) -> String {
    format!("{text:width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: Value, must: f64) -> Row {
        Row { id: "B0", what: "w", accelerator: "none", limit: "l", value, must, moon: None }
    }

    #[test]
    fn a_ratio_decides_only_on_a_quiet_machine() {
        let quiet = Value::Ratio(vec![[11.0, 10.0, 10.0]; 10]);
        assert_eq!(row(quiet.clone(), 1.2).verdict(), Verdict::Pass);
        assert_eq!(row(quiet, 1.05).verdict(), Verdict::Fail);
        let loud = (0..10).map(|n| [11.0, 10.0, 10.0 + f64::from(n)]).collect();
        assert_eq!(row(Value::Ratio(loud), 1.2).verdict(), Verdict::Noisy);
        let drifting = vec![[11.0, 10.0, 12.0]; 10];
        assert_eq!(row(Value::Ratio(drifting), 1.2).verdict(), Verdict::Noisy);
    }

    #[test]
    fn a_must_within_the_interval_stays_open() {
        let wide = (0..10).map(|n| [10.0 + f64::from(n), 10.0, 10.0]).collect();
        assert_eq!(row(Value::Ratio(wide), 1.45).verdict(), Verdict::Open);
    }

    #[test]
    fn a_row_without_a_must_has_no_verdict() {
        assert_eq!(row(Value::Figure(6.0, "/s"), f64::INFINITY).verdict(), Verdict::None);
    }

    #[test]
    fn a_figure_is_compared_as_it_is() {
        assert_eq!(row(Value::Figure(6.0, "writes"), 6.0).verdict(), Verdict::Pass);
        assert_eq!(row(Value::Figure(7.0, "writes"), 6.0).verdict(), Verdict::Fail);
    }
}
