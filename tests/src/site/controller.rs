//! The controller as a process, under its own account.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use kube::Client;

use crate::kubeconfig::{self, Login, Server};
use crate::process::{Process, heading};
use crate::spawner::Spawner;
use crate::{install, peer, ports};

/// It gives up its leader lease before it ends.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// The controller of a site.
pub struct Controller {
    kubeconfig: PathBuf,
    log: PathBuf,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    port: u16,
    process: Option<Process>,
}

impl Controller {
    pub(super) async fn start(folder: &Path, server: &Server, client: &Client) -> Result<Self> {
        let kubeconfig = folder.join("controller.kubeconfig");
        let token = install::controller_token(client).await?;
        kubeconfig::write(&kubeconfig, server, &Login::Token(&token))?;
        let log = folder.join("logs/holdfast-controller.log");
        let mut controller =
            Self { kubeconfig, log, port: ports::keep(&folder.join("controller-port"))?, process: None };
        controller.launch()?;
        Ok(controller)
    }

    /// Starts it, unless it runs.
    pub fn launch(&mut self) -> Result<()> {
        if self.process.as_mut().is_some_and(|process| process.ended().is_none()) {
            return Ok(());
        }
        self.launch_with(&[])
    }

    /// Starts it anew with further environment, for stories that make it stop at a point of their choice.
    pub fn launch_with(&mut self, variables: &[(&str, &str)]) -> Result<()> {
        self.kill_9();
        let mut command = peer::mortal(peer::ours("holdfast-controller")?);
        command
            .args(["run", "--accept-insecure-dev", "--listen"])
            .arg(format!("127.0.0.1:{}", self.port))
            .env("KUBECONFIG", &self.kubeconfig)
            .env("NO_COLOR", "1")
            .envs(variables.iter().copied());
        self.process = Some(Process::start(Spawner::machine()?, "holdfast-controller", command, &self.log)?);
        Ok(())
    }

    /// Asks it to end.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(STOP_GRACE);
        }
    }

    /// Kills it as a crash would.
    pub fn kill_9(&mut self) {
        self.process = None;
    }

    /// Its process, for stories that look at its memory or its end.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the controller is stopped")
    }

    /// Its kubeconfig: the rights it has are its account's.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The loopback port of its metrics and health.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The end of its log.
    pub fn logs(&self) -> String {
        heading("holdfast-controller", &self.log)
    }
}
