//! Who gets which user, and what the user may open on a real file system. Run as root, as the daemon is.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use proptest::prelude::*;

use super::*;

fn range(first: u32, count: u32) -> GuestUids {
    serde_json::from_value(serde_json::json!({"first": first, "count": count})).unwrap()
}

proptest! {
    #[test]
    fn every_machine_has_a_user_of_its_own_and_keeps_it(machines in prop::collection::btree_set(any::<u128>(), 1..40), spare in 0_u32..3) {
        let machines: Vec<Uuid> = machines.into_iter().map(Uuid::from_u128).collect();
        let uids = range(100_000, u32::try_from(machines.len()).unwrap() + spare);
        let mut users: BTreeMap<Uuid, u32> = BTreeMap::new();
        // Twice: the second time as at a further start.
        for vm in machines.iter().chain(&machines) {
            let before = users.remove(vm);
            let taken = users.values().copied().collect();
            let uid = free(uids, *vm, before, &taken).unwrap();
            prop_assert!(uids.contains(uid) && !taken.contains(&uid));
            prop_assert!(before.is_none_or(|before| before == uid));
            users.insert(*vm, uid);
        }
    }
}

#[test]
fn a_range_that_is_used_up_gives_nobody_a_second_hand_user() {
    let (uids, vm) = (range(100_000, 2), Uuid::from_u128(7));
    assert_eq!(free(uids, vm, None, &[100_000, 100_001].into()), None);
    assert_eq!(free(uids, vm, None, &[100_001].into()), Some(100_000));
    assert!(used_up(uids).message.contains("each of the 2 user ids"));
}

#[test]
fn a_new_range_and_a_user_that_another_machine_has_too_change_the_user() {
    let (uids, vm) = (range(100_000, 10), Uuid::from_u128(0));
    assert_eq!(free(uids, vm, Some(100_003), &BTreeSet::new()), Some(100_003));
    assert_eq!(free(uids, vm, Some(99_999), &BTreeSet::new()), Some(100_000));
    assert_eq!(free(uids, vm, Some(100_003), &[100_003].into()), Some(100_000));
}

/// Whether a process of this user can open the file for reading and writing.
fn opens(user: User, file: &Path) -> bool {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "exec 3<>\"$0\""]).arg(file).uid(user.uid).gid(user.gid);
    shell.stderr(std::process::Stdio::null()).status().unwrap().success()
}

#[test]
fn a_guest_opens_kvm_by_its_label_where_the_bare_uid_cannot() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
    // As udev makes it on Debian, whoever owns this machine's own.
    let device = folder.path().join("kvm");
    let number = fs::metadata(KVM).map_or(makedev(10, 232), |kvm| kvm.rdev());
    mknod(&device, SFlag::S_IFCHR, Mode::empty(), number).expect("peer missing: root rights");
    fs::set_permissions(&device, Permissions::from_mode(0o660)).unwrap();
    let kvm = nix::unistd::Group::from_name("kvm").unwrap().expect("peer missing: qemu-system-x86");
    chown(&device, Some(0), Some(kvm.gid.as_raw())).unwrap();

    let metadata = fs::metadata(&device).unwrap();
    let uid = 2_100_000_007;
    let (label, bare) = (User { uid, gid: group(metadata.gid(), uid) }, User { uid, gid: uid });
    assert!(may(label, &metadata, 0o6) && opens(label, &device));
    assert!(!may(bare, &metadata, 0o6) && !opens(bare, &device));

    let spec = crate::libvirt::domain_xml::DomainSpec { user: label, ..crate::libvirt::samples::web() };
    let xml = crate::libvirt::domain_xml::to_xml(&spec).unwrap();
    assert!(xml.contains(&format!("<label>+{uid}:+{}</label>", kvm.gid)), "{xml}");
}

#[test]
fn the_group_of_root_is_for_no_guest() {
    assert_eq!((group(107, 5), group(0, 5)), (107, 5));
}

#[test]
fn a_folder_that_guests_cannot_pass_is_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let (user, inner) = (User { uid: 2_100_000_007, gid: 107 }, folder.path().join("qemu"));
    fs::create_dir(&inner).unwrap();
    let open = |mode| fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
    open(0o711);
    fs::set_permissions(&inner, Permissions::from_mode(0o711)).unwrap();
    assert_eq!(passable(user, &inner), Ok(()));
    assert_eq!(passable(user, &inner.join("not-there-yet")), Ok(()));
    open(0o750);
    let refused = passable(user, &inner).unwrap_err();
    assert_eq!(refused.reason, "GuestUserShutOut");
    assert!(refused.message.contains(&format!("chmod o+x {}", folder.path().display())), "{refused:?}");
    chown(folder.path(), None, Some(user.gid)).unwrap();
    assert_eq!(passable(user, &inner), Ok(()), "the group may");
}

#[test]
fn the_files_of_a_machine_become_its_users_alone_and_the_serial_log_stays_roots() {
    let (state, uid) = (tempfile::tempdir().unwrap(), Uuid::from_u128(1));
    let vm = dir::VmDir::new(state.path(), uid);
    vm.make().unwrap();
    let own = [
        vm.disk("root", dir::DiskKind::Overlay),
        vm.disk("data", dir::DiskKind::Blank),
        vm.seed(),
        vm.nvram(),
    ];
    for file in own.iter().chain([&vm.serial_log()]) {
        File::create(file).unwrap().set_permissions(Permissions::from_mode(0o644)).unwrap();
    }
    let user = User { uid: 2_100_000_007, gid: 107 };
    for _ in 0..2 {
        vm.hand_to(user).unwrap();
        for file in &own {
            let file = fs::metadata(file).unwrap();
            assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (user.uid, user.gid, 0o600));
        }
        assert_eq!(fs::metadata(vm.serial_log()).unwrap().uid(), 0);
        assert_eq!(fs::metadata(vm.path()).unwrap().uid(), 0);
    }
    assert_eq!(dir::owners(state.path(), Uuid::from_u128(2)).unwrap(), [0, user.uid].into());
    assert_eq!(dir::owners(state.path(), uid).unwrap(), BTreeSet::new(), "its own do not count against it");
}

#[test]
fn a_link_in_the_place_of_a_disk_gives_nothing_away() {
    let (state, uid) = (tempfile::tempdir().unwrap(), Uuid::from_u128(1));
    let vm = dir::VmDir::new(state.path(), uid);
    vm.make().unwrap();
    let victim = state.path().join("shadow");
    File::create(&victim).unwrap();
    std::os::unix::fs::symlink(&victim, vm.disk("root", dir::DiskKind::Overlay)).unwrap();
    vm.hand_to(User { uid: 2_100_000_007, gid: 107 }).unwrap_err();
    assert_eq!(fs::metadata(&victim).unwrap().uid(), 0);
}
