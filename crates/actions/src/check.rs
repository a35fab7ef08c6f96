//! What an agent sent becomes checked arguments, or a refusal that names every field that is wrong.

use std::collections::BTreeMap;

use ringfence_core::{
    Arguments, Decimal, Field, ParamName, Principal, Refusal, RefusalClass, Retry, Value, Wall,
};
use serde_json::Value as Json;

use crate::file::list;
use crate::param::{Binding, Param, ParamType, Scalar, Source};
use crate::{Tool, nearest};

/// The most fields that one refusal lists; a flood of wrong fields makes no flood of text.
const FIELDS_MAX: usize = 16;

impl Tool {
    /// Checks what the agent sent against every constraint, adds what comes from the principal, and takes nothing else.
    ///
    /// `given` comes from a reader that refuses duplicate keys. A parameter bound to the principal is unknown here:
    /// the agent can neither set it nor learn that it exists.
    pub fn check(
        &self,
        given: &serde_json::Map<String, Json>,
        principal: &Principal,
    ) -> Result<Arguments, Refusal> {
        let mut wrong = self.unknown_fields(given);
        let mut values = BTreeMap::new();
        for param in self.params() {
            match value_of(param, given, principal) {
                Ok(Some(value)) => drop(values.insert(param.name().clone(), value)),
                Ok(None) => {}
                Err(Wrong::Field(field)) => wrong.push(field),
                Err(Wrong::Claim) => return Err(claim_missing()),
            }
        }
        if wrong.is_empty() { Ok(Arguments::new(values)) } else { Err(refuse(wrong)) }
    }

    fn unknown_fields(&self, given: &serde_json::Map<String, Json>) -> Vec<Field> {
        let offered =
            || self.params().iter().filter(|param| *param.source() == Source::Agent).map(Param::name);
        let unknown = given.keys().filter(|key| !offered().any(|name| name.as_str() == key.as_str()));
        unknown.take(FIELDS_MAX + 1).map(|key| unknown_field(key, offered())).collect()
    }
}

fn unknown_field<'a>(key: &str, offered: impl Iterator<Item = &'a ParamName>) -> Field {
    let offered: Vec<&str> = offered.map(ParamName::as_str).collect();
    let allowed = match nearest::of(key, offered.iter().copied(), 1).first() {
        Some(near) => format!("did you mean `{near}`?"),
        None if offered.is_empty() => "no arguments at all".to_owned(),
        None => format!("only {}", list(&offered)),
    };
    field(key, "this tool has no such argument", allowed)
}

fn field(name: &str, problem: impl Into<String>, allowed: impl Into<String>) -> Field {
    Field { field: name.chars().take(64).collect(), problem: problem.into(), allowed: allowed.into() }
}

fn refuse(mut wrong: Vec<Field>) -> Refusal {
    wrong.truncate(FIELDS_MAX);
    let message = match wrong.as_slice() {
        [one] => format!("argument `{}`: {}; {}", one.field, one.problem, one.allowed),
        many => format!("{} arguments are wrong; see `fields`", many.len()),
    };
    let retry = Retry::WithChange;
    let refusal =
        Refusal::new("argument_invalid", RefusalClass::Arguments, Wall::ActionSpace, retry, message);
    Refusal { fields: wrong, ..refusal }
}

/// What an agent is told where its user's identity lacks a claim that a tool or its system needs.
#[must_use]
pub fn claim_missing() -> Refusal {
    Refusal::new(
        "claim_missing",
        RefusalClass::Arguments,
        Wall::Identity,
        Retry::Never,
        "your identity lacks a claim that this tool needs; the user's administrator has to add it",
    )
}

enum Wrong {
    Field(Field),
    Claim,
}

fn value_of(
    param: &Param,
    given: &serde_json::Map<String, Json>,
    principal: &Principal,
) -> Result<Option<Value>, Wrong> {
    let name = param.name().as_str();
    match param.source() {
        Source::Principal(binding) => {
            let claim = bound(binding, principal).ok_or(Wrong::Claim)?;
            typed(param.kind(), &claim).map(Some).map_err(|_| Wrong::Claim)
        }
        Source::Agent => match given.get(name) {
            Some(value) => {
                let wrong = |reason: Reason| Wrong::Field(field(name, reason.problem, reason.allowed));
                typed(param.kind(), value).map(Some).map_err(wrong)
            }
            None if param.optional() => Ok(None),
            None => Err(Wrong::Field(field(name, "it is missing", allowed(param.kind())))),
        },
    }
}

fn bound(binding: &Binding, principal: &Principal) -> Option<Json> {
    match binding {
        Binding::Subject => Some(principal.subject().into()),
        Binding::Issuer => Some(principal.issuer().into()),
        Binding::Claim(name) => principal.claims().get(name).cloned(),
    }
}

