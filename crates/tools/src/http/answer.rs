//! An answer: bounded, projected onto the declared fields, with the credential searched for and redacted.

use reqwest::{Response, StatusCode};
use ringfence_actions::{HttpRequest, Tool};
use ringfence_core::{Effect, Refusal, RefusalClass, Retry, Wall};
use ringfence_identity::credential::Held;
use ringfence_sandbox::egress::Finder;
use serde_json::{Map, Value as Json, json};

use crate::Outcome;

pub(super) async fn read(
    response: Response,
    tool: &Tool,
    request: &HttpRequest,
    credential: Option<&Held>,
) -> Outcome {
    let status = response.status();
    if !status.is_success() {
        return unsuccessful(status, tool.effect());
    }
    let body = match bounded(response, tool.limits().bytes).await {
        Ok(body) => body,
        // The system said yes before the body broke: a write has happened.
        Err(why) if tool.effect() == Effect::Read => return Outcome::failed(unreadable(why)),
        Err(why) => return Outcome::done(json!({ "done": true, "note": why }), 0, 0),
    };
    if body.is_empty() {
        return Outcome::done(json!({ "done": true }), 0, 0);
    }
    let default = ringfence_mcp::json::Limits::default();
    let bytes_max = usize::try_from(tool.limits().bytes).unwrap_or(default.bytes_max).max(default.bytes_max);
    let limits = ringfence_mcp::json::Limits { bytes_max, ..default };
    let Ok(parsed) = ringfence_mcp::json::read(&body, &limits) else {
        let why = "its answer was not JSON";
        return match tool.effect() {
            Effect::Read => Outcome::failed(unreadable(why)),
            Effect::Write | Effect::Irreversible => Outcome::done(json!({ "done": true, "note": why }), 0, 0),
        };
    };
    let (mut result, rows) = project(parsed, &request.returns, tool.limits().rows);
    if let Some(credential) = credential {
        redact(&mut result, &Finder::of(std::iter::once(credential.secret.expose())));
    }
    let bytes = result.to_string().len() as u64;
    Outcome::done(result, rows, bytes)
}

async fn bounded(mut response: Response, most: u64) -> Result<Vec<u8>, &'static str> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() as u64 + chunk.len() as u64 > most => {
                return Err("its answer was too large");
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(_) => return Err("its answer broke off"),
        }
    }
}

/// The declared fields of an object, or of each object of a list; anything else does not pass.
fn project(answer: Json, fields: &[String], rows_max: u64) -> (Json, u64) {
    let rows_max = usize::try_from(rows_max).unwrap_or(usize::MAX);
    match answer {
        Json::Array(items) => {
            let truncated = items.len() > rows_max;
            let rows: Vec<Json> = items.into_iter().take(rows_max).map(|item| pick(item, fields)).collect();
            let count = rows.len() as u64;
            (json!({ "rows": rows, "truncated": truncated }), count)
        }
        other => (pick(other, fields), 1),
    }
}

fn pick(item: Json, fields: &[String]) -> Json {
    let Json::Object(mut object) = item else { return Json::Null };
    let picked = fields.iter().filter_map(|field| Some((field.clone(), object.remove(field)?)));
    Json::Object(picked.collect::<Map<_, _>>())
}

/// Blots the secret out wherever the system echoes it, in whatever spelling: texts, numbers, and names of fields.
fn redact(value: &mut Json, secrets: &Finder) {
    match value {
        Json::String(text) => {
            if let Some(blotted) = secrets.blotted(text) {
                *text = blotted;
            }
        }
        Json::Number(number) => {
            if let Some(blotted) = secrets.blotted(&number.to_string()) {
                *value = Json::String(blotted);
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|item| redact(item, secrets)),
        Json::Object(object) => {
            let fields = std::mem::take(object).into_iter().map(|(name, mut value)| {
                redact(&mut value, secrets);
                (secrets.blotted(&name).unwrap_or(name), value)
            });
            *object = fields.collect();
        }
        Json::Bool(_) | Json::Null => {}
    }
}

/// What an answer without success means. A write is certain to have had no effect only where the system says that the request
/// itself was at fault or came too often (RFC 9110 §15.5, RFC 6585 §4). 408 and 425 speak of the connection, and every 5xx, 503
/// from something in between included, may come after the system has acted.
fn unsuccessful(status: StatusCode, effect: Effect) -> Outcome {
    match (effect, status.as_u16()) {
        // The answer to what was done stands elsewhere (RFC 9110 §15.4.4).
        (Effect::Write | Effect::Irreversible, 303) => Outcome::done(json!({ "done": true }), 0, 0),
        (Effect::Read, _) | (_, 400..=407 | 409..=424 | 426..=499) => Outcome::failed(refused(status)),
        _ => {
            let refusal = refused(status);
            let message = format!("{}; whether it acted is not known", refusal.message);
            Outcome::unknown(Refusal { code: "outcome_unknown", retry: Retry::Never, message, ..refusal })
        }
    }
}

/// What the agent is told of a refusal by the system. Its text does not pass: it may hold values, or instructions.
fn refused(status: StatusCode) -> Refusal {
    let refuse = |code, retry, message: &str| {
        Refusal::new(
            code,
            RefusalClass::Upstream,
            Wall::System,
            retry,
            format!("{message} (HTTP {})", status.as_u16()),
        )
    };
    match status.as_u16() {
        401 | 403 => refuse("system_forbids", Retry::Never, "the system does not let this user do that"),
        404 | 410 => {
            refuse("not_found", Retry::WithChange, "the system has no such thing, or hides it from this user")
        }
        409 | 412 => {
            refuse("conflict", Retry::WithChange, "the thing has changed in the meantime; read it again")
        }
        429 | 503 => refuse("system_busy", Retry::Later, "the system is busy"),
        400..=499 => refuse("system_rejects", Retry::WithChange, "the system did not accept these values"),
        300..=399 => {
            refuse("system_redirects", Retry::Never, "the system pointed elsewhere, which is not followed")
        }
        _ => refuse("system_failed", Retry::Later, "the system failed"),
    }
}

fn unreadable(why: &str) -> Refusal {
    let message = format!("the system could not be understood: {why}");
    Refusal::new("system_failed", RefusalClass::Upstream, Wall::System, Retry::Later, message)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn a_credential_is_blotted_out_of_texts_numbers_and_names_in_every_spelling() {
        let secret = "9081726354-Token";
        let encoded = STANDARD.encode(format!("x:{secret}"));
        let percent: Vec<String> = secret.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let mut answer = json!({
            "plain": format!("Bearer {secret}!"), "upper": secret.to_uppercase(), "base64": encoded,
            "percent": percent.concat(), secret: [{ "deep": secret }], "fine": 12, "none": null
        });
        redact(&mut answer, &Finder::of([secret, "4111222233334444"].into_iter()));
        let shown = answer.to_string();
        assert!(!shown.to_lowercase().contains("token") && !shown.contains("%39"), "{shown}");
        assert_eq!((&answer["plain"], &answer["fine"]), (&json!("Bearer ****************!"), &json!(12)));
        assert_eq!(answer["****************"][0]["deep"], "****************");
        let mut number = json!({ "card": 4_111_222_233_334_444_u64 });
        redact(&mut number, &Finder::of(["4111222233334444"].into_iter()));
        assert_eq!(number["card"], "****************");
    }
}
