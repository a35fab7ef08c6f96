//! What the server sends, as JSON. Whole numbers stay numbers, exact decimals are strings, times are RFC 3339.

use std::error::Error;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::civil::{Date, Time};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde_json::{Value as Json, json};
use tokio_postgres::types::{FromSql, Kind, Type};

type Failed = Box<dyn Error + Sync + Send>;

/// Seconds from 1970-01-01 to 2000-01-01, where PostgreSQL begins to count.
const EPOCH_SECONDS: i64 = 946_684_800;

/// One value of a row.
pub(super) struct Cell(pub(super) Json);

impl<'a> FromSql<'a> for Cell {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Failed> {
        decode(kind, raw).map(Self)
    }

    fn from_sql_null(_: &Type) -> Result<Self, Failed> {
        Ok(Self(Json::Null))
    }

    fn accepts(kind: &Type) -> bool {
        is_offered(kind)
    }
}

/// How many bytes of JSON a value of a row takes at the least, found before any of it is made: ten bytes of the server's
/// can be a number of 147,000 digits.
pub(super) struct Length(pub(super) u64);

impl<'a> FromSql<'a> for Length {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Failed> {
        length(kind, raw).map(Self)
    }

    fn from_sql_null(_: &Type) -> Result<Self, Failed> {
        Ok(Self(4))
    }

    fn accepts(kind: &Type) -> bool {
        is_offered(kind)
    }
}

/// Whether values of this type have a form in JSON here.
pub(super) fn is_offered(kind: &Type) -> bool {
    match kind.kind() {
        Kind::Enum(_) => true,
        Kind::Domain(base) => is_offered(base),
        Kind::Array(item) => is_offered(item) && !matches!(item.kind(), Kind::Array(_)),
        Kind::Simple => {
            is_text(kind)
                || matches!(
                    *kind,
                    Type::BOOL
                        | Type::INT2
                        | Type::INT4
                        | Type::INT8
                        | Type::OID
                        | Type::FLOAT4
                        | Type::FLOAT8
                        | Type::NUMERIC
                        | Type::UUID
                        | Type::DATE
                        | Type::TIME
                        | Type::TIMESTAMP
                        | Type::TIMESTAMPTZ
                        | Type::INTERVAL
                        | Type::JSON
                        | Type::JSONB
                        | Type::BYTEA
                )
        }
        _ => false,
    }
}

fn is_text(kind: &Type) -> bool {
    matches!(*kind, Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME) || kind.name() == "citext"
}

fn length(kind: &Type, raw: &[u8]) -> Result<u64, Failed> {
    let bytes = raw.len() as u64;
    Ok(match kind.kind() {
        Kind::Domain(base) => length(base, raw)?,
        Kind::Enum(_) => bytes + 2,
        Kind::Array(_) => {
            Vec::<Length>::from_sql(kind, raw)?.iter().map(|Length(item)| item + 1).sum::<u64>() + 1
        }
        _ if *kind == Type::NUMERIC => Numeric::read(raw)?.length() + 2,
        _ if *kind == Type::BYTEA => bytes.div_ceil(3) * 4 + 13,
        _ if is_text(kind) => bytes + 2,
        // White space of a JSON text does not count; the others are all short.
        _ => 1,
    })
}

fn decode(kind: &Type, raw: &[u8]) -> Result<Json, Failed> {
    match kind.kind() {
        Kind::Domain(base) => return decode(base, raw),
        Kind::Enum(_) => return Ok(std::str::from_utf8(raw)?.into()),
        Kind::Array(_) => {
            let items = Vec::<Cell>::from_sql(kind, raw)?;
            return Ok(items.into_iter().map(|Cell(item)| item).collect());
        }
        _ => {}
    }
    Ok(match *kind {
        Type::BOOL => bool::from_sql(kind, raw)?.into(),
        Type::INT2 => i16::from_sql(kind, raw)?.into(),
        Type::INT4 => i32::from_sql(kind, raw)?.into(),
        Type::INT8 => i64::from_sql(kind, raw)?.into(),
        Type::OID => u32::from_sql(kind, raw)?.into(),
        // By its own shortest digits, which are fewer than those of the same number with twice the bits.
        Type::FLOAT4 => float(f32::from_sql(kind, raw)?.to_string().parse()?),
        Type::FLOAT8 => float(f64::from_sql(kind, raw)?),
        Type::NUMERIC => Numeric::read(raw)?.text()?.into(),
        Type::UUID => uuid::Uuid::from_slice(raw)?.to_string().into(),
        Type::DATE => date(i32::from_be_bytes(raw.try_into()?))?.into(),
        Type::TIME => time(i64::from_be_bytes(raw.try_into()?))?.into(),
        Type::TIMESTAMP => moment(raw, |at| TimeZone::UTC.to_datetime(at).to_string())?.into(),
        Type::TIMESTAMPTZ => moment(raw, |at| at.to_string())?.into(),
        Type::INTERVAL => interval(raw)?.into(),
        Type::JSON => serde_json::from_slice(raw)?,
        // One byte says the version.
        Type::JSONB => serde_json::from_slice(raw.get(1..).unwrap_or_default())?,
        Type::BYTEA => json!({ "base64": STANDARD.encode(raw) }),
        _ if is_text(kind) => std::str::from_utf8(raw)?.into(),
        _ => return Err(format!("`{}` has no form in JSON", kind.name()).into()),
    })
}

