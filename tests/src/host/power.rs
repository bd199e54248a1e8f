//! Power on = a thread in fresh namespaces and the host's first process; power off = the end of both.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, Uid};

use super::devices::Devices;
use crate::process::{Process, tail};
use crate::spawner::Spawner;
use crate::{files, peer};

/// The first process mounts its namespace's own `/proc`, brings up loopback, and from then on only reaps:
/// bash collects every child that is handed to it, which a libvirtd that died hands over many of.
const INIT: &str =
    "mount -t proc proc /proc && ip link set lo up && touch /run/booted || exit; sleep infinity & wait";
/// A boot takes tens of milliseconds.
const BOOT_LIMIT: Duration = Duration::from_secs(10);
/// QEMU with gigabytes of memory takes a moment to be torn down.
const END_LIMIT: Duration = Duration::from_secs(20);

/// A host under power.
pub(super) struct Power {
    init: Process,
    // After `init`, whose parent is this thread.
    spawner: Spawner,
}

impl Power {
    /// Empties `/run`, enters namespaces and starts the first process.
    pub(super) fn on(folder: &Path, name: &str) -> Result<Self> {
        prepare_folders(folder)?;
        files::write(
            &folder.join("hosts"),
            format!("127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost\n"),
        )?;
        let (place, host_name) = (folder.to_owned(), name.to_owned());
        let devices = Devices::choose();
        let spawner = Spawner::start(&format!("host {name}"), move || enter(&place, &host_name, devices))?;
        let mut command = peer::mortal("bash");
        command.args(["-c", INIT]);
        let mut init = Process::start(&spawner, "init", command, &folder.join("logs/init.log"))?;
        wait_booted(folder, &mut init)?;
        files::write(&folder.join("init.pid"), init.pid().to_string())?;
        Ok(Self { init, spawner })
    }

    /// The thread that starts processes in the host.
    pub(super) fn spawner(&self) -> &Spawner {
        &self.spawner
    }

    /// The first process, as seen from outside.
    pub(super) fn init_pid(&self) -> Pid {
        self.init.pid()
    }
}

impl Drop for Power {
    fn drop(&mut self) {
        // The kernel kills the whole PID namespace with its first process and lets that end last.
        self.init.signal(nix::sys::signal::Signal::SIGKILL);
        if self.init.wait(END_LIMIT).is_none() {
            tracing::warn!(pid = %self.init.pid(), "processes of a host did not end in time");
        }
    }
}

/// Namespaces, mounts and network need root; says so before anything is half done.
pub(super) fn require_root() -> Result<()> {
    if !Uid::effective().is_root() {
        bail!("simulated hosts need root, for namespaces and mounts; run this as root");
    }
    Ok(())
}

fn prepare_folders(folder: &Path) -> Result<()> {
    for name in [
        "run",
        "logs",
        "etc-libvirt",
        "var/lib/libvirt",
        "var/lib/holdfast",
        "var/log",
        "var/cache/libvirt",
        "var/tmp",
    ] {
        files::create_folder(&folder.join(name))?;
    }
    passable(&folder.join("var/lib/libvirt/qemu"))?;
    files::empty_folder(&folder.join("run"))?;
    for name in ["run/lock", "run/libvirt"] {
        files::create_folder(&folder.join(name))?;
    }
    for (link, target) in [("var/run", "/run"), ("var/lock", "/run/lock")] {
        let link = folder.join(link);
        if !link.is_symlink() {
            symlink(target, &link).with_context(|| format!("could not link {}", link.display()))?;
        }
    }
    // What libvirt probes about QEMU takes seconds, is the same for all hosts, and is checked by libvirt before use.
    files::create_folder(&shared_cache())
}

/// As Debian makes it and our package opens it to guests' users: no listing for others.
fn passable(folder: &Path) -> Result<()> {
    files::create_folder(folder)?;
    let mode = fs::Permissions::from_mode(0o751);
    fs::set_permissions(folder, mode).with_context(|| format!("could not open {}", folder.display()))
}

fn shared_cache() -> std::path::PathBuf {
    peer::cache().join("libvirt")
}

/// Runs on the host's thread: from here on, the thread and all it starts are in the host.
fn enter(folder: &Path, name: &str, devices: Devices) -> Result<()> {
    let own = CloneFlags::CLONE_FS
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    unshare(own).context("could not make namespaces; is this root with CAP_SYS_ADMIN?")?;
    fs::write("/proc/sys/kernel/hostname", name).context("could not set the host name")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("could not make mounts private")?;
    // The machine's cgroups go with its /sys: hosts would share them, and libvirt does without where there are none.
    umount2("/sys", MntFlags::MNT_DETACH).context("could not leave the machine's /sys")?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)
        .context("could not mount /sys")?;
    // A name that DNS must be asked for costs libvirt seconds wherever it wants its own.
    bind(&folder.join("hosts"), Path::new("/etc/hosts"))?;
    devices.mount(folder)?;
    bind(&shared_cache(), &folder.join("var/cache/libvirt"))?;
    bind(&folder.join("etc-libvirt"), Path::new("/etc/libvirt"))?;
    // Last, since the folder itself may lie below one of them.
    bind(&folder.join("run"), Path::new("/run"))?;
    bind(&folder.join("var"), Path::new("/var"))
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("could not bind {} to {}", from.display(), to.display()))
}

fn wait_booted(folder: &Path, init: &mut Process) -> Result<()> {
    let start = std::time::Instant::now();
    while !folder.join("run/booted").exists() {
        init.must_run()?;
        if start.elapsed() > BOOT_LIMIT {
            bail!("the first process did not come up\n{}", tail(init.log()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
