//! Randomness of the daemon: spread of waits, so that many nodes never call in step, and names of requests.

use std::time::Duration;

/// Digits and lower-case letters without the vowels, so that no word comes out by chance.
const ALPHABET: &[u8; 31] = b"0123456789bcdfghjklmnpqrstvwxyz";

/// A duration between the given one and half as much again.
pub(crate) fn spread(base: Duration) -> Duration {
    base + base.mul_f64(f64::from(random_byte()) / 512.0)
}

/// Full jitter: anything up to the given duration.
pub(crate) fn within(bound: Duration) -> Duration {
    bound.mul_f64(f64::from(random_byte()) / 255.0)
}

/// Eight random characters for the end of a name.
pub(crate) fn suffix() -> String {
    let mut bytes = [0u8; 8];
    fill(&mut bytes);
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 31)])).collect()
}

fn random_byte() -> u8 {
    let mut byte = [0u8; 1];
    fill(&mut byte);
    byte[0]
}

/// Without randomness (which the kernel does not refuse once it is up) waits are not spread and names collide: both are
/// answered by the next attempt, so it is no reason to stop.
fn fill(bytes: &mut [u8]) {
    if aws_lc_rs::rand::fill(bytes).is_err() {
        tracing::warn!("the system gave no random bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_wait_is_never_shorter_and_at_most_half_as_long_again() {
        let base = Duration::from_secs(10);
        for _ in 0..1000 {
            assert!((base..=base * 3 / 2).contains(&spread(base)));
            assert!(within(base) <= base);
        }
    }

    #[test]
    fn a_suffix_may_stand_at_the_end_of_a_name() {
        let suffix = suffix();
        assert_eq!(suffix.len(), 8);
        assert!(suffix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
    }
}
