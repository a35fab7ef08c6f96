//! The Cedar schema of an action-space: each tool is an action with its arguments typed, each effect a group of actions.

use ringfence_actions::{ActionSpace, Param, ParamType, Scalar, Tool};
use ringfence_core::Effect;
use serde_json::{Map, Value as Json, json};

/// The group of all actions with this effect: `Action::"effect/read"`.
pub(crate) fn effect_group(effect: Effect) -> String {
    format!("effect/{effect}")
}

/// The schema, in Cedar's JSON form.
pub(crate) fn of(space: &ActionSpace) -> Json {
    let groups =
        [Effect::Read, Effect::Write, Effect::Irreversible].map(|effect| (effect_group(effect), json!({})));
    let tools = space.tools().map(|tool| (tool.name().to_string(), action(tool)));
    let actions: Map<String, Json> = groups.into_iter().chain(tools).collect();
    json!({ "": {
        "entityTypes": {
            "Group": {},
            "System": {},
            "User": {
                "memberOfTypes": ["Group"],
                "shape": record([("issuer", string()), ("subject", string())]),
            },
        },
        "actions": actions,
    }})
}

fn action(tool: &Tool) -> Json {
    json!({
        "memberOf": [{ "id": effect_group(tool.effect()) }],
        "appliesTo": {
            "principalTypes": ["User"],
            "resourceTypes": ["System"],
            "context": context(tool),
        },
    })
}

fn context(tool: &Tool) -> Json {
    let arguments: Map<String, Json> =
        tool.params().iter().map(|param| (param.name().to_string(), argument(param))).collect();
    record([
        ("agent", string()),
        ("approvals", set(&string())),
        ("arguments", json!({ "type": "Record", "attributes": arguments })),
        ("run", record([("id", string()), ("labels", set(&string()))])),
        ("time", json!({ "type": "Extension", "name": "datetime" })),
        (
            "tool",
            record([("effect", string()), ("external", json!({ "type": "Boolean" })), ("name", string())]),
        ),
    ])
}

fn argument(param: &Param) -> Json {
    let mut kind = match param.kind() {
        ParamType::Scalar(scalar) => scalar_type(scalar),
        ParamType::Array { items, .. } => set(&scalar_type(items)),
    };
    if let Json::Object(kind) = &mut kind {
        kind.insert("required".into(), (!param.optional()).into());
    }
    kind
}

fn scalar_type(scalar: &Scalar) -> Json {
    match scalar {
        Scalar::String { .. } => string(),
        Scalar::Integer { .. } => json!({ "type": "Long" }),
        Scalar::Number { .. } => json!({ "type": "Extension", "name": "decimal" }),
        Scalar::Boolean => json!({ "type": "Boolean" }),
    }
}

fn string() -> Json {
    json!({ "type": "String" })
}

fn set(of: &Json) -> Json {
    json!({ "type": "Set", "element": of })
}

fn record<const N: usize>(attributes: [(&str, Json); N]) -> Json {
    let attributes: Map<String, Json> =
        attributes.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect();
    json!({ "type": "Record", "attributes": attributes })
}