/// What JSON has no number for is a word.
fn float(number: f64) -> Json {
    let word = match number {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    };
    serde_json::Number::from_f64(number).map_or_else(|| word.into(), Json::Number)
}

fn date(days: i32) -> Result<String, Failed> {
    match days {
        i32::MAX => Ok("infinity".to_owned()),
        i32::MIN => Ok("-infinity".to_owned()),
        _ => {
            let first = Date::new(2000, 1, 1)?;
            Ok(first.checked_add(SignedDuration::from_hours(i64::from(days) * 24))?.to_string())
        }
    }
}

fn time(micros: i64) -> Result<String, Failed> {
    if micros == 86_400_000_000 {
        return Ok("24:00:00".to_owned());
    }
    Ok(Time::midnight().checked_add(SignedDuration::from_micros(micros))?.to_string())
}

fn moment(raw: &[u8], shown: impl FnOnce(Timestamp) -> String) -> Result<String, Failed> {
    match i64::from_be_bytes(raw.try_into()?) {
        i64::MAX => Ok("infinity".to_owned()),
        i64::MIN => Ok("-infinity".to_owned()),
        micros => {
            let micros = micros.checked_add(EPOCH_SECONDS * 1_000_000).ok_or("a time beyond the calendar")?;
            Ok(shown(Timestamp::from_microsecond(micros)?))
        }
    }
}

/// ISO 8601: months and days are kept apart, since their lengths differ.
fn interval(raw: &[u8]) -> Result<String, Failed> {
    let micros = i64::from_be_bytes(raw.get(..8).unwrap_or_default().try_into()?);
    let days = i32::from_be_bytes(raw.get(8..12).unwrap_or_default().try_into()?);
    let months = i32::from_be_bytes(raw.get(12..).unwrap_or_default().try_into()?);
    let sign = if micros < 0 { "-" } else { "" };
    let (whole, part) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
    let fraction = format!(".{part:06}");
    Ok(format!("P{months}M{days}DT{sign}{whole}{}S", fraction.trim_end_matches('0').trim_end_matches('.')))
}

/// Groups of four decimal digits with the place of the first, a sign, and how many digits are shown after the point
/// (`src/backend/utils/adt/numeric.c`, `numeric_send`).
enum Numeric {
    /// What is not a number.
    Word(&'static str),
    Digits {
        sign: &'static str,
        weight: i32,
        shown: usize,
        groups: Vec<u16>,
    },
}

impl Numeric {
    fn read(raw: &[u8]) -> Result<Self, Failed> {
        let (words, rest) = raw.as_chunks::<2>();
        let mut words = words.iter().map(|word| u16::from_be_bytes(*word));
        let mut next = || words.next().ok_or("a number was cut short");
        let (_count, weight, sign, shown) = (next()?, next()?.cast_signed(), next()?, usize::from(next()?));
        let sign = match sign {
            0x0000 => "",
            0x4000 => "-",
            0xC000 => return Ok(Self::Word("NaN")),
            0xD000 => return Ok(Self::Word("Infinity")),
            0xF000 => return Ok(Self::Word("-Infinity")),
            _ => return Err("a number has an unknown sign".into()),
        };
        if !rest.is_empty() {
            return Err("a number has half a digit".into());
        }
        Ok(Self::Digits { sign, weight: i32::from(weight), shown, groups: words.collect() })
    }

