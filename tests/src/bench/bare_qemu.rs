//! QEMU alone with the devices our domains have: the floor below libvirt and us.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

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
    /// Starts it frozen, as libvirt does.
    pub(super) fn spawn(disk: &Path) -> Result<Self> {
        let socket = tempfile::tempdir().context("could not make a folder")?;
        let monitor = format!("unix:{}/qmp,server=on,wait=off", socket.path().display());
        let drive = format!("file={},if=none,id=root,format=qcow2,cache=none,aio=threads", disk.display());
        let child = Command::new("qemu-system-x86_64")
            .args([
                "-S",
                "-machine",
                "q35,usb=off",
                "-accel",
                "tcg",
                "-cpu",
                "qemu64",
                "-m",
                "128",
                "-smp",
                "1",
            ])
            .args(["-display", "none", "-no-user-config", "-nodefaults", "-sandbox", "on", "-qmp", &monitor])
            .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=root,bootindex=1"])
            .args(["-netdev", "user,id=lan", "-device", "virtio-net-pci,netdev=lan"])
            .args(["-device", "virtio-rng-pci", "-device", "virtio-balloon-pci", "-serial", "null"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("peer missing: qemu-system-x86")?;
        Ok(Self { child, socket })
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

/// Milliseconds from nothing to a running guest.
pub(super) fn start(disk: &Path) -> Result<f64> {
    let begun = Instant::now();
    let qemu = BareQemu::spawn(disk)?;
    qemu.resume()?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}
