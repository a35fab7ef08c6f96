//! What a token shows of itself: a JWT's claims, read without a key. They can only speak against it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_core::Secret;
use serde_json::{Map, Value};

use super::token_endpoint::{Asked, sound_lifetime};
use super::{Digest, NoCredential};

/// The claims of a token that is a JWT.
pub(super) fn claims(token: &Secret) -> Option<Map<String, Value>> {
    let mut parts = token.expose().split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// Refuses a token that shows another audience or none where one was asked for, more scopes, or an absurd end; gives how long
/// it lives. One that shows nothing is for its system to judge.
pub(super) fn judge(
    token: &Secret,
    asked: Asked<'_>,
    lifetime_seconds: Option<u64>,
) -> Result<Option<u64>, NoCredential> {
    let Some(claims) = claims(token) else { return Ok(lifetime_seconds) };
    if let Some(audience) = asked.audience
        && !claims.get("aud").is_some_and(|shown| is_for(shown, audience))
    {
        return Err(NoCredential::Unsound(
            "the token is not for the audience that was asked for, or not for it alone",
        ));
    }
    let carried = ["scope", "scp"].iter().filter_map(|name| claims.get(*name));
    asked.allows(carried.flat_map(words))?;
    let Some(ends) = claims.get("exp") else { return Ok(lifetime_seconds) };
    let ends = ends.as_f64().unwrap_or_default();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "seconds"
    )]
    let left = sound_lifetime((ends - asked.now.seconds() as f64).max(0.0) as u64)?;
    Ok(Some(lifetime_seconds.map_or(left, |said| said.min(left))))
}

/// Whether an `act` claim, where the token shows one, names one of these (RFC 8693 §4.1). `None`: it shows none.
pub(super) fn is_acted_by(token: &Secret, actors: &[&str]) -> Option<bool> {
    let claims = claims(token)?;
    let mut act = claims.get("act")?;
    loop {
        let named = ["sub", "client_id", "azp"].iter().filter_map(|name| act.get(*name)?.as_str());
        if named.into_iter().any(|name| actors.contains(&name)) {
            return Some(true);
        }
        match act.get("act") {
            Some(before) => act = before,
            None => return Some(false),
        }
    }
}

fn is_for(shown: &Value, audience: &str) -> bool {
    match shown {
        Value::String(one) => one == audience,
        Value::Array(all) => !all.is_empty() && all.iter().all(|one| one == audience),
        _ => false,
    }
}

fn words(claim: &Value) -> Vec<&str> {
    match claim {
        Value::String(text) => text.split(' ').filter(|word| !word.is_empty()).collect(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The digest of a token: names it without holding it.
pub(super) fn digest(token: &Secret) -> Digest {
    Digest::of(&[token.expose().as_bytes()])
}
