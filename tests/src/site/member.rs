//! A host of a site: a simulated host with a node daemon in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::host::Host;
use crate::kubeconfig::{self, Login, Server};
use crate::link::Link;
use crate::process::{Process, heading};
use crate::progress::Progress;
use crate::{files, kvm, peer};

/// The daemon lets its current step finish.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Inside the host, beside the state folder, so that this holds nothing but state.
const CONFIGURATION: &str = "/var/lib/holdfast-configuration";
/// The API server's port inside every host.
const API_PORT: u16 = 6443;
const DAEMON: &str = "holdfast-node";
/// A host of libvirt's test driver with nothing on it.
const TEST_HOST: &str = "<node><cpu><mhz>2000</mhz><model>x86_64</model><active>64</active><nodes>1</nodes>\
    <sockets>1</sockets><cores>64</cores><threads>1</threads></cpu><memory>268435456</memory></node>";

/// What executes guests on the machine the site runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// Emulation.
    Tcg,
}

impl Accelerator {
    /// KVM where the daemon's own proof succeeds, else emulation, said aloud.
    pub fn proved(progress: &Progress) -> Result<Self> {
        peer::ours(DAEMON)?;
        if kvm::is_proved() {
            progress.say("KVM is proved: guests run on the processor");
            return Ok(Self::Kvm);
        }
        progress.say("KVM runs no guest here: guests are emulated (accelerator: tcg), ten times slower");
        Ok(Self::Tcg)
    }

    /// Its name in a daemon's configuration and on QEMU's command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// What all hosts of a site have in common.
pub(super) struct Setup {
    pub(super) server: Server,
    /// The install credential, a token.
    pub(super) credential: String,
    pub(super) accelerator: Accelerator,
    pub(super) image_port: u16,
}

/// A host with its daemon and its way to the API server.
pub struct Member {
    host: Host,
    api: Arc<Link>,
    images: Arc<Link>,
    daemon: PathBuf,
}

impl Member {
    pub(super) fn start(folder: &Path, name: &str, setup: &Setup) -> Result<Self> {
        let mut host = Host::start(folder, name)?;
        let api = host.add_link(API_PORT, &format!("{}:{}", setup.server.host, setup.server.port))?;
        let images = host.add_link(setup.image_port, &format!("127.0.0.1:{}", setup.image_port))?;
        write_configuration(&host, setup)?;
        let mut member = Self { host, api, images, daemon: peer::ours(DAEMON)? };
        member.start_daemon()?;
        Ok(member)
    }

    /// The host, for what concerns libvirt and the network.
    pub fn host(&mut self) -> &mut Host {
        &mut self.host
    }

    /// Its way to the API server.
    pub fn api(&self) -> &Link {
        &self.api
    }

    /// Its way to the image server.
    pub fn images(&self) -> &Link {
        &self.images
    }

    /// Starts the daemon.
    pub fn start_daemon(&mut self) -> Result<()> {
        self.start_daemon_with(&[])
    }

    /// Starts the daemon with further environment, for stories that make it stop at a point of their choice.
    pub fn start_daemon_with(&mut self, variables: &[(&str, &str)]) -> Result<()> {
        let mut command = peer::mortal(&self.daemon);
        command
            .args(["run", "--config"])
            .arg(format!("{CONFIGURATION}/node.yaml"))
            .envs(variables.iter().copied());
        self.host.start_process(DAEMON, command)
    }

    /// Makes the daemon log every step as a line of JSON, from a new start on.
    pub fn log_every_step(&mut self) -> Result<()> {
        self.configure(&[("log", json!({"format": "json", "level": "debug"}))])
    }

    /// Makes the daemon speak to libvirt's own test driver, from a new start on: every step but the guest itself is
    /// real, so hundreds of virtual machines cost nothing. Whatever ran before is to be gone.
    pub fn use_test_driver(&mut self) -> Result<()> {
        files::write(&self.host.outside(CONFIGURATION).join("node.xml"), TEST_HOST)?;
        let uri = format!("test://{CONFIGURATION}/node.xml");
        // Disks of machines that never write to them.
        self.configure(&[("libvirtUri", json!(uri)), ("diskFactor", json!(100.0))])
    }

