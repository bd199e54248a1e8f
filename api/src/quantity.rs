//! Sizes as people write them.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A size in whole `Mi`, `Gi` or `Ti` (powers of 1024), such as `2Gi`.
///
/// The text is kept as written, so that reading an object never rewrites it and an object that slipped past the
/// schema does not break a list; [`Quantity::bytes`] judges it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quantity(pub String);

/// Why a size was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size: write a whole number of Mi, Gi or Ti, such as 2Gi")]
pub struct NotASize(String);

const MIB: u64 = 1 << 20;
const UNITS: [(&str, u64); 3] = [("Ti", MIB << 20), ("Gi", MIB << 10), ("Mi", MIB)];

impl Quantity {
    /// The canonical text of a number of bytes: the largest unit that divides it; parts of a MiB are rounded up.
    pub fn from_bytes(bytes: u64) -> Self {
        let bytes = bytes.div_ceil(MIB).saturating_mul(MIB);
        let (unit, size) = UNITS
            .into_iter()
            .find(|(_, size)| bytes > 0 && bytes.is_multiple_of(*size))
            .unwrap_or(("Mi", MIB));
        Self(format!("{}{unit}", bytes / size))
    }

    /// The size in bytes.
    pub fn bytes(&self) -> Result<u64, NotASize> {
        self.parse().ok_or_else(|| NotASize(self.0.chars().take(40).collect()))
    }

    fn parse(&self) -> Option<u64> {
        let (unit, size) = UNITS.into_iter().find(|(unit, _)| self.0.ends_with(unit))?;
        let number = self.0.strip_suffix(unit)?;
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        number.parse::<u64>().ok()?.checked_mul(size)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Quantity {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": 16 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_in_powers_of_1024() {
        assert_eq!(Quantity::from("512Mi").bytes(), Ok(512 << 20));
        assert_eq!(Quantity::from("2Gi").bytes(), Ok(2 << 30));
        assert_eq!(Quantity::from("1Ti").bytes(), Ok(1 << 40));
    }

    #[test]
    fn what_is_not_a_size_is_refused_in_a_sentence() {
        for text in [
            "banana",
            "",
            "Gi",
            "2",
            "2G",
            "-1Gi",
            "+1Gi",
            "1.5Gi",
            " 2Gi",
            "2gi",
            "99999999999999Ti",
            "2\0Gi",
        ] {
            let refused = Quantity::from(text).bytes().unwrap_err().to_string();
            assert!(refused.ends_with("such as 2Gi"), "{refused}");
        }
    }

    #[test]
    fn the_canonical_form_is_the_largest_unit_that_divides() {
        for (bytes, text) in
            [(0, "0Mi"), (1, "1Mi"), (2 << 30, "2Gi"), (1536 << 20, "1536Mi"), (1 << 40, "1Ti")]
        {
            assert_eq!(Quantity::from_bytes(bytes).0, text);
        }
    }
}
