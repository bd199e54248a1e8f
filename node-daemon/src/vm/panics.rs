//! A panic is a fault of ours: it is logged for whoever can report it, counted, and costs one piece of work and no other.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt;
use uuid::Uuid;

/// Before a task that panicked begins again, doubled up to the longest: what it met may still be there, and the log must
/// not fill with it.
const PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A life that lasted this long is no sequel of the panic before it.
const WELL_AFTER: Duration = Duration::from_secs(600);

/// Runs the work; `Err` holds the text of its panic. What it shared is guarded by locks that outlive a panic.
pub(crate) async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| text(panic.as_ref()))
}

/// Lives one virtual machine's life, and begins it anew after a panic, of which it tells.
pub(crate) async fn survive<L: Future<Output = ()>, T: Future<Output = ()>>(
    vm: Uuid,
    life: impl FnMut() -> L,
    tell: impl FnMut() -> T,
) {
    survive_after(PAUSE, vm, life, tell).await;
}

async fn survive_after<L: Future<Output = ()>, T: Future<Output = ()>>(
    first: Duration,
    vm: Uuid,
    mut life: impl FnMut() -> L,
    mut tell: impl FnMut() -> T,
) {
    let (mut before, mut begun) = (None, Instant::now());
    while let Err(panic) = caught(life()).await {
        tracing::error!(%vm, panic, "the driver of a virtual machine panicked and begins again; please report it");
        // Telling of it may meet what the life met.
        if let Err(panic) = caught(tell()).await {
            tracing::error!(%vm, panic, "nor could its status be written");
        }
        let pause = pause(first, before, begun.elapsed());
        tokio::time::sleep(pause).await;
        (before, begun) = (Some(pause), Instant::now());
    }
}

/// The pause after a panic, from the one after the panic before and how long the life between them lasted.
fn pause(first: Duration, before: Option<Duration>, lived: Duration) -> Duration {
    let sequel = before.filter(|_| lived < WELL_AFTER);
    sequel.map_or(first, |before| (before * 2).min(LONGEST_PAUSE))
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_caught_with_its_text() {
        assert_eq!(caught(async { 1 }).await, Ok(1));
        assert_eq!(caught(async { panic!("at {}", "once") }).await, Err::<(), _>("at once".to_owned()));
    }

    #[tokio::test]
    async fn a_life_that_panicked_is_told_of_and_begins_again_until_it_ends_by_itself() {
        let (mut lives, mut told) = (0, 0);
        let life = || {
            lives += 1;
            let number = lives;
            async move { assert!(number > 2, "not yet") }
        };
        let tell = || {
            told += 1;
            async { panic!("this, too") }
        };
        survive_after(Duration::ZERO, Uuid::nil(), life, tell).await;
        assert_eq!((lives, told), (3, 2));
    }

    #[test]
    fn one_that_panics_again_and_again_is_tried_less_and_less_often() {
        let again = |before| pause(PAUSE, Some(before), Duration::ZERO);
        assert_eq!(pause(PAUSE, None, Duration::ZERO), PAUSE);
        assert_eq!((again(PAUSE), again(PAUSE * 20)), (PAUSE * 2, LONGEST_PAUSE));
        assert_eq!(pause(PAUSE, Some(LONGEST_PAUSE), WELL_AFTER), PAUSE);
    }
}
