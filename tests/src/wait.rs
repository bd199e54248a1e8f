//! Waiting with a deadline, where a failure says what was seen last.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The pause between two looks: short against what is waited for, long against what a look costs on two cores.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What one look at the world found.
pub enum Look<T> {
    /// What was waited for is there.
    Done(T),
    /// Not yet, and what was seen instead.
    NotYet(String),
}

/// Looks until it is done or `limit` has passed; an error of a look counts as "not yet", since peers come and go.
pub async fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<Look<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let seen = match look().await {
            Ok(Look::Done(found)) => return Ok(found),
            Ok(Look::NotYet(seen)) => seen,
            Err(error) => format!("{error:#}"),
        };
        if start.elapsed() >= limit {
            bail!("waited {} s for {what}; last seen: {seen}", limit.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
