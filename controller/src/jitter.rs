//! Spreads what many would otherwise do at the same moment.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The duration, made longer by up to a half. The standard library seeds each hasher at random; that is random enough here.
pub(crate) fn stretched(duration: Duration) -> Duration {
    let draw = u8::try_from(RandomState::new().hash_one(0) % 256).unwrap_or(0);
    duration.mul_f64(1.0 + f64::from(draw) / 512.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_grows_by_at_most_a_half() {
        for _ in 0..1000 {
            let stretched = stretched(Duration::from_secs(10));
            assert!((Duration::from_secs(10)..=Duration::from_secs(15)).contains(&stretched));
        }
    }
}
