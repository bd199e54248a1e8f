//! libvirtd and virtlogd of a simulated host.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::unistd::Pid;

use crate::process::{Process, tail};
use crate::spawner::Spawner;
use crate::{files, peer};

/// The first start on a machine probes QEMU, seconds on a busy one.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// libvirtd leaves guests alone when it ends and needs no long grace.
const STOP_GRACE: Duration = Duration::from_secs(10);

const LIBVIRTD_CONF: &str =
    "unix_sock_dir = \"/run/libvirt\"\nauth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n";
/// The machine's security modules and cgroups are not the host's to use; DAC isolation stays as it is in production.
const QEMU_CONF: &str = "security_driver = \"none\"\ncgroup_controllers = [ ]\nstdio_handler = \"logd\"\n";
const DEFAULT_NETWORK: &str = "\
<network>
  <name>default</name>
  <forward mode='nat'/>
  <bridge name='virbr0' stp='on' delay='0'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp>
  </ip>
</network>
";

/// libvirt as it runs in a host: libvirtd, which may be stopped and killed, beside virtlogd, which stays.
pub struct Libvirtd {
    folder: PathBuf,
    daemon: Option<Process>,
    virtlogd: Process,
}

impl Libvirtd {
    pub(super) fn start(spawner: &Spawner, folder: &Path) -> Result<Self> {
        let virtlogd = peer::mortal(peer::packaged("virtlogd", "libvirt-daemon")?);
        let virtlogd = Process::start(spawner, "virtlogd", virtlogd, &folder.join("logs/virtlogd.log"))?;
        let mut libvirtd = Self { folder: folder.to_owned(), daemon: None, virtlogd };
        libvirtd.launch(spawner)?;
        Ok(libvirtd)
    }

    /// libvirtd's process id as seen from outside; none while it is stopped.
    pub fn pid(&self) -> Option<Pid> {
        self.daemon.as_ref().map(Process::pid)
    }

    /// virtlogd's process id as seen from outside.
    pub fn virtlogd_pid(&self) -> Pid {
        self.virtlogd.pid()
    }

    /// Asks libvirtd to end. Guests run on.
    pub fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.stop(STOP_GRACE);
        }
    }

    /// Kills libvirtd as a crash would. Guests run on.
    pub fn kill_9(&mut self) {
        self.daemon = None;
    }

    /// Starts libvirtd again and waits until it answers.
    pub(super) fn launch(&mut self, spawner: &Spawner) -> Result<()> {
        let mut command = peer::mortal(peer::packaged("libvirtd", "libvirt-daemon-system")?);
        command.args(["-f", "/etc/libvirt/libvirtd.conf"]);
        let log = self.folder.join("logs/libvirtd.log");
        let daemon = self.daemon.insert(Process::start(spawner, "libvirtd", command, &log)?);
        wait_answer(spawner, daemon)
    }
}

impl super::Host {
    /// Starts a stopped or killed libvirtd again and waits until it answers; returns how long that took.
    pub fn start_libvirtd(&mut self) -> Result<Duration> {
        let start = Instant::now();
        let power = self.power.as_ref().with_context(|| format!("{} is powered off", self.name))?;
        let libvirtd = self.libvirtd.as_mut().with_context(|| format!("{} is powered off", self.name))?;
        libvirtd.launch(power.spawner())?;
        Ok(start.elapsed())
    }
}

/// Writes `/etc/libvirt` of a host that has none yet.
pub(super) fn write_configuration(folder: &Path) -> Result<()> {
    let etc = folder.join("etc-libvirt");
    let networks = etc.join("qemu/networks");
    if networks.exists() {
        return Ok(());
    }
    files::create_folder(&networks)?;
    files::write(&etc.join("libvirtd.conf"), LIBVIRTD_CONF)?;
    files::write(&etc.join("qemu.conf"), qemu_conf())?;
    files::write(&networks.join("default.xml"), DEFAULT_NETWORK)
}

/// libvirt probes QEMU with a right that opens any device, then asks whether QEMU's user may open `/dev/kvm`. Where the
/// two differ it takes its cache of capabilities for stale and probes again at every look: tens of seconds a define.
/// So QEMU runs in the group that owns the device, which the distribution's rules would have made `kvm`.
fn qemu_conf() -> String {
    let owner = std::fs::metadata("/dev/kvm").map(|device| device.gid());
    owner.map_or_else(|_| QEMU_CONF.to_owned(), |group| format!("{QEMU_CONF}group = \"+{group}\"\n"))
}

fn wait_answer(spawner: &Spawner, daemon: &mut Process) -> Result<()> {
    let start = Instant::now();
    let virsh = peer::packaged("virsh", "libvirt-clients")?;
    loop {
        daemon.must_run()?;
        let mut probe = Command::new(&virsh);
        probe.args(["--connect", "qemu:///system", "list"]);
        probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if spawner.spawn(probe)?.wait().context("could not wait for virsh")?.success() {
            return Ok(());
        }
        if start.elapsed() > READY_LIMIT {
            bail!("libvirtd does not answer\n{}", tail(daemon.log()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
