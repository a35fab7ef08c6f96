//! Token exchange (RFC 8693): for somebody whose token a client holds, at the audiences and with the scopes that the table has
//! for that client. The answer is never wider than what was asked for, and never outlives what it came from.

use ringfence_core::Secret;
use serde_json::{Value, json};

use super::access::Access;
use super::answer::Refused;
use super::clients::Grant;
use super::token::{Asked, answer};
use crate::VerifiedToken;

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// How long a token that came of another lives at the most, in seconds.
const LIFETIME_SECONDS: u64 = 60;
/// Actors that a token names at the most.
const ACTORS_MAX: usize = 5;

pub(super) async fn exchanged(asked: &Asked<'_>) -> Result<Value, Refused> {
    asked.client.may(Grant::TokenExchange)?;
    if asked.client.secret.is_none() {
        return Err(Refused::new("unauthorized_client", "only a client with a secret can exchange tokens"));
    }
    kinds(asked)?;
    let subject = subject(asked).await?;
    let (audience, scope) = target(asked, &subject)?;
    let user = asked.shared.issuer.user(&subject.subject);
    let left = subject.expires.seconds().saturating_sub(asked.now.seconds());
    let access = Access {
        user: user.as_ref(),
        scope: &scope,
        lifetime_seconds: left.min(LIFETIME_SECONDS),
        key: asked.key.as_deref(),
        actors: Some(actors(&asked.client.id, &subject)?),
        ..Access::new(&subject.subject, &asked.client.id, audience)
    };
    let mut answer = answer(asked, &access)?;
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("issued_token_type".into(), ACCESS_TOKEN.into());
    }
    Ok(answer)
}

/// An access token for an access token; the client itself is the actor.
fn kinds(asked: &Asked<'_>) -> Result<(), Refused> {
    let refused = |why: String| Refused::new("invalid_request", why);
    for (name, is_needed) in [("subject_token_type", true), ("requested_token_type", false)] {
        let kind = asked.parameters.optional(name);
        if kind.map_or(is_needed, |kind| kind != ACCESS_TOKEN) {
            return Err(refused(format!("write `{name}={ACCESS_TOKEN}`")));
        }
    }
    match asked.parameters.optional("actor_token") {
        Some(_) => Err(refused("leave `actor_token` out: the client itself is the actor".to_owned())),
        None => Ok(()),
    }
}

/// The token that is exchanged: from here, for one of the doors, and still good.
async fn subject(asked: &Asked<'_>) -> Result<VerifiedToken, Refused> {
    let issuer = &asked.shared.issuer;
    let token = Secret::new(asked.parameters.required("subject_token")?.to_owned());
    let is_for_a_door = |token: &VerifiedToken| {
        let audience = token.claims.get("aud").and_then(Value::as_str);
        issuer.settings.resources.iter().any(|door| audience == Some(door))
    };
    let why = "the subject token is not good, or not for one of the gateway's doors";
    let verified = issuer.active(&token, asked.now).await.filter(is_for_a_door);
    verified.ok_or_else(|| Refused::new("invalid_grant", why))
}

/// The audience and the scopes, where the table has them for this client.
fn target<'a>(asked: &'a Asked<'_>, subject: &VerifiedToken) -> Result<(&'a str, String), Refused> {
    let target = match (asked.parameters.optional("audience"), asked.parameters.optional("resource")) {
        (Some(audience), None) => audience,
        (None, Some(resource)) => resource,
        _ => return Err(Refused::new("invalid_request", "name one `audience`, or one `resource`")),
    };
    let why = "this client may not exchange tokens for that audience; see its `may-exchange`";
    let allowed = asked.client.may_exchange.get_key_value(target);
    let (audience, allowed) = allowed.ok_or_else(|| Refused::new("invalid_target", why))?;
    let wanted = asked.parameters.words("scope");
    // At a door of the gateway the user's own token is a bound as well; elsewhere its scopes mean nothing.
    let is_door = asked.shared.issuer.settings.resources.contains(audience);
    let may = |scope: &String| allowed.contains(scope) && (!is_door || subject.scopes.contains(scope));
    let why = "a scope is not allowed for this client and token; ask for fewer";
    if wanted.iter().all(may) {
        Ok((audience, wanted.join(" ")))
    } else {
        Err(Refused::new("invalid_scope", why))
    }
}

/// Who acts: this client, for whoever acted before it, back to the one that the user let in (RFC 8693 §4.1).
fn actors(client: &str, subject: &VerifiedToken) -> Result<Value, Refused> {
    let before = subject.claims.get("act").cloned().unwrap_or_else(|| json!({ "sub": subject.client }));
    let mut depth = 1;
    let mut actor = &before;
    while let Some(further) = actor.get("act") {
        (actor, depth) = (further, depth + 1);
    }
    if depth >= ACTORS_MAX {
        return Err(Refused::new("invalid_request", "too many act for one another already"));
    }
    Ok(json!({ "sub": client, "act": before }))
}
