//! A Kubernetes control plane of three processes on loopback: kine (on `SQLite`), kube-apiserver, kube-controller-manager.
//!
//! Its folder holds all state, so the API server can be stopped, killed and started again on the same port.

pub mod audit;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::http::Request;
use kube::Client;

use audit::Audit;

use crate::kubeconfig::{self, Login, Server};
use crate::peer;
use crate::pki::Pki;
use crate::process::{Process, heading};
use crate::spawner::Spawner;
use crate::wait::{Look, wait_for};
use crate::{files, ports};

/// Ten times what a start takes on two idle cores.
const READY_LIMIT: Duration = Duration::from_secs(90);
/// The API server ends open watches before it leaves.
const STOP_GRACE: Duration = Duration::from_secs(15);
/// What a controller-manager signs for by itself.
const SIGNS_FOR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Only what the stories need: owner references, namespaces, service accounts, and a cluster that signs requests.
const CONTROLLERS: &str = "garbagecollector,namespace,serviceaccount,serviceaccount-token,csrsigning,csrcleaner,\
    root-ca-cert-publisher,clusterrole-aggregation,bootstrapsigner,tokencleaner";

/// A running control plane. Dropping it ends its processes and keeps its folder.
pub struct ControlPlane {
    folder: PathBuf,
    pki: Pki,
    audit: Audit,
    port: u16,
    /// How long a certificate that the cluster signs is good from now on; it always begins 5 minutes back.
    signs_for: Duration,
    // In the order in which they end: the API server leaves before its store does.
    manager: Option<Process>,
    apiserver: Option<Process>,
    kine: Option<Process>,
}

impl ControlPlane {
    /// Starts a control plane with its state in `folder` (a short path: it holds a Unix socket) and waits for it.
    pub async fn start(folder: &Path) -> Result<Self> {
        Self::signing_for(folder, SIGNS_FOR).await
    }

    /// The same; the certificates it signs are good for no longer than this.
    pub async fn signing_for(folder: &Path, signs_for: Duration) -> Result<Self> {
        files::create_folder(&folder.join("logs"))?;
        let pki = Pki::open(&folder.join("pki"))?;
        let audit = Audit::new(folder)?;
        let port = ports::keep(&folder.join("port"))?;
        let folder = folder.to_owned();
        let mut plane =
            Self { folder, pki, audit, port, signs_for, manager: None, apiserver: None, kine: None };
        plane.write_kubeconfig("admin", &["system:masters"])?;
        plane.start_kine()?;
        plane.start_apiserver().await?;
        plane.start_manager()?;
        Ok(plane)
    }

    /// The port the API server listens on, loopback only.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate authority, for identities beyond the administrator's.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// What our programs asked of the API server.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// A client of the administrator.
    pub async fn client(&self) -> Result<Client> {
        kubeconfig::client(&self.kubeconfig()).await
    }

    /// Writes `<user>.kubeconfig` with a client certificate for the user and groups.
    pub fn write_kubeconfig(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        let identity = self.pki.client(user, groups)?;
        let file = self.folder.join(format!("{}.kubeconfig", user.replace(':', "-")));
        kubeconfig::write(&file, &self.server()?, &Login::Certificate(&identity))?;
        Ok(file)
    }

    fn server(&self) -> Result<Server> {
        let authority = self.pki.authority()?;
        Ok(Server { host: "127.0.0.1".to_owned(), port: self.port, authority, tls_name: None })
    }

    /// Starts the API server, unless it runs, and waits until it is ready.
    pub async fn start_apiserver(&mut self) -> Result<()> {
        if self.apiserver.as_mut().is_none_or(|process| process.ended().is_some()) {
            let command = self.apiserver_command()?;
            self.apiserver = Some(self.launch("kube-apiserver", command)?);
        }
        self.wait_ready().await
    }

    /// Asks the API server to end; state is kept.
    pub fn stop_apiserver(&mut self) {
        if let Some(mut process) = self.apiserver.take() {
            process.stop(STOP_GRACE);
        }
    }

    /// Kills the API server as a crash would; state is kept.
    pub fn kill_apiserver(&mut self) {
        self.apiserver = None;
    }

    /// The ends of the logs that explain failures.
    pub fn logs(&self) -> String {
        let processes = [&self.kine, &self.apiserver, &self.manager];
        let part = |process: &Process| heading(process.name(), process.log());
        processes.into_iter().flatten().map(part).collect()
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let client = self.client().await?;
        let processes = (&mut self.apiserver, &mut self.kine);
        wait_for("the API server", READY_LIMIT, async || {
            let request = Request::get("/readyz").body(Vec::new()).context("could not build a request")?;
            let answer = client.request_text(request).await.context("no answer from /readyz")?;
            Ok(if answer == "ok" { Look::Done(()) } else { Look::NotYet(answer) })
        })
        .await
        .inspect_err(|_| {
            // A dead process explains more than a refused connection.
            for process in [processes.0, processes.1].into_iter().flatten() {
                if let Err(error) = process.must_run() {
                    tracing::error!("{error:#}");
                }
            }
        })
    }

    fn start_kine(&mut self) -> Result<()> {
        let folder = self.folder.display();
        let mut command = peer::mortal(peer::built("kine", "kine")?);
        command
            .arg("--endpoint")
            .arg(format!("sqlite://{folder}/state.db?_journal=WAL&cache=shared&_busy_timeout=30000"))
            .arg("--listen-address")
            .arg(format!("unix://{folder}/kine.sock"))
            .args(["--metrics-bind-address", "0"]);
        self.kine = Some(self.launch("kine", command)?);
        Ok(())
    }

    fn apiserver_command(&self) -> Result<Command> {
        let pki = |name: &str| self.pki.file(name).display().to_string();
        let mut command = peer::mortal(peer::built("kube-apiserver", "kubernetes")?);
        command.args([
            format!("--etcd-servers=unix://{}/kine.sock", self.folder.display()),
            format!("--cert-dir={}/apiserver", self.folder.display()),
            format!("--secure-port={}", self.port),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-bootstrap-token-auth".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", pki("sa.pub")),
            format!("--service-account-signing-key-file={}", pki("sa.key")),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
        ]);
        command.args(self.audit.arguments());
        Ok(command)
    }

    fn start_manager(&mut self) -> Result<()> {
        let pki = |name: &str| self.pki.file(name).display().to_string();
        let mut command = peer::mortal(peer::built("kube-controller-manager", "kubernetes")?);
        command.args([
            format!("--kubeconfig={}", self.kubeconfig().display()),
            format!("--controllers={CONTROLLERS}"),
            format!("--root-ca-file={}", pki("ca.crt")),
            format!("--cluster-signing-cert-file={}", pki("ca.crt")),
            format!("--cluster-signing-key-file={}", pki("ca.key")),
            format!("--service-account-private-key-file={}", pki("sa.key")),
            format!("--cluster-signing-duration={}s", self.signs_for.as_secs()),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ]);
        self.manager = Some(self.launch("kube-controller-manager", command)?);
        Ok(())
    }

    fn launch(&self, name: &str, command: Command) -> Result<Process> {
        let log = self.folder.join(format!("logs/{name}.log"));
        Process::start(Spawner::machine()?, name, command, &log)
    }
}
