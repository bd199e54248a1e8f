//! What may stand in a string that goes to libvirt, so that neither XML nor a C call ever meets a surprise.
//!
//! Pure. Called by the XML builders and by every call that takes text; a refusal names the field and the remedy.

use std::path::Path;

/// The longest domain or network name: libvirt builds `<name>.log` and `<name>.xml` from it, and a file name ends at 255 bytes.
pub(crate) const NAME_LIMIT: usize = 200;
/// The kernel's `IFNAMSIZ` less the closing NUL.
pub(crate) const DEVICE_NAME_LIMIT: usize = 15;
/// What a virtio-blk disk can carry as its serial.
pub(crate) const SERIAL_LIMIT: usize = 20;
/// Room for the largest record of ours (the driver's tests make it); as XML, where a quote takes six bytes, it still fits
/// into the 4 MiB of one libvirt message.
pub(crate) const RECORD_LIMIT: usize = 1024 * 1024;

/// A value that must not reach libvirt: which field, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub(crate) struct Invalid {
    /// The field as its writer knows it, e.g. `disks[1].name`.
    pub(crate) field: String,
    /// What is wrong and what is allowed, as the rest of a sentence.
    pub(crate) problem: String,
}

impl Invalid {
    pub(super) fn new(field: &str, problem: impl Into<String>) -> Self {
        Self { field: field.to_owned(), problem: problem.into() }
    }
}

/// XML 1.0 (2.2 Characters) without tab, CR and LF, which attribute values would silently turn into blanks.
pub(super) fn printable(field: &str, value: &str) -> Result<(), Invalid> {
    let bad = value.chars().find(|&c| c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}'));
    bad.map_or(Ok(()), |c| {
        let code = u32::from(c);
        Err(Invalid::new(field, format!("contains the character U+{code:04X}; remove control characters")))
    })
}

/// The record of a domain or network: opaque text, printable, at most [`RECORD_LIMIT`] bytes.
pub(super) fn record(field: &str, value: &str) -> Result<(), Invalid> {
    printable(field, value)?;
    at_most(field, value, RECORD_LIMIT)
}

/// The name of a domain or network; libvirt makes file names of it, so no slash and no leading dot.
pub(super) fn name(field: &str, value: &str) -> Result<(), Invalid> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if value.is_empty() || value.starts_with('.') || !value.chars().all(legal) {
        return Err(Invalid::new(
            field,
            "must be letters, digits, dots, dashes or underscores, and not begin with a dot",
        ));
    }
    at_most(field, value, NAME_LIMIT)
}

/// The name of a network device of the host, at most [`DEVICE_NAME_LIMIT`] bytes.
pub(super) fn device(field: &str, value: &str) -> Result<(), Invalid> {
    name(field, value)?;
    at_most(field, value, DEVICE_NAME_LIMIT)
}

/// A disk's serial as the guest sees it, at most [`SERIAL_LIMIT`] bytes; QEMU's driver allows no other characters.
pub(super) fn serial(field: &str, value: &str) -> Result<(), Invalid> {
    label(field, value)?;
    at_most(field, value, SERIAL_LIMIT)
}

/// A device alias (libvirt's `ua-` names).
pub(super) fn label(field: &str, value: &str) -> Result<(), Invalid> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if value.is_empty() || !value.chars().all(legal) {
        return Err(Invalid::new(field, "must be letters, digits, dashes or underscores"));
    }
    at_most(field, value, NAME_LIMIT)
}

/// Six hexadecimal pairs with colons, unicast.
pub(super) fn mac(field: &str, value: &str) -> Result<(), Invalid> {
    let octets: Vec<Option<u8>> = value.split(':').map(octet).collect();
    let unicast = matches!(octets.first(), Some(Some(first)) if first & 1 == 0);
    if octets.len() == 6 && octets.iter().all(Option::is_some) && unicast {
        return Ok(());
    }
    Err(Invalid::new(field, "must be a unicast MAC address such as 52:54:00:12:34:56"))
}

/// The path as text: absolute, UTF-8, printable.
pub(super) fn path<'a>(field: &str, value: &'a Path) -> Result<&'a str, Invalid> {
    let text = value.to_str().ok_or_else(|| Invalid::new(field, "must be UTF-8"))?;
    if !value.is_absolute() {
        return Err(Invalid::new(field, "must be an absolute path"));
    }
    printable(field, text)?;
    Ok(text)
}

fn at_most(field: &str, value: &str, limit: usize) -> Result<(), Invalid> {
    if value.len() > limit {
        return Err(Invalid::new(field, format!("has {} bytes; at most {limit} are allowed", value.len())));
    }
    Ok(())
}

fn octet(pair: &str) -> Option<u8> {
    let hex = pair.len() == 2 && pair.chars().all(|c| c.is_ascii_hexdigit());
    hex.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
}
