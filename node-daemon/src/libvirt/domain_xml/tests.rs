//! Golden documents, refusals, and what libvirt's own parser makes of hostile text.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::libvirt::golden::pretty;
use crate::libvirt::samples::web;

#[test]
fn x86_under_kvm() {
    insta::assert_snapshot!("x86_64-kvm-uefi", pretty(&to_xml(&web()).unwrap()));
}

#[test]
fn x86_under_emulation() {
    let spec = DomainSpec { accelerator: Accelerator::Tcg, ..web() };
    insta::assert_snapshot!("x86_64-tcg-uefi", pretty(&to_xml(&spec).unwrap()));
}

#[test]
fn x86_with_bios() {
    let spec = DomainSpec { firmware: Firmware::Bios, ..web() };
    insta::assert_snapshot!("x86_64-kvm-bios", pretty(&to_xml(&spec).unwrap()));
}

#[test]
fn arm64() {
    let spec = DomainSpec { arch: Arch::Aarch64, ..web() };
    insta::assert_snapshot!("aarch64-kvm-uefi", pretty(&to_xml(&spec).unwrap()));
}

#[test]
fn refusals_name_the_field_and_the_rule() {
    let cases: Vec<(DomainSpec, &str)> = vec![
        (DomainSpec { name: "a/b".into(), ..web() }, "name must be letters"),
        (DomainSpec { name: "n".repeat(201), ..web() }, "name has 201 bytes; at most 200 are allowed"),
        (DomainSpec { title: "a\0b".into(), ..web() }, "title contains the character U+0000"),
        (DomainSpec { record: "{\n}".into(), ..web() }, "record contains the character U+000A"),
        (DomainSpec { record: "\u{ffff}".into(), ..web() }, "record contains the character U+FFFF"),
        (DomainSpec { cpu: 0, ..web() }, "cpu is 0"),
        (DomainSpec { memory_mib: 0, ..web() }, "memory is 0"),
        (DomainSpec { disks: vec![], ..web() }, "disks is empty"),
        (DomainSpec { user: User { uid: 0, gid: 107 }, ..web() }, "user is root"),
        (DomainSpec { seed: "seed.img".into(), ..web() }, "seed must be an absolute path"),
        (DomainSpec { arch: Arch::Aarch64, firmware: Firmware::Bios, ..web() }, "firmware is BIOS"),
    ];
    for (spec, sentence) in cases {
        let refusal = to_xml(&spec).unwrap_err().to_string();
        assert!(refusal.starts_with(sentence), "{refusal}");
    }
}

#[test]
fn refusals_of_disks_and_interfaces_carry_their_index() {
    let mut spec = web();
    spec.disks[1].name = "more-than-20-characters".into();
    assert_eq!(refusal(&spec), "disks[1].name has 23 bytes; at most 20 are allowed");
    let mut spec = web();
    spec.interfaces[1].mac = "53:54:00:00:00:01".into();
    assert_eq!(
        refusal(&spec),
        "interfaces[1].macAddress must be a unicast MAC address such as 52:54:00:12:34:56"
    );
    let mut spec = web();
    spec.interfaces[0].source = Source::Bridge("a-bridge-too-long".into());
    assert_eq!(refusal(&spec), "interfaces[0].bridge has 17 bytes; at most 15 are allowed");
}

fn refusal(spec: &DomainSpec) -> String {
    to_xml(spec).unwrap_err().to_string()
}

/// What a reader of XML finds: every attribute and text, resolved, in document order.
fn strings(xml: &str) -> Vec<String> {
    use quick_xml::events::Event;
    let mut reader = quick_xml::Reader::from_str(xml);
    let (mut found, mut text) = (Vec::new(), String::new());
    loop {
        match reader.read_event().unwrap() {
            Event::Start(element) | Event::Empty(element) => {
                for attribute in element.attributes() {
                    let value =
                        attribute.unwrap().normalized_value(quick_xml::XmlVersion::Implicit1_0).unwrap();
                    found.push(value.into_owned());
                }
            }
            Event::Text(part) => text.push_str(&part),
            Event::GeneralRef(part) => match part.resolve_char_ref().unwrap() {
                Some(character) => text.push(character),
                None => text.push_str(quick_xml::escape::resolve_predefined_entity(&part).unwrap()),
            },
            Event::End(_) => found.push(std::mem::take(&mut text)),
            Event::Eof => return found,
            other => panic!("unexpected {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn hostile_text_survives_or_is_refused(
        name in ".{0,12}", title in any::<String>(), record in any::<String>(), disk in ".{0,24}", path in any::<String>(),
        interface in ".{0,8}", mac in "[0-9a-g:]{16,18}", device in ".{0,18}", network in ".{0,12}",
    ) {
        let mut spec = DomainSpec { name, title, record, ..web() };
        hostile(&mut spec, disk, path, interface, (mac, device, network));
        if let Ok(xml) = to_xml(&spec) {
            let found = strings(&xml);
            for value in [&spec.name, &spec.title, &spec.record, &spec.disks[0].name, &spec.interfaces[0].mac] {
                prop_assert!(found.contains(value), "{value:?} is not in {xml}");
            }
            prop_assert!(found.contains(&spec.disks[0].path.to_str().unwrap().to_owned()));
        }
    }

    #[test]
    fn any_printable_title_record_and_path_is_written(
        title in "[^\u{0}-\u{1f}\u{fffe}\u{ffff}]*", record in "[^\u{0}-\u{1f}\u{fffe}\u{ffff}]*",
        path in "/[^\u{0}-\u{1f}\u{fffe}\u{ffff}]*",
    ) {
        let mut spec = DomainSpec { title, record, ..web() };
        spec.disks[0].path = PathBuf::from(&path);
        let found = strings(&to_xml(&spec).unwrap());
        prop_assert!(found.contains(&spec.title) && found.contains(&spec.record) && found.contains(&path));
    }
}

fn hostile(
    spec: &mut DomainSpec,
    disk: String,
    path: String,
    interface: String,
    plug: (String, String, String),
) {
    spec.disks[0].name = disk;
    spec.disks[0].path = PathBuf::from(path);
    (spec.interfaces[0].mac, spec.interfaces[0].target_dev) = (plug.0, plug.1);
    spec.interfaces[0].name = interface;
    spec.interfaces[0].source = Source::Network(plug.2);
}
