//! The token endpoint (RFC 6749 §3.2): who asks, and by which grant.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ringfence_core::{Digest, Instant, Secret};
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use super::access::Access;
use super::answer::{Refused, unstored};
use super::authorize::no_such_resource;
use super::clients::{self, Client, Grant};
use super::codes::{Code, Shown};
use super::metadata::{AUTHORIZATION_CODE, CLIENT_CREDENTIALS, REFRESH_TOKEN, TOKEN_EXCHANGE};
use super::parameters::Parameters;
use super::refresh::{Family, Freshness};
use super::routes::{Shared, TOKEN};
use super::{door, exchange};
use crate::dpop;

/// What a request brings, whoever it is from.
pub(super) struct Asked<'a> {
    pub(super) shared: &'a Shared,
    pub(super) client: Arc<Client>,
    pub(super) parameters: Parameters,
    /// The thumbprint of the key that it proved to hold.
    pub(super) key: Option<String>,
    pub(super) now: Instant,
}

pub(super) async fn token(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    match given(&shared, &headers, &body).await {
        Ok(answer) => unstored(StatusCode::OK, &answer),
        Err(refused) => refused.into_response(),
    }
}

async fn given(shared: &Shared, headers: &HeaderMap, body: &[u8]) -> Result<Value, Refused> {
    let now = (shared.now)();
    let parameters = Parameters::read(body)?;
    let client = client(shared, headers, &parameters)?;
    let key = proved_key(shared, headers, now)?;
    let asked = Asked { shared, client, parameters, key, now };
    match asked.parameters.required("grant_type")? {
        AUTHORIZATION_CODE => by_code(&asked),
        REFRESH_TOKEN => by_refresh_token(&asked),
        CLIENT_CREDENTIALS => for_itself(&asked),
        TOKEN_EXCHANGE => exchange::exchanged(&asked).await,
        _ => Err(Refused::new("unsupported_grant_type", "see `grant_types_supported` in the metadata")),
    }
}

/// Who asks (RFC 6749 §2.3): by one way alone, and with its secret where it has one.
pub(super) fn client(
    shared: &Shared,
    headers: &HeaderMap,
    parameters: &Parameters,
) -> Result<Arc<Client>, Refused> {
    let wrong = || Refused::new("invalid_client", "the client or its secret is wrong");
    let in_body = parameters.optional("client_id");
    let secret_in_body = parameters.optional("client_secret").map(str::to_owned);
    let (id, secret) = match headers.get(header::AUTHORIZATION) {
        None => {
            let lacks = || Refused::new("invalid_client", "send `client_id`, or authenticate by `Basic`");
            (in_body.ok_or_else(lacks)?.to_owned(), secret_in_body)
        }
        Some(_) if secret_in_body.is_some() => {
            return Err(Refused::new("invalid_request", "send the client's secret by one way alone"));
        }
        Some(value) => {
            let (id, secret) = value.to_str().ok().and_then(basic).ok_or_else(wrong)?;
            (id, Some(secret))
        }
    };
    if in_body.is_some_and(|in_body| in_body != id) {
        return Err(Refused::new("invalid_request", "`client_id` is another one than in `Authorization`"));
    }
    let client = clients::of_token(shared, &id)?;
    let is_proved = match (&client.secret, secret.filter(|secret| !secret.is_empty())) {
        (None, None) => true,
        (Some(known), Some(sent)) => is_same(known.expose(), &sent),
        _ => false,
    };
    is_proved.then_some(client).ok_or_else(wrong)
}

/// Name and secret, each encoded as a form's value before they are put together (RFC 6749 §2.3.1).
fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, value) = header.split_once(' ')?;
    let decoded = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':').filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let plain = |text: &str| {
        // As the value of a form that has one: `&` and `=` stand for themselves here.
        let text = text.replace('&', "%26").replace('=', "%3D");
        url::form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into_owned())
    };
    Some((plain(id).unwrap_or_default(), plain(secret).unwrap_or_default()))
}

