//! Whom a guest's QEMU runs as: a user id that no other virtual machine of the node has, so that a guest which broke out of
//! its QEMU finds the files and processes of the others closed.
//!
//! The world remembers who has which: the record of each domain, and the owners of the files in each folder, which outlive
//! their domain when a removal is cut short. A virtual machine keeps its id as long as it is defined; one that has none yet
//! gets the first free one from a place that its UID decides. The group is that of `/dev/kvm`, so that QEMU may open it.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use super::observed::{Domain, Obstacle};
use super::{dir, observe};
use crate::config::GuestUids;
use crate::libvirt::domain_xml::{Accelerator, User};
use crate::libvirt::{self, Libvirt};

const KVM: &str = "/dev/kvm";
/// Where the system's libvirt keeps what each QEMU reads at its start. Debian lets in one group alone, which no guest's
/// user is in; our package lets through who knows a path (`deploy/deb/postinst`).
const LIBVIRT_FOLDER: &str = "/var/lib/libvirt/qemu";
/// The connection whose libvirt uses that folder.
const SYSTEM: &str = "qemu:///system";

/// Chooses guests' users, one at a time.
pub(crate) struct GuestUsers {
    uids: GuestUids,
    /// Below it lie the folders of virtual machines and the images.
    state: PathBuf,
    accelerator: Accelerator,
    /// Folders outside of ours that QEMU has to pass.
    passed: &'static [&'static str],
    turn: Mutex<()>,
}

impl GuestUsers {
    /// For the virtual machines whose folders lie in `state`.
    pub(crate) fn new(uids: GuestUids, state: &Path, accelerator: Accelerator, libvirt_uri: &str) -> Self {
        let passed: &[_] = if libvirt_uri == SYSTEM { &[LIBVIRT_FOLDER] } else { &[] };
        Self { uids, state: state.to_owned(), accelerator, passed, turn: Mutex::new(()) }
    }

    /// To be held from the choice until the domain remembers it, or two would choose the same.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// The user of this virtual machine, who had `before` at its last start.
    pub(crate) async fn choose(
        &self,
        libvirt: &Libvirt,
        vm: Uuid,
        before: Option<u32>,
    ) -> Result<User, Obstacle> {
        let domains = libvirt.domains().await.map_err(|error| super::execute::libvirt_obstacle(&error))?;
        let mut taken: BTreeSet<u32> = domains.iter().filter(|one| one.uuid != vm).filter_map(uid).collect();
        taken.extend(dir::owners(&self.state, vm).map_err(|error| unreadable(&error))?);
        let Some(uid) = free(self.uids, vm, before, &taken) else { return Err(used_up(self.uids)) };
        let kvm = std::fs::metadata(KVM);
        let user = User { uid, gid: kvm.as_ref().map_or(uid, |kvm| group(kvm.gid(), uid)) };
        if let Ok(kvm) = &kvm
            && self.accelerator == Accelerator::Kvm
            && !may(user, kvm, 0o6)
        {
            return Err(kvm_denied());
        }
        let mut passed = self.passed.iter().map(Path::new).chain([self.state.as_path()]);
        passed.try_for_each(|folder| passable(user, folder))?;
        Ok(user)
    }
}

/// The id in the record of a domain of ours.
fn uid(domain: &libvirt::Domain) -> Option<u32> {
    match observe::read(domain) {
        Domain::Ours { record, .. } => record.guest_uid,
        Domain::Absent | Domain::Foreign => None,
    }
}

/// The former id where it is still in the range and nobody else's, or the first free one.
fn free(uids: GuestUids, vm: Uuid, before: Option<u32>, taken: &BTreeSet<u32>) -> Option<u32> {
    let kept = before.filter(|uid| uids.contains(*uid));
    kept.into_iter().chain(uids.beginning_at(vm.as_u128())).find(|uid| !taken.contains(uid))
}

/// The group of the device, but never root's: what belongs to that is not for guests.
fn group(device: u32, uid: u32) -> u32 {
    if device == 0 { uid } else { device }
}

/// Whether this user has these rights (as in an octal mode) on a file that is not its own.
fn may(user: User, file: &Metadata, rights: u32) -> bool {
    let granted = if file.gid() == user.gid { file.mode() >> 3 } else { file.mode() };
    granted & rights == rights
}

/// Whether this user may pass a folder and those above it; one that is not there yet is made passable by its owner.
fn passable(user: User, folder: &Path) -> Result<(), Obstacle> {
    let closed = |folder: &&Path| std::fs::metadata(folder).is_ok_and(|folder| !may(user, &folder, 0o1));
    folder.ancestors().find(closed).map_or(Ok(()), |closed| Err(shut_out(closed)))
}

fn used_up(uids: GuestUids) -> Obstacle {
    Obstacle::later(
        "GuestUidsUsedUp",
        format!(
            "each of the {} user ids for guests belongs to another virtual machine of the node: widen guestUids in its configuration, or delete virtual machines",
            uids.count()
        ),
    )
}

fn kvm_denied() -> Obstacle {
    Obstacle::later(
        "GuestUserShutOut",
        format!(
            "guests may not open {KVM}: give it to a group of its own with mode 0660, as Debian's udev rules do with the group kvm"
        ),
    )
}

fn shut_out(folder: &Path) -> Obstacle {
    let folder = folder.display();
    Obstacle::later(
        "GuestUserShutOut",
        format!("guests' QEMU may not pass the folder {folder}: run chmod o+x {folder} on the node"),
    )
}

fn unreadable(error: &io::Error) -> Obstacle {
    Obstacle::later(
        "StorageFailed",
        format!(
            "could not read whom the files of virtual machines belong to: {error}; the node tries again by itself"
        ),
    )
}

#[cfg(test)]
#[path = "guest_user_tests.rs"]
mod tests;
