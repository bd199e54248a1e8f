//! The host and the virtual machine that tests with libvirt's own driver use again and again.

use uuid::Uuid;

use super::domain_xml::{Accelerator, Arch, Disk, DomainSpec, Firmware, Format, Interface, Source, User};

/// A node file: a host with nothing on it. Each test writes its own, since `test:///default` is one object per process.
pub(crate) const EMPTY_HOST: &str = "<node><cpu><mhz>2000</mhz><model>x86_64</model><active>8</active><nodes>1</nodes>\
    <sockets>1</sockets><cores>8</cores><threads>1</threads></cpu><memory>16777216</memory></node>";

/// Two disks, two interfaces, UEFI under KVM.
pub(crate) fn web() -> DomainSpec {
    DomainSpec {
        uuid: Uuid::from_u128(0x3f29_1c44_6a1b_4a53_9d0e_5b8d_7c2a_9e10),
        name: "shop.web-3f291c44".into(),
        title: "shop/web".into(),
        record: r#"{"generation":3,"note":"a < b & c"}"#.into(),
        accelerator: Accelerator::Kvm,
        arch: Arch::X86_64,
        cpu: 2,
        memory_mib: 2048,
        firmware: Firmware::Uefi { nvram: "/var/lib/holdfast/vms/3f29/nvram.fd".into() },
        disks: vec![overlay(), blank()],
        seed: "/var/lib/holdfast/vms/3f29/seed.img".into(),
        interfaces: vec![
            card("lan", "52:54:00:3f:29:01", "hf3f291c44-0", Source::Network("shop.default".into())),
            card("plant", "52:54:00:3f:29:02", "hf3f291c44-1", Source::Bridge("br0".into())),
        ],
        serial_log: "/var/lib/holdfast/vms/3f29/serial.log".into(),
        user: User { uid: 2_100_000_007, gid: 107 },
    }
}

fn overlay() -> Disk {
    Disk {
        name: "root".into(),
        path: "/var/lib/holdfast/vms/3f29/root.qcow2".into(),
        format: Format::Qcow2,
        backing: Some(("/var/lib/holdfast/images/sha256-ab12".into(), Format::Qcow2)),
    }
}

fn blank() -> Disk {
    let path = "/var/lib/holdfast/vms/3f29/data.raw".into();
    Disk { name: "data".into(), path, format: Format::Raw, backing: None }
}

fn card(name: &str, mac: &str, device: &str, source: Source) -> Interface {
    Interface { name: name.into(), mac: mac.into(), target_dev: device.into(), source }
}