fn is_same(known: &str, sent: &str) -> bool {
    let hash = |text: &str| Digest::of(&[text.as_bytes()]);
    verify_slices_are_equal(hash(known).as_bytes(), hash(sent).as_bytes()).is_ok()
}

/// The key that the request proves to hold (RFC 9449 §5), where it brings a proof.
fn proved_key(shared: &Shared, headers: &HeaderMap, now: Instant) -> Result<Option<String>, Refused> {
    let refused = |why: String| Refused::new("invalid_dpop_proof", why);
    let mut proofs = headers.get_all("dpop").iter();
    let Some(proof) = proofs.next() else { return Ok(None) };
    if proofs.next().is_some() {
        return Err(refused("send one DPoP proof".to_owned()));
    }
    let proof = proof.to_str().map_err(|_| refused("the DPoP proof is not text".to_owned()))?;
    let url = Url::parse(&format!("{}{TOKEN}", shared.issuer.name())).map_err(|_| Refused::server())?;
    let expected = dpop::Expected { method: "POST", url: &url, token: None, key: None, owner: None };
    let key = dpop::check(proof, &expected, now, &shared.issuer.spent_proofs);
    key.map(Some).map_err(|why| refused(why.to_string()))
}

/// RFC 6749 §4.1.3. A code that comes is spent, whatever else is wrong; one that comes again ends what it led to.
fn by_code(asked: &Asked<'_>) -> Result<Value, Refused> {
    let text = asked.parameters.required("code")?;
    let verifier = asked.parameters.required("code_verifier")?;
    let login = Uuid::now_v7();
    let wrong =
        || Refused::new("invalid_grant", "the code is not good, or not for this; let the user log in again");
    let code = {
        let mut state = asked.shared.issuer.state();
        match state.codes.show(text, login, asked.now) {
            Shown::First(code) => code,
            Shown::Nothing => return Err(wrong()),
            Shown::Again(login) => {
                state.families.end(login);
                return Err(wrong());
            }
        }
    };
    let is_for_this = code.client == asked.client.id
        && asked.parameters.optional("redirect_uri") == Some(&code.redirect_uri)
        && is_verifier(verifier, &code.challenge)
        && (code.key.is_none() || code.key == asked.key);
    if !is_for_this {
        return Err(wrong());
    }
    is_resource(asked, &code.resource)?;
    begin_login(asked, login, code)
}

/// What only the one who began the login knows (RFC 7636 §4.6).
fn is_verifier(verifier: &str, challenge: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let is_form = (43..=128).contains(&verifier.len()) && verifier.bytes().all(legal);
    let hash = URL_SAFE_NO_PAD.encode(Digest::of(&[verifier.as_bytes()]).as_bytes());
    is_form && verify_slices_are_equal(hash.as_bytes(), challenge.as_bytes()).is_ok()
}

/// A client that names a resource here means the one that the user agreed to (RFC 8707 §2.2).
fn is_resource(asked: &Asked<'_>, resource: &str) -> Result<(), Refused> {
    let is_same = asked.parameters.optional("resource").is_none_or(|named| door::is_same(resource, named));
    is_same.then_some(()).ok_or_else(no_such_resource)
}

fn begin_login(asked: &Asked<'_>, login: Uuid, code: Code) -> Result<Value, Refused> {
    // A client without a secret shows by its key that it is still the same one (RFC 9449 §5).
    let key = asked.key.clone().filter(|_| asked.client.secret.is_none());
    let Code { client, user, resource, scopes, .. } = code;
    let family = Family { client, user, resource, scopes, key };
    let refresh = {
        let mut state = asked.shared.issuer.state();
        state.registered.is_used(&family.client);
        state.families.begin(login, family.clone(), asked.now)
    };
    let refresh = refresh.ok_or_else(Refused::server)?;
    of_login(asked, login, &family, &family.scopes, &refresh)
}

