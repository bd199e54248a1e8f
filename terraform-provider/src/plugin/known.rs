//! Known: a typed part of a value that may be null or unknown. Three cases with names, never nested options.

use super::value::Value;

/// A typed part of a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Known<T> {
    /// Decided.
    Value(T),
    /// Absent.
    #[default]
    Null,
    /// Decided only by the apply.
    Unknown,
}

impl<T> Known<T> {
    /// The value, if it is decided and there.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Null | Self::Unknown => None,
        }
    }

    /// A look at the value, if it is decided and there.
    pub const fn as_value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Null | Self::Unknown => None,
        }
    }

    /// The same with a reference inside.
    pub const fn as_ref(&self) -> Known<&T> {
        match self {
            Self::Value(value) => Known::Value(value),
            Self::Null => Known::Null,
            Self::Unknown => Known::Unknown,
        }
    }

    /// The same with another value inside.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Known<U> {
        match self {
            Self::Value(value) => Known::Value(change(value)),
            Self::Null => Known::Null,
            Self::Unknown => Known::Unknown,
        }
    }

    /// This, or the other where this is null: a default that is known at plan.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match self {
            Self::Null => other,
            decided => decided,
        }
    }

    /// This, or the value where this is null.
    #[must_use]
    pub fn or_value(self, default: T) -> Self {
        self.or(Self::Value(default))
    }

    /// Whether it is absent.
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Whether it is not decided yet.
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }
}

impl<T> From<Option<T>> for Known<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Self::Value)
    }
}

impl<T: Into<Value>> From<Known<T>> for Value {
    fn from(known: Known<T>) -> Self {
        match known {
            Known::Value(value) => value.into(),
            Known::Null => Self::Null,
            Known::Unknown => Self::UNKNOWN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_fills_what_is_null_and_never_what_is_unknown() {
        assert_eq!(Known::Null.or_value(2), Known::Value(2));
        assert_eq!(Known::Unknown.or_value(2), Known::Unknown);
        assert_eq!(Known::Value(1).or_value(2), Known::Value(1));
    }
}
