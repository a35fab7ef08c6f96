//! Checked arguments in a form that has exactly one spelling, for policies, digests, statements and the journal.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;

use crate::ParamName;

/// A decimal number with at most four digits after the point, kept exactly (the range and precision of Cedar's `decimal`).
///
/// Binary floating point has no place where an amount decides: `0.1 + 0.2` must be `0.3`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Decimal(i64);

impl Decimal {
    /// Digits after the point.
    pub const DIGITS: u32 = 4;
    /// The least of them.
    pub const MIN: Self = Self(i64::MIN);
    /// The greatest of them.
    pub const MAX: Self = Self(i64::MAX);
    const ONE: i64 = 10_i64.pow(Self::DIGITS);

    /// Reads a JSON number (RFC 8259 §6). `None` where it needs more than four digits after the point or leaves the range.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (digits, exponent) = match text.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (sign, digits) = match digits.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, digits),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let is_number = !whole.is_empty()
            && whole.len() + fraction.len() <= 64
            && whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
        if !is_number {
            return None;
        }
        let mantissa = format!("{whole}{fraction}");
        let mantissa = mantissa.trim_start_matches('0');
        let trimmed = mantissa.trim_end_matches('0');
        if trimmed.is_empty() {
            return Some(Self(0));
        }
        let zeros = i32::try_from(mantissa.len() - trimmed.len()).ok()?;
        let scale = exponent
            .checked_sub(i32::try_from(fraction.len()).ok()?)?
            .checked_add(zeros)?
            .checked_add(i32::try_from(Self::DIGITS).ok()?)?;
        let power = 10_i64.checked_pow(u32::try_from(scale).ok()?)?;
        // Signed before scaling, so that the smallest number, which has no positive twin, can be read too.
        let magnitude: i128 = trimmed.parse().ok()?;
        i64::try_from(magnitude.checked_mul(i128::from(power))?.checked_mul(sign)?).ok().map(Self)
    }

    /// The nearest binary floating-point number, for systems that know no decimals.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        // Parsing rounds once and correctly; dividing would round twice.
        self.to_string().parse().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Decimal {
    /// The shortest spelling that has at least one digit after the point: `-12.5`, `3.0` (as Cedar's `decimal` wants it).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, fraction) = (
            self.0.unsigned_abs() / Self::ONE.unsigned_abs(),
            self.0.unsigned_abs() % Self::ONE.unsigned_abs(),
        );
        let fraction = format!("{fraction:04}");
        let fraction = fraction.trim_end_matches('0');
        write!(f, "{sign}{whole}.{}", if fraction.is_empty() { "0" } else { fraction })
    }
}

/// One checked value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    /// Text.
    String(String),
    /// A whole number.
    Integer(i64),
    /// A decimal number.
    Number(Decimal),
    /// Yes or no.
    Boolean(bool),
    /// A list of scalars.
    Array(Vec<Value>),
}

impl Value {
    /// As JSON: integers as numbers, decimals digit for digit.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::String(text) => text.as_str().into(),
            Self::Integer(number) => (*number).into(),
            Self::Number(decimal) => serde_json::from_str(&decimal.to_string()).unwrap_or_default(),
            Self::Boolean(truth) => (*truth).into(),
            Self::Array(items) => items.iter().map(Self::to_json).collect(),
        }
    }

    fn write_canonical(&self, to: &mut String) {
        match self {
            Self::String(text) => write_tagged(to, "s", &serde_json::Value::from(text.as_str()).to_string()),
            Self::Integer(number) => write_tagged(to, "i", &format!("\"{number}\"")),
            Self::Number(decimal) => write_tagged(to, "n", &format!("\"{decimal}\"")),
            Self::Boolean(truth) => write_tagged(to, "b", if *truth { "true" } else { "false" }),
            Self::Array(items) => {
                to.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        to.push(',');
                    }
                    item.write_canonical(to);
                }
                to.push(']');
            }
        }
    }
}

fn write_tagged(to: &mut String, tag: &str, json: &str) {
    let _infallible = write!(to, "{{\"{tag}\":{json}}}");
}

/// The checked arguments of one call, by parameter.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Arguments(BTreeMap<ParamName, Value>);

impl Arguments {
    /// Takes arguments that the action-space has checked.
    #[must_use]
    pub fn new(values: BTreeMap<ParamName, Value>) -> Self {
        Self(values)
    }

    /// The value of one parameter; `None` where an optional one was left out.
    #[must_use]
    pub fn value(&self, param: &str) -> Option<&Value> {
        self.0.get(param)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&ParamName, &Value)> {
        self.0.iter()
    }

    /// As a JSON object.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let pairs = self.0.iter().map(|(name, value)| (name.to_string(), value.to_json()));
        serde_json::Value::Object(pairs.collect())
    }

    /// The one spelling of these arguments: RFC 8785 (names sorted, no white space), with each value tagged by its type and
    /// numbers written as strings, since RFC 8785's own numbers are doubles and two large integers would read the same.
    #[must_use]
    pub fn canonical(&self) -> String {
        let mut text = String::from("{");
        for (index, (name, value)) in self.0.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            let _infallible = write!(text, "\"{name}\":");
            value.write_canonical(&mut text);
        }
        text.push('}');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_decimal_is_exact_or_refused() {
        let read = |text| Decimal::parse(text).map(|decimal| decimal.to_string());
        for (given, read_as) in [
            ("0", "0.0"),
            ("-0", "0.0"),
            ("1", "1.0"),
            ("-12.5", "-12.5"),
            ("0.0001", "0.0001"),
            ("1e3", "1000.0"),
            ("1.50e1", "15.0"),
            ("12e-2", "0.12"),
            ("922337203685477.5807", "922337203685477.5807"),
            ("-922337203685477.5808", "-922337203685477.5808"),
            ("0e999999999", "0.0"),
        ] {
            assert_eq!(read(given).as_deref(), Some(read_as), "{given}");
        }
        for bad in [
            "",
            "-",
            ".5",
            "0.00001",
            "1e400",
            "1e-5",
            "922337203685477.5808",
            "NaN",
            "Infinity",
            "1_0",
            "+1",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn two_large_integers_never_share_a_spelling() {
        let spelled = |number| {
            let name = ParamName::new("n").unwrap();
            Arguments::new([(name, Value::Integer(number))].into()).canonical()
        };
        assert_eq!(spelled(9_007_199_254_740_993), r#"{"n":{"i":"9007199254740993"}}"#);
        assert_ne!(spelled(9_007_199_254_740_992), spelled(9_007_199_254_740_993));
    }

    proptest! {
        #[test]
        fn what_a_decimal_prints_it_reads(number: i64) {
            let decimal = Decimal(number);
            prop_assert_eq!(Decimal::parse(&decimal.to_string()), Some(decimal));
        }

        #[test]
        fn values_of_two_types_never_share_a_spelling(text: String, number: i64) {
            let spelled = |value: Value| {
                let mut canonical = String::new();
                value.write_canonical(&mut canonical);
                canonical
            };
            prop_assert_ne!(spelled(Value::String(text.clone())), spelled(Value::Integer(number)));
            prop_assert_ne!(spelled(Value::String(number.to_string())), spelled(Value::Integer(number)));
        }
    }
}
