//! Numbers: decimal and exact, since the host computes with 512 bits and compares what it gets back digit by digit.

use std::fmt;
use std::str::FromStr;

use bigdecimal::{BigDecimal, ToPrimitive};

/// Digits before or after the point. An `f64` needs up to 1074; without a bound `1e999999999` would be eleven bytes of
/// input and a gigabyte as soon as it is compared.
const DIGITS: i64 = 4096;

/// An exact decimal number of at most 4096 digits on each side of the point.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(BigDecimal);

/// Why something is not a number we can hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Not decimal digits with at most one point and exponent.
    #[error("the text is not a decimal number")]
    Text,
    /// Infinite, or not a number at all.
    #[error("the number is not finite")]
    NotFinite,
    /// Beyond the bound.
    #[error("the number has more than {DIGITS} digits")]
    TooLong,
}

impl Number {
    /// The number as an integer, if it is one and fits.
    pub fn as_i64(&self) -> Option<i64> {
        self.0.is_integer().then(|| self.0.to_i64()).flatten()
    }

    /// The number in binary, if that loses nothing.
    pub fn as_exact_f64(&self) -> Option<f64> {
        let nearest: f64 = self.0.to_string().parse().ok()?;
        let back = Self::try_from(nearest).ok()?;
        (back == *self).then_some(nearest)
    }

    /// Normalised, so that one number has one form.
    fn bounded(decimal: &BigDecimal) -> Result<Self, Invalid> {
        let normalised = decimal.normalized();
        let (digits, scale) = normalised.as_bigint_and_exponent();
        // Before anything prints or compares it: ten digits are more than 33 bits.
        let length = i64::try_from(digits.bits()).unwrap_or(i64::MAX) / 3;
        if length > DIGITS * 2 || scale.abs() > DIGITS {
            return Err(Invalid::TooLong);
        }
        Ok(Self(normalised))
    }
}

impl FromStr for Number {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if i64::try_from(text.len()).is_ok_and(|length| length > DIGITS * 2) {
            return Err(Invalid::TooLong);
        }
        // The parser also takes digits in groups, `1_000`, which no host writes.
        if text.contains('_') {
            return Err(Invalid::Text);
        }
        Self::bounded(&BigDecimal::from_str(text).map_err(|_| Invalid::Text)?)
    }
}

impl TryFrom<f64> for Number {
    type Error = Invalid;

    fn try_from(binary: f64) -> Result<Self, Invalid> {
        Self::bounded(&BigDecimal::try_from(binary).map_err(|_| Invalid::NotFinite)?)
    }
}

impl From<i64> for Number {
    fn from(integer: i64) -> Self {
        Self(BigDecimal::from(integer).normalized())
    }
}

impl From<u64> for Number {
    fn from(integer: u64) -> Self {
        Self(BigDecimal::from(integer).normalized())
    }
}

/// Plain digits without an exponent.
impl fmt::Display for Number {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.to_plain_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        text.parse().unwrap()
    }

    #[test]
    fn one_number_has_one_form_however_it_is_written() {
        assert_eq!(number("1.50"), number("15e-1"));
        assert_eq!(number("100"), Number::from(100i64));
        assert_eq!(number("-0"), Number::from(0i64));
        assert_eq!(number("1e3").to_string(), "1000");
    }

    #[test]
    fn only_a_whole_number_is_an_integer() {
        assert_eq!(number("2.0").as_i64(), Some(2));
        assert_eq!(number("2.5").as_i64(), None);
        assert_eq!(number("9223372036854775807").as_i64(), Some(i64::MAX));
        assert_eq!(number("9223372036854775808").as_i64(), None);
    }

    #[test]
    fn a_tenth_is_not_exact_in_binary_and_a_half_is() {
        assert_eq!(number("0.1").as_exact_f64(), None);
        assert_eq!(number("0.5").as_exact_f64(), Some(0.5));
        assert_eq!(Number::try_from(5e-324).unwrap().as_exact_f64(), Some(5e-324));
        assert_eq!(Number::try_from(f64::MAX).unwrap().as_exact_f64(), Some(f64::MAX));
    }

    #[test]
    fn what_would_grow_without_bound_or_is_no_number_is_refused() {
        assert_eq!("1e999999999".parse::<Number>(), Err(Invalid::TooLong));
        assert_eq!("1e-999999999".parse::<Number>(), Err(Invalid::TooLong));
        assert_eq!("9".repeat(10_000).parse::<Number>(), Err(Invalid::TooLong));
        assert_eq!(Number::try_from(f64::NAN), Err(Invalid::NotFinite));
        assert_eq!(Number::try_from(f64::INFINITY), Err(Invalid::NotFinite));
        for text in ["", "x", "1_000", "0x10", "1e", "inf"] {
            assert_eq!(text.parse::<Number>(), Err(Invalid::Text), "{text}");
        }
    }
}
