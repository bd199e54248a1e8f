//! Typed structs to XML text, by quick-xml's serializer; the one place that knows the serializer.

use quick_xml::se::{SeError, Serializer};
use serde::Serialize;

use super::text::Invalid;

/// Why a spec has no XML.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A value that must not be written; the spec has to change.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The serializer refused one of our own structs: a fault of this program.
    #[error("could not write the XML of a {root}")]
    Write { root: &'static str, source: SeError },
}

/// An element that speaks by being there, such as `<acpi/>`.
#[derive(Serialize)]
pub(super) struct Empty {}

/// Writes `value` as the element `root`.
pub(super) fn write(root: &'static str, value: &impl Serialize) -> Result<String, Error> {
    let mut out = String::new();
    let attempt =
        Serializer::with_root(&mut out, Some(root)).and_then(|serializer| value.serialize(serializer));
    attempt.map_err(|source| Error::Write { root, source })?;
    Ok(out)
}
