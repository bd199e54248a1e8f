//! The runtime of the harness's own servers and relays; tests come and go with runtimes of their own.

use std::sync::OnceLock;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Handle, Runtime};

/// The harness's runtime, which lives as long as the process.
pub fn harness() -> Result<Handle> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime.handle().clone());
    }
    let fresh = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let fresh = fresh.context("could not start a runtime")?;
    Ok(RUNTIME.get_or_init(|| fresh).handle().clone())
}
