//! A control plane with Holdfast installed and no hosts: for stories about the controller, rights and policies.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Result;
use kube::Client;
use nix::unistd::Pid;

use crate::control_plane::ControlPlane;
use crate::kubeconfig::Server;
use crate::process::Process;
use crate::proxy::Proxy;
use crate::spawner::Spawner;
use crate::{files, install, peer, ports};

/// Several times what the controller needs to give its Lease back.
const END: Duration = Duration::from_secs(20);

/// The control plane and the controller, which speaks through a proxy.
pub struct Office {
    folder: PathBuf,
    plane: ControlPlane,
    server: Server,
    proxy: Proxy,
    controller: Option<Process>,
}

impl Office {
    /// Opens an office in a fresh folder below the repository's `target/sites`; its controller is not started yet.
    pub async fn open(name: &str) -> Result<Self> {
        let folder = peer::repository().join("target/sites").join(name);
        files::remove_folder(&folder)?;
        let plane = ControlPlane::start(&folder).await?;
        install::install(&plane.kubeconfig(), &plane.client().await?, &folder).await?;
        let server = Server::of(&plane.kubeconfig()).await?;
        let proxy = Proxy::start(&server).await?;
        let token = install::controller_token(&plane.client().await?).await?;
        proxy.write_kubeconfig(&folder.join("controller.kubeconfig"), &token)?;
        Ok(Self { folder, plane, server, proxy, controller: None })
    }

    /// Where its files lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The API server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The control plane.
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// What stands between the controller and the API server.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// The administrator.
    pub async fn admin(&self) -> Result<Client> {
        self.plane.client().await
    }

    /// The install credential.
    pub async fn credential(&self) -> Result<String> {
        install::install_credential(&self.admin().await?).await
    }

    /// Starts the controller, always under the same name: it need not wait for the Lease of the one that was killed.
    pub fn start_controller(&mut self) -> Result<()> {
        self.controller = Some(self.another("office")?);
        Ok(())
    }

    /// Starts one more controller, under this name.
    pub fn another(&self, identity: &str) -> Result<Process> {
        let mut command = peer::mortal(peer::ours("holdfast-controller")?);
        command
            .args(["run", "--accept-insecure-dev", "--identity", identity, "--listen"])
            .arg(format!("127.0.0.1:{}", ports::free()?))
            .env("KUBECONFIG", self.folder.join("controller.kubeconfig"))
            .env("NO_COLOR", "1");
        let log = self.folder.join(format!("logs/holdfast-controller-{identity}.log"));
        Process::start(Spawner::machine()?, "holdfast-controller", command, &log)
    }

    /// Asks the controller to end; returns how it did, also when it had to be killed.
    pub fn end_controller(&mut self) -> Option<ExitStatus> {
        self.controller.take()?.stop(END)
    }

    /// The process of the controller, if it runs.
    pub fn controller_pid(&self) -> Option<Pid> {
        self.controller.as_ref().map(Process::pid)
    }

    /// Kills the controller as a crash would.
    pub fn kill_controller(&mut self) {
        self.controller = None;
    }

    /// The end of the logs, for a failure's message.
    pub fn logs(&self) -> String {
        let log = self.folder.join("logs/holdfast-controller-office.log");
        format!("{}{}", self.plane.logs(), crate::process::heading("holdfast-controller", &log))
    }
}
