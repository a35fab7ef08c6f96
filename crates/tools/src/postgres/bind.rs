//! The values of a call as the server's types want them. All go as text, bound and never part of the statement: the server
//! reads each by the type that the statement gave its parameter when the tool was checked.

use std::error::Error;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, BytesMut};
use ringfence_actions::{ParamType, Scalar};
use ringfence_core::Value;
use tokio_postgres::types::{Format, IsNull, Kind, ToSql, Type};

/// A value on its way into a statement; `None` is `NULL`.
#[derive(Debug)]
pub(super) struct Bound(Option<String>);

impl ToSql for Bound {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let Some(text) = &self.0 else { return Ok(IsNull::Yes) };
        out.put_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    fn to_sql_checked(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.to_sql(kind, out)
    }
}

/// The value of one parameter; `None` where it is bytes that are not base64.
pub(super) fn bound(value: Option<&Value>, kind: &Type) -> Option<Bound> {
    let Some(value) = value else { return Some(Bound(None)) };
    text(value, kind).map(|text| Bound(Some(text)))
}

fn text(value: &Value, kind: &Type) -> Option<String> {
    match (value, kind.kind()) {
        (_, Kind::Domain(base)) => text(value, base),
        (Value::Array(items), Kind::Array(item)) => list(items, item),
        (Value::Array(_), _) => Some(value.to_json().to_string()),
        (Value::String(given), _) if *kind == Type::BYTEA => {
            Some(format!("\\x{}", hex::encode(STANDARD.decode(given).ok()?)))
        }
        (Value::String(given), _) => Some(given.clone()),
        (Value::Integer(number), _) => Some(number.to_string()),
        (Value::Number(decimal), _) => Some(decimal.to_string()),
        (Value::Boolean(truth), _) => Some(truth.to_string()),
    }
}

/// An array literal in which every item is quoted (<https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO>).
fn list(items: &[Value], kind: &Type) -> Option<String> {
    let quoted = items.iter().map(|item| {
        let text = text(item, kind)?.replace('\\', "\\\\").replace('"', "\\\"");
        Some(format!("\"{text}\""))
    });
    let quoted: Option<Vec<String>> = quoted.collect();
    quoted.map(|quoted| format!("{{{}}}", quoted.join(",")))
}

/// Why a declared parameter does not fit the type that the statement gives it, with what to write instead.
pub(super) fn misfit(declared: &ParamType, kind: &Type) -> Option<(String, String)> {
    match (declared, kind.kind()) {
        (_, Kind::Domain(base)) => misfit(declared, base),
        (ParamType::Array { items, .. }, Kind::Array(item)) => misfit_scalar(items, item),
        (ParamType::Array { .. }, _) if matches!(*kind, Type::JSON | Type::JSONB) => None,
        (ParamType::Array { .. }, _) => Some(wrong("array", kind)),
        (ParamType::Scalar(_), Kind::Array(_)) => Some(wrong("single value", kind)),
        (ParamType::Scalar(scalar), _) => misfit_scalar(scalar, kind),
    }
}

fn misfit_scalar(declared: &Scalar, kind: &Type) -> Option<(String, String)> {
    let is_decimal = matches!(*kind, Type::NUMERIC | Type::FLOAT8 | Type::FLOAT4);
    let is_whole = matches!(*kind, Type::INT2 | Type::INT4 | Type::INT8 | Type::OID);
    match (declared, kind.kind()) {
        (_, Kind::Domain(base)) => misfit_scalar(declared, base),
        (Scalar::String { one_of, .. }, Kind::Enum(labels)) => enumeration(one_of, labels, kind),
        // Exact numbers of any length are texts here; what the server makes of other text is an error of its own.
        (Scalar::String { .. }, Kind::Simple) if !is_whole && *kind != Type::BOOL => None,
        (Scalar::Integer { .. }, _) if is_whole || is_decimal => None,
        (Scalar::Number { .. }, _) if is_decimal => None,
        (Scalar::Boolean, _) if *kind == Type::BOOL => None,
        (Scalar::String { .. }, _) => Some(wrong("string", kind)),
        (Scalar::Integer { .. }, _) => Some(wrong("integer", kind)),
        (Scalar::Number { .. }, _) => Some(wrong("number", kind)),
        (Scalar::Boolean, _) => Some(wrong("boolean", kind)),
    }
}

fn wrong(declared: &str, kind: &Type) -> (String, String) {
    let what = format!("it is declared as {declared}, and the statement takes `{}`", kind.name());
    (what, "declare the type that fits, or cast in the statement: `:name::TYPE`".to_owned())
}

fn enumeration(one_of: &[String], labels: &[String], kind: &Type) -> Option<(String, String)> {
    let instead = || {
        format!(
            "write `enum = [{}]`, or fewer",
            labels.iter().map(|label| format!("{label:?}")).collect::<Vec<_>>().join(", ")
        )
    };
    if one_of.is_empty() {
        return Some((format!("the statement takes `{}`, which has few values", kind.name()), instead()));
    }
    let other = one_of.iter().find(|value| !labels.contains(value))?;
    Some((format!("`{other}` is no value of `{}`", kind.name()), instead()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_never_ends_its_list() {
        let items =
            ["a", "b,c", "{d}", "e\"f", "g\\", "", "NULL", "é\n"].map(|item| Value::String(item.into()));
        let literal = text(&Value::Array(items.to_vec()), &Type::TEXT_ARRAY).unwrap();
        assert_eq!(literal, "{\"a\",\"b,c\",\"{d}\",\"e\\\"f\",\"g\\\\\",\"\",\"NULL\",\"é\n\"}");
    }
}
