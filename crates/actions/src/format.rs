//! The formats that a string parameter can have, each with the pattern that the model sees and the check that decides.

use serde::Serialize;

/// A declared format of a string.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// A calendar date, `2026-10-31` (RFC 3339 §5.6 `full-date`), which must exist.
    Date,
    /// A month, `2026-10`.
    YearMonth,
    /// A UUID in lower case with hyphens (RFC 9562 §4).
    Uuid,
    /// An address `local@domain` of the plain kind: a subset of RFC 5321 §4.1.2 without quotes, comments and address literals.
    Email,
}

impl Format {
    /// All of them, as tool files spell them.
    pub(crate) const NAMES: [&'static str; 4] = ["date", "year-month", "uuid", "email"];

    /// The format of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "date" => Self::Date,
            "year-month" => Self::YearMonth,
            "uuid" => Self::Uuid,
            "email" => Self::Email,
            _ => return None,
        })
    }

    /// The `format` keyword of JSON Schema 2020-12 (validation §7.3), where it has one for this.
    pub(crate) fn schema_keyword(self) -> Option<&'static str> {
        match self {
            Self::Date => Some("date"),
            Self::YearMonth => None,
            Self::Uuid => Some("uuid"),
            Self::Email => Some("email"),
        }
    }

    /// The anchored pattern that the model sees, in the syntax that ECMA-262 and the `regex` crate share.
    pub(crate) fn pattern(self) -> &'static str {
        match self {
            Self::Date => "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$",
            Self::YearMonth => "^[0-9]{4}-(0[1-9]|1[0-2])$",
            Self::Uuid => "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
            Self::Email => {
                "^[A-Za-z0-9_%+-]+([.][A-Za-z0-9_%+-]+)*@[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?([.][A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)+$"
            }
        }
    }

    /// The longest text of this format, in characters.
    pub(crate) fn length_max(self) -> u64 {
        match self {
            Self::Date => 10,
            Self::YearMonth => 7,
            Self::Uuid => 36,
            Self::Email => 254,
        }
    }

    /// What the pattern cannot say: a date must exist in the calendar.
    pub(crate) fn holds(self, text: &str) -> bool {
        match self {
            Self::Date => text.parse::<jiff::civil::Date>().is_ok(),
            Self::YearMonth | Self::Uuid | Self::Email => true,
        }
    }

    /// One that holds, for messages.
    pub(crate) fn example(self) -> &'static str {
        match self {
            Self::Date => "2026-10-31",
            Self::YearMonth => "2026-10",
            Self::Uuid => "0192f0c1-7b1e-7c3a-9f00-3b1f5a2c4d6e",
            Self::Email => "ann@example.com",
        }
    }
}

impl Format {
    /// The name in tool files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Date => "date",
            Self::YearMonth => "year-month",
            Self::Uuid => "uuid",
            Self::Email => "email",
        }
    }

    /// Whether the whole text has this format.
    pub(crate) fn matches(self, text: &str) -> bool {
        static PATTERNS: std::sync::LazyLock<[Option<regex::Regex>; 4]> = std::sync::LazyLock::new(|| {
            [Format::Date, Format::YearMonth, Format::Uuid, Format::Email]
                .map(|format| regex::Regex::new(format.pattern()).ok())
        });
        let pattern = PATTERNS.get(self as usize).and_then(Option::as_ref);
        pattern.is_some_and(|pattern| pattern.is_match(text)) && self.holds(text)
    }
}
