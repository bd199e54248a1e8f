//! A simulated host: its own mounts, network, processes and name on this machine, with a real libvirtd inside.
//!
//! ```text
//! <folder>/run           -> /run           emptied at each boot
//! <folder>/var           -> /var           its disks; survives a boot
//! <folder>/etc-libvirt   -> /etc/libvirt
//! <folder>/logs             what its processes print (not visible inside)
//! <folder>/init.pid         the host's first process; the host is up while it lives
//! ```
//!
//! The rest of the file system is the machine's own. Sockets below `<folder>/run` are reachable from outside, the
//! host's network is not: a [`Link`] is its only way out, and guests are reached by entering the network namespace.

mod devices;
mod libvirt;
mod power;

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::link::Link;
use crate::peer;
use crate::process::{self, Process};
use power::Power;

pub use libvirt::Libvirtd;

/// A host that is up or down. Dropping it cuts its power and keeps its folder.
pub struct Host {
    name: String,
    folder: PathBuf,
    bridges: Vec<String>,
    links: Vec<Arc<Link>>,
    /// Processes beyond libvirt's that run in the host, such as the node daemon. Before `power`, so that they are
    /// reaped first: a PID namespace ends only when each of its members has been.
    processes: Vec<Process>,
    libvirtd: Option<Libvirtd>,
    power: Option<Power>,
}

impl Host {
    /// Makes a host in `folder` (a short path: it holds Unix sockets), or finds the one that was there, and boots it.
    pub fn start(folder: &Path, name: &str) -> Result<Self> {
        power::require_root()?;
        libvirt::write_configuration(folder)?;
        let mut host = Self {
            name: name.to_owned(),
            folder: folder.to_owned(),
            bridges: Vec::new(),
            links: Vec::new(),
            processes: Vec::new(),
            libvirtd: None,
            power: None,
        };
        host.boot()?;
        Ok(host)
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder with everything it keeps.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A path inside the host below `/run` or `/var`, as seen from outside.
    pub fn outside(&self, inside: &str) -> PathBuf {
        self.folder.join(inside.trim_start_matches('/'))
    }

    /// Cuts the power: every process of the host dies at once. What lay in `/run` is gone after the next boot.
    pub fn power_off(&mut self) {
        self.processes.clear();
        self.libvirtd = None;
        self.power = None;
    }

    /// Boots a host that is off: empty `/run`, network as configured, libvirtd. The node daemon is started by whoever
    /// started it before.
    pub fn boot(&mut self) -> Result<()> {
        let power =
            Power::on(&self.folder, &self.name).with_context(|| format!("could not boot {}", self.name))?;
        self.power = Some(power);
        for bridge in self.bridges.clone() {
            self.create_bridge(&bridge)?;
        }
        for link in &self.links {
            link.listen(self.power()?.spawner())?;
        }
        self.libvirtd = Some(Libvirtd::start(self.power()?.spawner(), &self.folder)?);
        Ok(())
    }

    /// Power cut and boot.
    pub fn reboot(&mut self) -> Result<()> {
        self.power_off();
        self.boot()
    }

    /// The host's libvirtd.
    pub fn libvirtd(&mut self) -> Result<&mut Libvirtd> {
        self.libvirtd.as_mut().with_context(|| format!("{} is powered off", self.name))
    }

    /// Adds an Ethernet bridge, now and at every boot.
    pub fn add_bridge(&mut self, bridge: &str) -> Result<()> {
        self.create_bridge(bridge)?;
        self.bridges.push(bridge.to_owned());
        Ok(())
    }

    /// Listens on a free loopback port of the host.
    pub fn listen(&self) -> Result<TcpListener> {
        // A socket belongs to the network of the thread that makes it.
        let listener = self.power()?.spawner().run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        listener.with_context(|| format!("could not listen in {}", self.name))
    }

    /// Opens a relay from a loopback port of the host to `outside` (`host:port`), now and at every boot.
    pub fn add_link(&mut self, inside: u16, outside: &str) -> Result<Arc<Link>> {
        let link = Arc::new(Link::new(inside, outside));
        link.listen(self.power()?.spawner())?;
        self.links.push(Arc::clone(&link));
        Ok(link)
    }

    /// Starts a long-running process in the host, logged to `logs/<name>.log`, and keeps it.
    pub fn start_process(&mut self, name: &str, command: Command) -> Result<()> {
        let log = self.folder.join(format!("logs/{name}.log"));
        let process = Process::start(self.power()?.spawner(), name, command, &log)?;
        self.processes.retain(|other| other.name() != name);
        self.processes.push(process);
        Ok(())
    }

    /// A process started by [`start_process`](Self::start_process).
    pub fn process(&mut self, name: &str) -> Result<&mut Process> {
        let found = self.processes.iter_mut().find(|process| process.name() == name);
        found.with_context(|| format!("{} runs no {name}", self.name))
    }

    /// Forgets a process, which ends it.
    pub fn end_process(&mut self, name: &str) {
        self.processes.retain(|process| process.name() != name);
    }

    /// Runs a command in the host to its end.
    pub fn output(&self, words: &[&str]) -> Result<Output> {
        let Some((program, arguments)) = words.split_first() else {
            bail!("no command to run in {}", self.name)
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.power()?.spawner().spawn(command)?;
        child.wait_with_output().with_context(|| format!("could not wait for {program} in {}", self.name))
    }

    /// Runs a command in the host that must succeed; returns what it printed.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.output(words)?;
        if !output.status.success() {
            bail!("{words:?} in {} failed: {}", self.name, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `virsh` against the host's libvirtd.
    pub fn virsh(&self, words: &[&str]) -> Result<String> {
        self.run(&[&["virsh", "--quiet", "--connect", "qemu:///system"], words].concat())
    }

    /// A command that enters the host's network from outside and then becomes `program`.
    pub fn in_network(&self, program: &str) -> Result<Command> {
        let mut command = peer::mortal("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.power()?.init_pid())).args(["--", program]);
        Ok(command)
    }

    /// The end of each log of the host, for a failure's message.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.folder.join("logs")).into_iter().flatten().filter_map(Result::ok)
        {
            let log = entry.path();
            text.push_str(&process::heading(&format!("{} {}", self.name, log.display()), &log));
        }
        text
    }

    fn create_bridge(&self, bridge: &str) -> Result<()> {
        self.run(&["ip", "link", "add", bridge, "type", "bridge"])?;
        self.run(&["ip", "link", "set", bridge, "up"]).map(drop)
    }

    fn power(&self) -> Result<&Power> {
        self.power.as_ref().with_context(|| format!("{} is powered off", self.name))
    }
}
