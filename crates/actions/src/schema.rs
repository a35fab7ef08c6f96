//! The JSON Schema (2020-12) that the model sees: every constraint that the check enforces stands in it.

use ringfence_core::Decimal;
use serde_json::{Map, Value as Json, json};

use crate::Tool;
use crate::param::{Param, ParamType, Scalar, Source};

impl Tool {
    /// The schema of the arguments that an agent may send. Parameters bound to the principal are absent.
    #[must_use]
    pub fn input_schema(&self) -> Json {
        let offered = || self.params().iter().filter(|param| *param.source() == Source::Agent);
        let properties: Map<String, Json> =
            offered().map(|param| (param.name().to_string(), property(param))).collect();
        let required: Vec<&str> =
            offered().filter(|param| !param.optional()).map(|param| param.name().as_str()).collect();
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    }
}

/// What no keyword of JSON Schema says so that every validator agrees.
const NUMBER_DESCRIBE: &str = "at most four digits after the point";

fn property(param: &Param) -> Json {
    let mut schema = match param.kind() {
        ParamType::Scalar(scalar) => scalar_schema(scalar),
        ParamType::Array { items, items_min, items_max } => {
            let mut schema = keyword("type", "array");
            schema.insert("items".into(), Json::Object(scalar_schema(items)));
            schema.insert("minItems".into(), (*items_min).into());
            schema.insert("maxItems".into(), (*items_max).into());
            schema
        }
    };
    if let Some(describe) = param.describe() {
        let precision = schema.get("description").and_then(Json::as_str);
        let both = precision.map(|precision| format!("{describe} ({precision})"));
        schema.insert("description".into(), both.unwrap_or_else(|| describe.to_owned()).into());
    }
    Json::Object(schema)
}

fn keyword(name: &str, value: impl Into<Json>) -> Map<String, Json> {
    Map::from_iter([(name.to_owned(), value.into())])
}

fn scalar_schema(scalar: &Scalar) -> Map<String, Json> {
    match scalar {
        Scalar::String { .. } => string_schema(scalar),
        Scalar::Integer { minimum, maximum } => {
            let mut schema = keyword("type", "integer");
            schema.insert("minimum".into(), (*minimum).into());
            schema.insert("maximum".into(), (*maximum).into());
            schema
        }
        Scalar::Number { minimum, maximum } => {
            let mut schema = keyword("type", "number");
            // Not `multipleOf`: validators divide in binary, and then 19.99 is no multiple of 0.0001.
            schema.insert("description".into(), NUMBER_DESCRIBE.into());
            let bounds =
                [("minimum", minimum.unwrap_or(Decimal::MIN)), ("maximum", maximum.unwrap_or(Decimal::MAX))];
            schema.extend(bounds.map(|(word, bound)| (word.to_owned(), decimal(&bound.to_string()))));
            schema
        }
        Scalar::Boolean => keyword("type", "boolean"),
    }
}

fn string_schema(scalar: &Scalar) -> Map<String, Json> {
    let Scalar::String { pattern, format, one_of, length_min, length_max } = scalar else {
        return Map::new();
    };
    let mut schema = keyword("type", "string");
    schema.insert("minLength".into(), (*length_min).into());
    schema.insert("maxLength".into(), (*length_max).into());
    if !one_of.is_empty() {
        schema.insert("enum".into(), one_of.clone().into());
    }
    let patterns: Vec<&str> = pattern
        .iter()
        .map(regex::Regex::as_str)
        .chain(format.iter().map(|format| format.pattern()))
        .collect();
    match patterns.as_slice() {
        [] => {}
        [one] => drop(schema.insert("pattern".into(), (*one).into())),
        many => {
            let all: Vec<Json> = many.iter().map(|pattern| json!({ "pattern": pattern })).collect();
            schema.insert("allOf".into(), all.into());
        }
    }
    if let Some(word) = format.and_then(crate::Format::schema_keyword) {
        schema.insert("format".into(), word.into());
    }
    schema
}

/// A decimal as a JSON number, digit for digit.
fn decimal(text: &str) -> Json {
    debug_assert!(Decimal::parse(text).is_some(), "{text} is a decimal");
    serde_json::from_str(text).unwrap_or_default()
}