/// RFC 6749 §6, once each.
fn by_refresh_token(asked: &Asked<'_>) -> Result<Value, Refused> {
    let token = asked.parameters.required("refresh_token")?;
    let ended =
        || Refused::new("invalid_grant", "the refresh token is not good any more; let the user log in again");
    // Looked at and spent in one step: of two that come at once, the second is the one too many.
    let mut state = asked.shared.issuer.state();
    let (login, family, freshness) = state.families.of(token, asked.now).ok_or_else(ended)?;
    let family = family.clone();
    if family.client != asked.client.id {
        return Err(ended());
    }
    if freshness == Freshness::Spent || asked.shared.issuer.user(&family.user).is_none() {
        state.families.end(login);
        return Err(ended());
    }
    if family.key.is_some() && family.key != asked.key {
        return Err(Refused::new("invalid_dpop_proof", "prove the key that this login began with"));
    }
    is_resource(asked, &family.resource)?;
    let scopes = narrowed(&asked.parameters, &family.scopes)?;
    let next = state.families.rotate(login).ok_or_else(Refused::server)?;
    drop(state);
    of_login(asked, login, &family, &scopes, &next)
}

/// The scopes that are asked for, which are among those that were granted; all of them where none is asked for.
pub(super) fn narrowed(parameters: &Parameters, granted: &[String]) -> Result<Vec<String>, Refused> {
    let wanted = parameters.words("scope");
    if wanted.is_empty() {
        return Ok(granted.to_vec());
    }
    let why = "a scope was not granted; ask for fewer, or let the user log in again";
    let is_granted = wanted.iter().all(|scope| granted.contains(scope));
    is_granted.then_some(wanted).ok_or_else(|| Refused::new("invalid_scope", why))
}

fn of_login(
    asked: &Asked<'_>,
    login: Uuid,
    family: &Family,
    scopes: &[String],
    refresh: &Secret,
) -> Result<Value, Refused> {
    let gone = || Refused::new("invalid_grant", "nobody of that name can log in any more");
    let user = asked.shared.issuer.user(&family.user).ok_or_else(gone)?;
    let scope = scopes.join(" ");
    let access = Access {
        user: Some(&user),
        scope: &scope,
        login: Some(login),
        key: asked.key.as_deref(),
        ..Access::new(&family.user, &family.client, &family.resource)
    };
    let mut answer = answer(asked, &access)?;
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("refresh_token".into(), refresh.expose().into());
    }
    Ok(answer)
}

/// RFC 6749 §4.4: an application, in its own name. Where it names no door it means the people's, where runs are started.
fn for_itself(asked: &Asked<'_>) -> Result<Value, Refused> {
    asked.client.may(Grant::ClientCredentials)?;
    if asked.client.secret.is_none() {
        return Err(Refused::new("unauthorized_client", "only a client with a secret can ask for itself"));
    }
    let issuer = &asked.shared.issuer;
    let resource = match asked.parameters.optional("resource") {
        Some(named) => issuer.door(Some(named)),
        None => issuer.settings.resources.last().map(String::as_str),
    };
    let resource = resource.ok_or_else(no_such_resource)?;
    let scope = narrowed(&asked.parameters, &issuer.settings.logins.scopes)?.join(" ");
    let id = &asked.client.id;
    let access = Access { scope: &scope, key: asked.key.as_deref(), ..Access::new(id, id, resource) };
    answer(asked, &access)
}

/// The answer with an access token (RFC 6749 §5.1).
pub(super) fn answer(asked: &Asked<'_>, access: &Access<'_>) -> Result<Value, Refused> {
    let token = asked.shared.issuer.issue(access, asked.now).ok_or_else(Refused::server)?;
    Ok(json!({
        "access_token": token.expose(),
        "token_type": access.token_type(),
        "expires_in": access.lifetime_seconds,
        "scope": access.scope,
    }))
}
