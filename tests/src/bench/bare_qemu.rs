//! QEMU alone with the devices our domains have: the floor below libvirt and us.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::peer;
use crate::site::Accelerator;
use crate::spawner::Spawner;

const READY: Duration = Duration::from_secs(30);

/// A guest of its own, ended when dropped.
pub(super) struct BareQemu {
    child: Child,
    socket: tempfile::TempDir,
}

impl Drop for BareQemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl BareQemu {
    /// Starts it frozen, as libvirt does, with the processor our domains have. It ends with this process.
    pub(super) fn spawn(disk: &Path, accelerator: Accelerator) -> Result<Self> {
        Self::become_of(peer::mortal(program()?), disk, accelerator)
    }

    fn become_of(mut command: Command, disk: &Path, accelerator: Accelerator) -> Result<Self> {
        let socket = tempfile::tempdir().context("could not make a folder")?;
        let monitor = format!("unix:{}/qmp,server=on,wait=off", socket.path().display());
        let drive = format!("file={},if=none,id=root,format=qcow2,cache=none,aio=threads", disk.display());
        let cpu = match accelerator {
            Accelerator::Kvm => "host",
            Accelerator::Tcg => "qemu64,cx16=off",
        };
        command
            .args(["-S", "-machine", "q35,usb=off", "-accel", accelerator.word(), "-cpu", cpu])
            .args(["-m", "128", "-smp", "1"])
            .args(["-display", "none", "-no-user-config", "-nodefaults", "-sandbox", "on", "-qmp", &monitor])
            .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=root,bootindex=1"])
            .args(["-netdev", "user,id=lan", "-device", "virtio-net-pci,netdev=lan"])
            .args(["-device", "virtio-rng-pci", "-device", "virtio-balloon-pci", "-serial", "null"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(Self { child: Spawner::machine()?.spawn(command)?, socket })
    }

    /// Lets it run; returns once QEMU says so.
    pub(super) fn resume(&self) -> Result<()> {
        let begun = Instant::now();
        let mut stream = loop {
            match UnixStream::connect(self.socket.path().join("qmp")) {
                Ok(stream) => break stream,
                Err(_) if begun.elapsed() < READY => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => return Err(error).context("QEMU opened no monitor"),
            }
        };
        stream.set_read_timeout(Some(READY)).context("could not set a limit")?;
        let mut lines = BufReader::new(stream.try_clone().context("could not read the monitor")?).lines();
        stream
            .write_all(b"{\"execute\":\"qmp_capabilities\"}{\"execute\":\"cont\"}\n")
            .context("could not ask")?;
        loop {
            match lines.next() {
                Some(Ok(line)) if line.contains("\"RESUME\"") => return Ok(()),
                Some(Ok(_)) => {}
                _ => bail!("QEMU ended before it ran"),
            }
        }
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

fn program() -> Result<PathBuf> {
    peer::packaged("qemu-system-x86_64", "qemu-system-x86")
}

/// Milliseconds from nothing to a running guest.
pub(super) fn start(disk: &Path, accelerator: Accelerator) -> Result<f64> {
    // Not mortal: what sees to that costs a millisecond, and the limit is to have its best setup.
    let command = Command::new(program()?);
    let begun = Instant::now();
    let qemu = BareQemu::become_of(command, disk, accelerator)?;
    qemu.resume()?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}
