//! The folder of one virtual machine: every path of it comes from here.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::durable;
use crate::image::Format;
use crate::libvirt::domain_xml::User;
use crate::storage;

/// `<stateDir>/vms/<uid>`; the name is the UID, so an object that comes back with another UID never meets old files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VmDir(PathBuf);

impl VmDir {
    /// The folder of this virtual machine below the daemon's state folder.
    pub(crate) fn new(state: &Path, uid: Uuid) -> Self {
        Self(all(state).join(uid.to_string()))
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the folder: QEMU, which has a user of its own, may reach what it is told of, and list nothing.
    pub(crate) fn make(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&self.0)?;
        fs::set_permissions(&self.0, fs::Permissions::from_mode(0o711))?;
        durable::sync_parent(&self.0)
    }

    /// Gives the user of the guest's QEMU its files, for it alone: disks, seed and UEFI variables. The folder and the serial
    /// log stay root's. While the guest is off.
    pub(crate) fn hand_to(&self, user: User) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            if is_of_the_guest(&entry.file_name()) {
                // By what is opened, and a link is not: whoever planted one must not choose what is given away.
                let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
                let file = OpenOptions::new().read(true).custom_flags(flags).open(entry.path())?;
                fchown(&file, Some(user.uid), Some(user.gid))?;
                file.set_permissions(fs::Permissions::from_mode(0o600))?;
            }
        }
        Ok(())
    }

    /// Removes the folder and all in it; one that is not there is fine.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => durable::sync_parent(&self.0),
        }
    }

    /// A disk made from an image (qcow2) or a blank one (raw). Names are checked by `Desired`.
    pub(crate) fn disk(&self, name: &str, kind: DiskKind) -> PathBuf {
        match kind {
            DiskKind::Overlay => self.0.join(format!("disk-{name}.qcow2")),
            DiskKind::Blank => self.0.join(format!("disk-{name}.raw")),
        }
    }

    /// The `NoCloud` seed.
    pub(crate) fn seed(&self) -> PathBuf {
        self.0.join("seed.img")
    }

    /// The UEFI variables.
    pub(crate) fn nvram(&self) -> PathBuf {
        self.0.join("nvram.fd")
    }

    /// What the guest wrote to its serial console.
    pub(crate) fn serial_log(&self) -> PathBuf {
        self.0.join("serial.log")
    }
}

/// What a disk is made of decides its format, once and for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskKind {
    /// qcow2 over an image.
    Overlay,
    /// Raw.
    Blank,
}

impl DiskKind {
    /// The format of such a disk.
    pub(crate) fn format(self) -> Format {
        match self {
            Self::Overlay => Format::Qcow2,
            Self::Blank => Format::Raw,
        }
    }
}

/// The folder that holds the folders of all virtual machines.
pub(crate) fn all(state: &Path) -> PathBuf {
    state.join("vms")
}

/// Bytes that the files in this virtual machine's folder hold or promise; what cannot be read counts as nothing.
pub(crate) fn bytes(state: &Path, uid: Uuid) -> u64 {
    let files = fs::read_dir(VmDir::new(state, uid).path()).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).fold(0, u64::saturating_add)
}

/// Bytes that the files of this virtual machine take on the disk by now; what cannot be read counts as nothing.
pub(crate) fn allocated(state: &Path, uid: Uuid) -> u64 {
    let folder = VmDir::new(state, uid).0;
    fs::metadata(&folder).map_or(0, |found| storage::allocated(&folder, found.dev()))
}

fn is_of_the_guest(name: &OsStr) -> bool {
    name == "seed.img" || name == "nvram.fd" || name.as_encoded_bytes().starts_with(b"disk-")
}

/// User ids that files in the folders of all virtual machines but this one belong to.
pub(crate) fn owners(state: &Path, except: Uuid) -> io::Result<BTreeSet<u32>> {
    let mut owners = BTreeSet::new();
    for uid in uids(state)?.into_iter().filter(|uid| *uid != except) {
        // One that vanishes meanwhile belongs to nobody.
        let files = fs::read_dir(VmDir::new(state, uid).path()).into_iter().flatten().flatten();
        owners.extend(files.filter_map(|file| Some(file.metadata().ok()?.uid())));
    }
    Ok(owners)
}

/// UIDs of all folders there; anything else in it is left alone.
pub(crate) fn uids(state: &Path) -> io::Result<Vec<Uuid>> {
    let entries = match fs::read_dir(all(state)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let uid = |entry: io::Result<fs::DirEntry>| {
        entry.map(|entry| entry.file_name().to_str()?.parse().ok()).transpose()
    };
    entries.filter_map(uid).collect()
}
