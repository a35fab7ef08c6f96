//! What programs in each language begin and end with, and how one is run outside of any sandbox.

use ringfence_sandbox::Language;
use serde_json::Value;

/// A program with what all of its language begin with and what it is told; it says `tried` at its end.
pub(crate) fn program(language: Language, source: &str, given: &Value) -> String {
    match language {
        Language::Python => {
            let given = serde_json::to_string(&given.to_string()).unwrap();
            let prelude = include_str!("../programs/prelude.py");
            format!("GIVEN_TEXT = {given}\n{prelude}\n{source}\nsay('tried')\n")
        }
        Language::Bash => {
            let prelude = include_str!("../programs/prelude.sh");
            format!("{}{prelude}\n{source}\nsay tried\n", variables(given))
        }
        Language::Node => {
            let prelude = include_str!("../programs/prelude.js");
            format!("const GIVEN = {given};\n{prelude}\n(async () => {{\n{source}\nsay('tried');\n}})();\n")
        }
    }
}

/// What runs a program that is its last word.
pub(crate) fn command(language: Language) -> &'static [&'static str] {
    match language {
        Language::Python => &["/usr/bin/python3", "-I", "-B", "-c"],
        Language::Bash => &["/usr/bin/bash", "--norc", "--noprofile", "-c"],
        Language::Node => &["/usr/bin/env", "node", "-e"],
    }
}

/// What it is told, as variables in capitals.
fn variables(given: &Value) -> String {
    let quoted = |value: &Value| match value {
        Value::String(text) => format!("'{}'", text.replace('\'', "'\\''")),
        Value::Bool(true) => "1".to_owned(),
        Value::Bool(false) | Value::Null => String::new(),
        other => other.to_string(),
    };
    let mut lines = String::new();
    for (name, value) in given.as_object().unwrap() {
        let value = match value {
            Value::Array(values) => {
                format!("({})", values.iter().map(quoted).collect::<Vec<_>>().join(" "))
            }
            value => quoted(value),
        };
        lines.extend([&name.to_ascii_uppercase(), "=", &value, "\n"]);
    }
    lines
}
