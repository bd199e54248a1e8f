//! What a site is doing, one line a stage, for people who wait for it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Where progress lines go: a file that whoever waits may follow. Clones write to the same place.
#[derive(Clone)]
pub struct Progress {
    file: Arc<PathBuf>,
    start: Instant,
}

impl Progress {
    /// Appends to `file`; seconds count from now.
    pub fn to(file: &Path) -> Self {
        Self { file: Arc::new(file.to_owned()), start: Instant::now() }
    }

    /// Says what is done or begun.
    pub fn say(&self, what: &str) {
        let line = format!("[{:>4} s] {what}\n", self.start.elapsed().as_secs());
        let opened = OpenOptions::new().create(true).append(true).open(self.file.as_path());
        if let Err(error) = opened.and_then(|mut file| file.write_all(line.as_bytes())) {
            // Progress is a courtesy; the work goes on.
            tracing::warn!(%error, file = %self.file.display(), "could not write progress");
        }
        tracing::info!("{what}");
    }
}
