//! The two YAML documents we write ourselves. Pure.
//!
//! cloud-init reads them with `PyYAML`, which speaks YAML 1.1, so every string is double-quoted with everything but
//! printable ASCII escaped: no key, hostname or comment can turn into a boolean, a number or another line.

use std::fmt::Write;

use super::{MetaData, Nic};

/// Linux cuts interface names at 15 characters.
const IFNAME_BYTES: usize = 15;

/// `meta-data` of the `NoCloud` source.
pub(super) fn meta_data(meta_data: &MetaData) -> String {
    let MetaData { instance_id, hostname, public_keys } = meta_data;
    let mut text = format!("instance-id: {}\nlocal-hostname: {}\n", quoted(instance_id), quoted(hostname));
    if !public_keys.is_empty() {
        text.push_str("public-keys:\n");
        text.extend(public_keys.iter().map(|key| {
            format!(
                "- {}
",
                quoted(key.trim())
            )
        }));
    }
    text
}

/// `network-config` in version 2: every interface, found by its hardware address, asks by DHCP.
///
/// With one interface there is nothing to say: cloud-init's own fallback configures exactly that. With several the
/// fallback would leave all but the first down. Each is renamed to its name in the spec, because cloud-init's
/// renderers for ifupdown, sysconfig and networkd find an interface by name alone and only netplan understands a
/// match; and so `lan` in the spec is `lan` in the guest. All but the first are optional: a network without DHCP
/// must not hold up the boot.
pub(super) fn network_config(nics: &[Nic]) -> Option<String> {
    if nics.len() < 2 {
        return None;
    }
    let names = interface_names(nics);
    let entries = nics.iter().zip(names).enumerate().map(|(n, (nic, name))| ethernet(n, &name, nic));
    Some(format!("version: 2\nethernets:\n{}", entries.collect::<String>()))
}

fn ethernet(n: usize, name: &str, nic: &Nic) -> String {
    let name = quoted(name);
    let mac = quoted(&nic.mac.to_lowercase());
    let optional = n > 0;
    format!(
        "  {name}:\n    match: {{macaddress: {mac}}}\n    set-name: {name}\n    dhcp4: true\n    optional: {optional}\n"
    )
}

/// Names that the kernel accepts: `lo` is taken and a longer one would be cut. In their place comes `nic` with the place of
/// the interface, or with the next number that no other one has.
fn interface_names(nics: &[Nic]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (n, nic) in nics.iter().enumerate() {
        let is_free = |name: &String| !names.contains(name) && nics.iter().all(|other| other.name != *name);
        let fits = nic.name.len() <= IFNAME_BYTES && nic.name != "lo";
        // At most as many are taken as there are interfaces.
        let mut spare = (n..=n + nics.len()).map(|n| format!("nic{n}"));
        names.extend(if fits { Some(nic.name.clone()) } else { spare.find(is_free) });
    }
    names
}

/// A double-quoted scalar of YAML 1.1 and 1.2 in ASCII.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            ' '..='~' => out.push(character),
            // Writing to a String cannot fail.
            other => drop(write!(out, "\\U{:08x}", u32::from(other))),
        }
    }
    out.push('"');
    out
}
