//! A panic is a fault of ours: it is logged for whoever can report it, and costs one piece of work and no other.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use uuid::Uuid;

/// Before a task that panicked begins again: what it met may still be there, and the log must not fill with it.
const PAUSE: Duration = Duration::from_secs(10);

/// Runs the work; `Err` holds the text of its panic. What it shared is guarded by locks that outlive a panic.
pub(crate) async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| text(panic.as_ref()))
}

/// Lives one virtual machine's life, and begins it anew after a panic.
pub(crate) async fn survive<F: Future<Output = ()>>(vm: Uuid, life: impl FnMut() -> F) {
    survive_after(PAUSE, vm, life).await;
}

async fn survive_after<F: Future<Output = ()>>(pause: Duration, vm: Uuid, mut life: impl FnMut() -> F) {
    while let Err(panic) = caught(life()).await {
        tracing::error!(%vm, panic, "the driver of a virtual machine panicked and begins again; please report it");
        tokio::time::sleep(pause).await;
    }
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
    async fn a_life_that_panicked_begins_again_until_it_ends_by_itself() {
        let mut lives = 0;
        let life = || {
            lives += 1;
            let number = lives;
            async move { assert!(number > 2, "not yet") }
        };
        survive_after(Duration::ZERO, Uuid::nil(), life).await;
        assert_eq!(lives, 3);
    }
}
