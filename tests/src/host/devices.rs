//! The devices of a simulated host.
//!
//! Where KVM runs no guest, the host must not see `/dev/kvm` at all. libvirt believes the device, finds its cached
//! knowledge of QEMU at odds with it and probes QEMU again at every look: a define takes a minute, a restart of libvirtd
//! five seconds. There the host gets a `/dev` of its own; elsewhere it shares the machine's.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, mknod};

use crate::{files, kvm};

/// What libvirt, QEMU, dnsmasq and a shell open.
const NODES: [&str; 9] = ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "console", "net/tun"];
const LINKS: [(&str, &str); 4] =
    [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")];

/// Whose devices a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Devices {
    /// The machine's.
    Shared,
    /// A few of the machine's, `/dev/kvm` not among them.
    WithoutKvm,
}

impl Devices {
    /// By the proof of KVM; without one, the safe choice.
    pub(super) fn choose() -> Self {
        if kvm::is_proved() { Self::Shared } else { Self::WithoutKvm }
    }

    /// Mounts them; runs in the host's namespaces, on mounts that are private already.
    pub(super) fn mount(self, folder: &Path) -> Result<()> {
        match self {
            Self::Shared => Ok(()),
            Self::WithoutKvm => own_devices(&folder.join("dev")),
        }
    }
}

fn own_devices(place: &Path) -> Result<()> {
    files::create_folder(place)?;
    attach(Some("dev"), place, Some("tmpfs"), MsFlags::empty())?;
    for folder in ["pts", "shm", "net"] {
        files::create_folder(&place.join(folder))?;
    }
    NODES.iter().try_for_each(|name| copy_node(place, name))?;
    for (link, target) in LINKS {
        symlink(target, place.join(link)).with_context(|| format!("could not link /dev/{link}"))?;
    }
    attach(Some("/dev/pts"), &place.join("pts"), None, MsFlags::MS_BIND | MsFlags::MS_REC)?;
    attach(Some("shm"), &place.join("shm"), Some("tmpfs"), MsFlags::empty())?;
    // Gone before ours comes: libvirt moves every mount it finds listed below /dev, covered ones too, and fails at those.
    umount2("/dev", MntFlags::MNT_DETACH).context("could not leave the machine's /dev")?;
    attach(place.to_str(), Path::new("/dev"), None, MsFlags::MS_MOVE)
}

fn copy_node(place: &Path, name: &str) -> Result<()> {
    let (from, to) = (Path::new("/dev").join(name), place.join(name));
    // A container may lack a console; what is missing outside is missing inside.
    let Ok(node) = fs::metadata(&from) else { return Ok(()) };
    mknod(&to, SFlag::S_IFCHR, Mode::empty(), node.rdev())
        .and_then(|()| nix::unistd::chown(&to, Some(node.uid().into()), Some(node.gid().into())))
        .with_context(|| format!("could not make {}", to.display()))?;
    fs::set_permissions(&to, fs::Permissions::from_mode(node.mode() & 0o777))
        .with_context(|| format!("could not open {} to others", to.display()))
}

fn attach(from: Option<&str>, to: &Path, kind: Option<&str>, flags: MsFlags) -> Result<()> {
    mount(from, to, kind, flags, None::<&str>).with_context(|| format!("could not mount {}", to.display()))
}