    /// How long its text is; it may be five characters longer.
    fn length(&self) -> u64 {
        match self {
            Self::Word(word) => word.len() as u64,
            // A first group has one digit at the least, and what is shown a point.
            Self::Digits { weight, shown, .. } => {
                u64::from(weight.max(&0).unsigned_abs()) * 4 + 1 + *shown as u64
            }
        }
    }

    fn text(&self) -> Result<String, Failed> {
        let (sign, weight, shown, groups) = match self {
            Self::Word(word) => return Ok((*word).to_owned()),
            Self::Digits { sign, weight, shown, groups } => (*sign, *weight, *shown, groups),
        };
        let group = |place: i32| {
            let at = usize::try_from(weight - place).ok();
            at.and_then(|at| groups.get(at)).copied().unwrap_or(0)
        };
        let digits = |places: std::ops::RangeInclusive<i32>| {
            let mut text = String::new();
            places.rev().try_for_each(|place| write!(text, "{:04}", group(place))).map(|()| text)
        };
        let whole = digits(0..=weight.max(0))?;
        let whole = whole.trim_start_matches('0');
        let whole = if whole.is_empty() { "0" } else { whole };
        let fraction = digits(-i32::try_from(shown.div_ceil(4))?..=-1)?;
        let fraction = fraction.get(..shown).unwrap_or_default();
        Ok(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numeric(weight: i16, shown: u16, groups: &[u16]) -> Vec<u8> {
        let count = u16::try_from(groups.len()).unwrap();
        let head = [count, weight.cast_unsigned(), 0, shown];
        head.iter().chain(groups).flat_map(|word| word.to_be_bytes()).collect()
    }

    /// One dimension (`src/backend/utils/adt/arrayfuncs.c`, `array_send`).
    fn array(item: &Type, raw: &[u8], count: u32) -> Vec<u8> {
        let head = [1, 0, item.oid(), count, 1].into_iter().flat_map(u32::to_be_bytes);
        let length = u32::try_from(raw.len()).unwrap().to_be_bytes();
        head.chain((0..count).flat_map(|_| length.iter().chain(raw).copied())).collect()
    }

    fn length_of(kind: &Type, raw: &[u8]) -> u64 {
        Length::from_sql(kind, raw).unwrap().0
    }

    fn text_of(kind: &Type, raw: &[u8]) -> String {
        Cell::from_sql(kind, raw).unwrap().0.to_string()
    }

    #[test]
    fn the_length_of_a_huge_number_is_known_before_it_is_made() {
        let huge = numeric(32_767, 16_383, &[1]);
        assert_eq!((huge.len(), length_of(&Type::NUMERIC, &huge)), (10, 147_454));
        assert_eq!(text_of(&Type::NUMERIC, &huge).len(), 147_455, "the control: so long it would be");
        let many = array(&Type::NUMERIC, &huge, 4_000);
        assert_eq!((many.len(), length_of(&Type::NUMERIC_ARRAY, &many)), (56_020, 589_820_001));
        let empty = array(&Type::BYTEA, b"", 4_000);
        assert_eq!(length_of(&Type::BYTEA_ARRAY, &empty), 56_001);
        assert_eq!(text_of(&Type::BYTEA_ARRAY, &empty).len(), 4_000 * 14 + 1, "the control");
    }

    proptest! {
        #[test]
        fn what_a_value_takes_is_never_less_than_was_found_nor_much_more(
            (weight, shown) in (-9_i16..99, 0_u16..99),
            groups in prop::collection::vec(1_u16..10_000, 1..9),
            text in any::<String>(),
            count in 1_u32..9,
        ) {
            let number = numeric(weight, shown, &groups);
            for (kind, list, raw) in [
                (Type::NUMERIC, Type::NUMERIC_ARRAY, number.as_slice()),
                (Type::TEXT, Type::TEXT_ARRAY, text.as_bytes()),
                (Type::BYTEA, Type::BYTEA_ARRAY, text.as_bytes()),
            ] {
                let many = array(&kind, raw, count);
                for (kind, raw) in [(&kind, raw), (&list, many.as_slice())] {
                    let (least, is) = (length_of(kind, raw), text_of(kind, raw).len() as u64);
                    // A control character is six.
                    prop_assert!((least..=least * 6 + 9).contains(&is), "{kind}: {least} {is}");
                }
            }
        }
    }
}
