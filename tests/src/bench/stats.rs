//! Medians and their uncertainty. The resampling is seeded, so that the same figures give the same interval.

/// Resamples of the bootstrap; enough that the 95 % interval moves by less than the figures' own noise.
const RESAMPLES: usize = 2000;

/// A median with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(super) struct Estimate {
    /// The median.
    pub(super) median: f64,
    /// Lower end of the interval.
    pub(super) low: f64,
    /// Upper end of the interval.
    pub(super) high: f64,
}

/// The middle of the values; 0 without any.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (None, _) => 0.0,
        (Some(&upper), 0) => f64::midpoint(sorted[middle - 1], upper),
        (Some(&only), _) => only,
    }
}

/// The median with its bootstrap interval.
pub(super) fn estimate(values: &[f64]) -> Estimate {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut medians: Vec<f64> = (0..RESAMPLES).map(|_| median(&random.resample(values))).collect();
    medians.sort_by(f64::total_cmp);
    let at = |share: usize| medians[(RESAMPLES - 1) * share / 1000];
    Estimate { median: median(values), low: at(25), high: at(975) }
}

/// `xorshift64*`: any generator will do, it only has to be the same everywhere.
struct Random(u64);

impl Random {
    fn resample(&mut self, values: &[f64]) -> Vec<f64> {
        (0..values.len()).map(|_| values[self.below(values.len())]).collect()
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap_or_default() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(
            (median(&[]), median(&[3.0]), median(&[4.0, 1.0]), median(&[9.0, 1.0, 2.0])),
            (0.0, 3.0, 2.5, 2.0)
        );
    }

    #[test]
    fn the_interval_holds_the_median_and_narrows_with_equal_values() {
        let spread = estimate(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert!(spread.low <= spread.median && spread.median <= spread.high);
        let narrow = estimate(&[2.0; 9]);
        assert_eq!((narrow.low, narrow.high), (2.0, 2.0));
    }
}