    /// Gives guests user ids from here on, each from its next start.
    pub fn use_guest_uids(&mut self, first: u32) -> Result<()> {
        self.configure(&[("guestUids", json!({"first": first}))])
    }

    fn configure(&mut self, values: &[(&str, serde_json::Value)]) -> Result<()> {
        let file = self.configuration();
        let mut configuration: serde_json::Value = serde_json::from_str(&files::read(&file)?)
            .context("the daemon's configuration does not parse")?;
        for (key, value) in values {
            configuration[*key] = value.clone();
        }
        files::write(&file, configuration.to_string())?;
        self.stop_daemon()?;
        self.start_daemon()
    }

    /// Starts the daemon if it has ended.
    pub fn mend(&mut self) -> Result<()> {
        let ended = self.daemon().is_ok_and(|process| process.ended().is_some());
        if ended { self.start_daemon() } else { Ok(()) }
    }

    /// The daemon's process.
    pub fn daemon(&mut self) -> Result<&mut Process> {
        self.host.process(DAEMON)
    }

    /// Asks the daemon to end. Guests run on.
    pub fn stop_daemon(&mut self) -> Result<()> {
        self.daemon()?.stop(STOP_GRACE);
        self.host.end_process(DAEMON);
        Ok(())
    }

    /// Kills the daemon as a crash would. Guests run on.
    pub fn kill_daemon(&mut self) {
        self.host.end_process(DAEMON);
    }

    /// Cuts the host's power and boots it: every process is gone, `/run` is empty, then libvirtd and the daemon start.
    pub fn reboot(&mut self) -> Result<()> {
        self.host.reboot()?;
        self.start_daemon()
    }

    /// The daemon's configuration file, as seen from outside.
    pub fn configuration(&self) -> PathBuf {
        self.host.outside(CONFIGURATION).join("node.yaml")
    }

    /// The ends of the host's logs and of its guests' serial logs.
    pub fn logs(&self) -> String {
        let mut text = self.host.logs();
        for log in serial_logs(&self.host.outside("/var/lib/holdfast")) {
            text.push_str(&heading(&format!("{} {}", self.host.name(), log.display()), &log));
        }
        text
    }
}

fn write_configuration(host: &Host, setup: &Setup) -> Result<()> {
    let folder = host.outside(CONFIGURATION);
    files::create_folder(&folder)?;
    let server = setup.server.behind(API_PORT);
    kubeconfig::write(&folder.join("kubeconfig"), &server, &Login::Token(&setup.credential))?;
    let node = json!({
        "nodeName": host.name(),
        "insecureDev": {"keyDir": "/var/lib/holdfast/keys"},
        "kubeconfig": format!("{CONFIGURATION}/kubeconfig"),
        "accelerator": setup.accelerator.word(),
        // The image server is on the host's own loopback, at the end of a link.
        "imageSources": {"allowLoopback": true, "fileRoots": ["/var/lib/holdfast-files"], "stallTimeoutSeconds": 10},
        "reserved": {"memory": "64Mi", "storage": "64Mi"},
        // What the stories' networks name.
        "subnetPools": ["10.64.0.0/10"],
        "bridges": [
            {"name": "br-plant"},
            {"name": "br-late"},
            {"name": "br-trunk", "vlans": ["untagged", 120]},
            {"name": "hf-prop"},
        ],
        // Stories put images onto small filesystems, of which the default would be a quarter.
        "imageCache": {"budget": "4Gi"},
    });
    files::create_folder(&host.outside("/var/lib/holdfast-files"))?;
    let text = serde_json::to_string_pretty(&node).context("could not write JSON")?;
    let file = folder.join("node.yaml");
    // A story or a user may have changed it for good reason.
    if file.exists() { Ok(()) } else { files::write(&file, text) }
}

fn serial_logs(state: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(state).into_iter().flatten().filter_map(Result::ok);
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(serial_logs(&path));
        } else if path.to_string_lossy().contains("serial") && path.extension().is_some_and(|it| it == "log")
        {
            found.push(path);
        }
    }
    found
}