struct Reason {
    problem: String,
    allowed: String,
}

fn typed(kind: &ParamType, given: &Json) -> Result<Value, Reason> {
    match kind {
        ParamType::Scalar(scalar) => typed_scalar(scalar, given),
        ParamType::Array { items, items_min, items_max } => {
            let because = |problem: String| Reason { problem, allowed: allowed(kind) };
            let list = given.as_array().ok_or_else(|| because(wrong_type(given)))?;
            if !(*items_min..=*items_max).contains(&(list.len() as u64)) {
                return Err(because(format!("it has {} items", list.len())));
            }
            let values = list.iter().enumerate().map(|(index, item)| {
                typed_scalar(items, item)
                    .map_err(|reason| because(format!("item {index}: {}", reason.problem)))
            });
            values.collect::<Result<_, _>>().map(Value::Array)
        }
    }
}

fn typed_scalar(scalar: &Scalar, given: &Json) -> Result<Value, Reason> {
    let because = |problem: String| Reason { problem, allowed: allowed_scalar(scalar) };
    match (scalar, given) {
        (Scalar::String { .. }, Json::String(text)) => string_problem(scalar, text)
            .map_or_else(|| Ok(Value::String(text.clone())), |why| Err(because(why.into()))),
        (Scalar::Integer { minimum, maximum }, Json::Number(number)) => {
            let integer = integer(&number.to_string())
                .ok_or_else(|| because("it is not a whole number of 64 bits".into()))?;
            let fits = (*minimum..=*maximum).contains(&integer);
            if fits { Ok(Value::Integer(integer)) } else { Err(because("it is out of range".into())) }
        }
        (Scalar::Number { minimum, maximum }, Json::Number(number)) => {
            let decimal = Decimal::parse(&number.to_string());
            let decimal = decimal.ok_or_else(|| {
                because("it has more than four digits after the point, or is too large".into())
            })?;
            let fits =
                minimum.is_none_or(|least| decimal >= least) && maximum.is_none_or(|most| decimal <= most);
            if fits { Ok(Value::Number(decimal)) } else { Err(because("it is out of range".into())) }
        }
        (Scalar::Boolean, Json::Bool(truth)) => Ok(Value::Boolean(*truth)),
        _ => Err(because(wrong_type(given))),
    }
}

/// JSON Schema's `integer` accepts `1.0` and `1e2`: they are the whole numbers 1 and 100.
fn integer(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let decimal = Decimal::parse(text)?.to_string();
    decimal.strip_suffix(".0")?.parse().ok()
}

fn string_problem(scalar: &Scalar, text: &str) -> Option<&'static str> {
    let Scalar::String { pattern, format, one_of, length_min, length_max } = scalar else { return None };
    // A NUL ends a string early in C libraries downstream, so that two readers would see two texts.
    if text.contains('\0') {
        return Some("it contains a NUL character");
    }
    let length = text.chars().count() as u64;
    if length < *length_min || length > *length_max {
        return Some("its length is out of range");
    }
    if !one_of.is_empty() && !one_of.iter().any(|value| value == text) {
        return Some("it is not one of the allowed values");
    }
    if pattern.as_ref().is_some_and(|pattern| !pattern.is_match(text)) {
        return Some("it does not match the pattern");
    }
    if format.is_some_and(|format| !format.matches(text)) {
        return Some("it does not have the format");
    }
    None
}

fn wrong_type(given: &Json) -> String {
    let word = match given {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    };
    format!("it is {word}")
}

fn allowed(kind: &ParamType) -> String {
    match kind {
        ParamType::Scalar(scalar) => allowed_scalar(scalar),
        ParamType::Array { items, items_min, items_max } => {
            format!("an array of {items_min} to {items_max} items, each {}", allowed_scalar(items))
        }
    }
}

fn allowed_scalar(scalar: &Scalar) -> String {
    match scalar {
        Scalar::String { pattern, format, one_of, length_min, length_max } => {
            if !one_of.is_empty() {
                return format!("one of {}", list(one_of));
            }
            if let Some(format) = format {
                return format!("a {} such as `{}`", format.name(), format.example());
            }
            let pattern = pattern.as_ref().map(|pattern| format!(" that matches `{}`", pattern.as_str()));
            format!("a string of {length_min} to {length_max} characters{}", pattern.unwrap_or_default())
        }
        Scalar::Integer { minimum, maximum } => format!("a whole number from {minimum} to {maximum}"),
        Scalar::Number { minimum, maximum } => {
            let at_least = minimum.map(|least| format!(", at least {least}")).unwrap_or_default();
            let at_most = maximum.map(|most| format!(", at most {most}")).unwrap_or_default();
            format!("a number with at most four digits after the point{at_least}{at_most}")
        }
        Scalar::Boolean => "`true` or `false`".to_owned(),
    }
}
