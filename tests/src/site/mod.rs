//! A site: a control plane, the controller and hosts with node daemons, enrolled by the real path.

mod cluster;
mod controller;
mod enrolment;
mod member;
mod remains;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use kube::Client;
use tokio::sync::{Mutex, MutexGuard, RwLock};

pub use cluster::Cluster;
pub use controller::Controller;
pub use member::{Accelerator, Member};

use crate::image_server::ImageServer;
use crate::kubeconfig::Server;
use crate::progress::Progress;
use crate::{files, install, kubeconfig, peer, ports};

/// What a site shall be.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Where it keeps everything (a short path: it holds Unix sockets).
    pub folder: PathBuf,
    /// The names of its hosts.
    pub hosts: Vec<String>,
    /// A cluster to use instead of a control plane of its own.
    pub kubeconfig: Option<PathBuf>,
}

/// A running site. Dropping it ends every process and keeps the folder.
pub struct Site {
    folder: PathBuf,
    kubeconfig: PathBuf,
    accelerator: Accelerator,
    images: ImageServer,
    // In the order in which they end.
    members: Vec<(String, Mutex<Member>)>,
    controller: Mutex<Controller>,
    cluster: Mutex<Cluster>,
    /// Stories that break what others use take it for writing.
    pub(crate) gate: RwLock<()>,
}

impl Site {
    /// Brings up a site, or the one that was in the folder; returns when every node is ready.
    pub async fn start(layout: &Layout, progress: &Progress) -> Result<Self> {
        files::create_folder(&layout.folder.join("logs"))?;
        let accelerator = Accelerator::proved(progress)?;
        let cluster = Cluster::start(layout, progress).await?;
        let kubeconfig = cluster.kubeconfig();
        let server = Server::of(&kubeconfig).await?;
        let client = kubeconfig::client(&kubeconfig).await?;
        install::install(&kubeconfig, &client, &layout.folder).await?;
        progress.say("kinds, policies and rights are in force");
        let controller = Controller::start(&layout.folder, &server, &client).await?;
        progress.say("the controller runs");
        let images = ImageServer::start_on(ports::keep(&layout.folder.join("image-port"))?).await?;
        let credential = install::install_credential(&client).await?;
        let node = member::Setup { server, credential, accelerator, image_port: images.port() };
        let members = start_members(layout, &node)?;
        progress.say("hosts are up, node daemons run; waiting for them to enrol");
        let site = Self {
            folder: layout.folder.clone(),
            kubeconfig,
            accelerator,
            images,
            members,
            controller: Mutex::new(controller),
            cluster: Mutex::new(cluster),
            gate: RwLock::new(()),
        };
        for name in &layout.hosts {
            site.wait_enrolled(&client, name).await?;
            progress.say(&format!("node {name} is ready"));
        }
        Ok(site)
    }

    /// Where it keeps everything.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client of the administrator, for the calling runtime.
    pub async fn admin(&self) -> Result<Client> {
        kubeconfig::client(&self.kubeconfig).await
    }

    /// What executes the guests of its hosts.
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    /// The image server that every host reaches.
    pub fn images(&self) -> &ImageServer {
        &self.images
    }

    /// The names of its hosts.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(name, _)| name.as_str())
    }

    /// A host by name, for one user at a time.
    pub async fn member(&self, name: &str) -> Result<MutexGuard<'_, Member>> {
        let found = self.members.iter().find(|(known, _)| known == name);
        let (_, member) = found.with_context(|| format!("the site has no host {name:?}"))?;
        Ok(member.lock().await)
    }

    /// The controller, for one user at a time.
    pub async fn controller(&self) -> MutexGuard<'_, Controller> {
        self.controller.lock().await
    }

    /// The cluster, for one user at a time.
    pub async fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().await
    }

    /// The key that guests of stories and of the demo are given; its public half lies beside it with `.pub`.
    pub fn ssh_key(&self) -> Result<PathBuf> {
        ssh_key(&self.folder)
    }

    /// The end of every log, for a failure's message.
    pub async fn logs(&self) -> String {
        let mut text = self.cluster.lock().await.logs();
        text.push_str(&self.controller.lock().await.logs());
        for (_, member) in &self.members {
            let _ = write!(text, "{}", member.lock().await.logs());
        }
        text
    }

    /// Starts again what has ended, as systemd would.
    pub async fn mend(&self) -> Result<()> {
        self.controller.lock().await.launch()?;
        for (_, member) in &self.members {
            member.lock().await.mend()?;
        }
        Ok(())
    }

    /// Waits until a node is ready; lets it in as a person does where nothing lets it in by itself.
    pub async fn wait_enrolled(&self, client: &Client, name: &str) -> Result<()> {
        match enrolment::wait_ready(client, name).await {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(self.logs().await)),
        }
    }
}

fn start_members(layout: &Layout, setup: &member::Setup) -> Result<Vec<(String, Mutex<Member>)>> {
    let start = |name: &String| -> Result<(String, Mutex<Member>)> {
        let folder = layout.folder.join("hosts").join(name);
        Ok((name.clone(), Mutex::new(Member::start(&folder, name, setup)?)))
    };
    layout.hosts.iter().map(start).collect()
}

/// The key of a site in `folder`, made at the first call.
pub fn ssh_key(folder: &Path) -> Result<PathBuf> {
    let key = folder.join("ssh/key");
    if !key.exists() {
        files::create_folder(&folder.join("ssh"))?;
        let mut keygen = Command::new(peer::packaged("ssh-keygen", "openssh-client")?);
        keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "holdfast-site", "-f"])
            .arg(&key)
            .stdin(Stdio::null());
        if !keygen.status().context("could not run ssh-keygen")?.success() {
            bail!("ssh-keygen made no key in {}", key.display());
        }
    }
    Ok(key)
}
