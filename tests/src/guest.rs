//! Into a guest by SSH, from inside the network of the host it runs on.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::peer;
use crate::wait::{Look, wait_for};

/// A guest that was made again has another host key under the same address, so nothing is remembered.
const OPTIONS: [&str; 5] = [
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "LogLevel=ERROR",
    "ConnectTimeout=10",
    "IdentitiesOnly=yes",
];

/// Where a guest is and how to log in.
pub struct Guest {
    /// The first process of its host.
    pub init_pid: i32,
    /// Its address in a network of that host.
    pub address: String,
    /// The user that cloud-init made.
    pub user: String,
    /// The private key.
    pub key: PathBuf,
}

impl Guest {
    /// An SSH command with these options, to which words to run may be added.
    pub fn ssh(&self, options: &[&str]) -> Result<Command> {
        let mut command = peer::mortal("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.init_pid)).arg("--");
        command.arg(peer::packaged("ssh", "openssh-client")?);
        command.args(OPTIONS.iter().flat_map(|option| ["-o", option])).arg("-i").arg(&self.key);
        command.args(options).arg(format!("{}@{}", self.user, self.address));
        Ok(command)
    }

    /// Runs words in the guest to their end.
    pub fn output(&self, words: &[&str]) -> Result<Output> {
        let mut command = self.ssh(&["-o", "BatchMode=yes"])?;
        command.args(words).stdin(Stdio::null());
        command.output().context("could not run ssh")
    }

    /// Waits until the guest lets us in.
    pub async fn wait_ssh(&self, limit: Duration) -> Result<()> {
        wait_for(&format!("SSH on {}", self.address), limit, async || {
            self.run(&["true"]).map(|_| Look::Done(()))
        })
        .await
    }

    /// Runs words in the guest that must succeed; returns what they printed.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.output(words)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("{words:?} on {} failed ({}): {}", self.address, output.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The first process of a host, from the host's folder.
pub fn init_pid(host_folder: &Path) -> Result<i32> {
    let text = crate::files::read(&host_folder.join("init.pid"))?;
    text.trim().parse().with_context(|| format!("{} holds no process id", host_folder.display()))
}
