//! A row of the table, and when it passes.

use std::fmt::Write;

use serde::Serialize;

use super::stats::{Estimate, estimate, median};

/// Half the width of a null test's interval above which a ratio decides nothing.
const QUIET: f64 = 0.05;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It did.
    Pass,
    /// It did not.
    Fail,
    /// The machine was too noisy to say.
    Noisy,
}

impl Row {
    /// A ratio passes when its whole interval lies at or below `must`, fails when all of it lies above.
    pub fn verdict(&self) -> Verdict {
        match &self.value {
            Value::Figure(figure, _) if *figure <= self.must => Verdict::Pass,
            Value::Figure(..) => Verdict::Fail,
            Value::Ratio(pairs) if noisy(pairs) => Verdict::Noisy,
            Value::Ratio(pairs) => match ratio(pairs) {
                Estimate { high, .. } if high <= self.must => Verdict::Pass,
                Estimate { low, .. } if low > self.must => Verdict::Fail,
                _ => Verdict::Noisy,
            },
        }
    }

    fn cells(&self) -> [String; 9] {
        let verdict = match self.verdict() {
            _ if self.must.is_infinite() => "-",
            Verdict::Pass => "pass",
            Verdict::Fail => "FAIL",
            Verdict::Noisy => "noisy",
        };
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
fn noisy(pairs: &[[f64; 3]]) -> bool {
    let null = estimate(&pairs.iter().map(|[_, before, after]| before / after).collect::<Vec<_>>());
    (null.high - null.low) / 2.0 > QUIET
}

/// The whole table.
pub(super) fn table(rows: &[Row]) -> String {
    let head = ["id", "what", "accel", "ours", "limit", "", "ratio [95 %]", "must", "moon   verdict"]
        .map(str::to_owned);
    let lines: Vec<[String; 9]> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let mut text = String::new();
    for line in &lines {
        for (column, cell) in line.iter().enumerate() {
            let width = lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
            let _ = write!(text, "{}  ", pad(cell, width));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
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
    }

    #[test]
    fn a_figure_is_compared_as_it_is() {
        assert_eq!(row(Value::Figure(6.0, "writes"), 6.0).verdict(), Verdict::Pass);
        assert_eq!(row(Value::Figure(7.0, "writes"), 6.0).verdict(), Verdict::Fail);
    }
}
