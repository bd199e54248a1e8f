//! `kubectl`, as an administrator runs it, with a memory of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{files, peer};

/// `kubectl` for one cluster.
pub struct Kubectl {
    kubeconfig: PathBuf,
    /// Not the user's, which holds what other clusters at the same address said, and not beside a user's kubeconfig.
    cache: PathBuf,
}

impl Kubectl {
    /// For this cluster; what it remembers lies in `folder`.
    pub fn new(kubeconfig: &Path, folder: &Path) -> Self {
        Self { kubeconfig: kubeconfig.to_owned(), cache: folder.join("kubectl-cache") }
    }

    /// Runs words, which must succeed; returns what it printed.
    pub fn run(&self, words: &[impl AsRef<str>]) -> Result<String> {
        let words = words.iter().map(AsRef::as_ref);
        let mut command = Command::new(peer::packaged("kubectl", "kubernetes-client")?);
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--cache-dir").arg(&self.cache);
        let output = command.args(words.clone()).output().context("could not run kubectl")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("kubectl {} failed: {}", words.clone().next().unwrap_or_default(), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs words about files.
    pub fn run_on(&self, words: &[&str], files: &[PathBuf]) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let files = files.iter().map(|file| format!("--filename={}", file.display()));
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).chain(files).collect();
        self.run(&words).map(drop)
    }

    /// Forgets what it remembers of the cluster.
    pub fn forget(&self) -> Result<()> {
        files::remove_folder(&self.cache)
    }
}
