//! The authorization endpoint (RFC 6749 §4.1.1): what a client asks for, shown to whoever sits at the browser, and their answer.
//!
//! Nothing is remembered between the page and the answer: the form holds the request, sealed.

use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_core::Instant;
use url::Url;

use super::answer::Refused;
use super::clients::{self, Client, Grant};
use super::codes::Code;
use super::page::{self, Login};
use super::parameters::Parameters;
use super::redirect::RedirectUri;
use super::routes::Shared;

/// How long a page waits for its answer, in milliseconds.
const FORM_MS: u64 = 600_000;
/// The longest `state`, in bytes: it comes back in a URL.
const STATE_BYTES_MAX: usize = 4096;

/// A request that can be answered by a person.
struct Request {
    client: Arc<Client>,
    back: Back,
    challenge: String,
    key: Option<String>,
    resource: String,
    scopes: Vec<String>,
}

/// Where the answer goes: an address that the client named beforehand, as it stands in the request.
struct Back {
    uri: RedirectUri,
    state: Option<String>,
}

/// Why there is nothing to ask a person.
enum Unfit {
    /// Nobody may be sent back: whoever asked is not known, or wants it sent elsewhere.
    Shown(Refused),
    /// The client is told.
    SentBack(Back, Refused),
}

pub(super) async fn ask(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let now = (shared.now)();
    match read(&shared, query.as_bytes(), now).await {
        Ok(request) => show(&shared, &request, &query, now),
        Err(unfit) => refuse(&shared, unfit),
    }
}

pub(super) async fn answer(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    match answered(&shared, &headers, &body).await {
        Ok(response) => response,
        Err(unfit) => refuse(&shared, unfit),
    }
}

async fn answered(shared: &Shared, headers: &HeaderMap, body: &[u8]) -> Result<Response, Unfit> {
    let now = (shared.now)();
    let form = Parameters::read(body).map_err(Unfit::Shown)?;
    let asked = form.required("request").map_err(Unfit::Shown)?;
    let seal = form.required("seal").map_err(Unfit::Shown)?;
    if !is_from_here(headers) || !is_sealed(&shared.issuer.form_key, asked, seal, now) {
        let why = "this answer is not from a page that was shown here, or it is too old; begin again in the application";
        return Err(Unfit::Shown(Refused::new("invalid_request", why)));
    }
    let request = read(shared, asked.as_bytes(), now).await?;
    if form.optional("answer") != Some("allow") {
        let why = "the user said no; ask again when they want to";
        return Err(Unfit::SentBack(request.back, Refused::new("access_denied", why)));
    }
    let named = form.optional("user").unwrap_or_default();
    if shared.issuer.user(named).is_none() {
        let why = "nobody of that name can log in; go back and choose a user";
        return Err(Unfit::Shown(Refused::new("invalid_request", why)));
    }
    let code = Code {
        client: request.client.id.clone(),
        redirect_uri: request.back.uri.as_str().to_owned(),
        challenge: request.challenge,
        key: request.key,
        user: named.to_owned(),
        resource: request.resource,
        scopes: request.scopes,
    };
    let issued = shared.issuer.state().codes.issue(code, now);
    match issued {
        Some(code) => Ok(send_back(shared, &request.back, &[("code", code.expose())])),
        None => Err(Unfit::SentBack(request.back, Refused::busy())),
    }
}

/// Reads a request. Until the client and its address are known, nothing is sent anywhere.
async fn read(shared: &Shared, query: &[u8], now: Instant) -> Result<Request, Unfit> {
    let asked = Parameters::read(query).map_err(Unfit::Shown)?;
    let id = asked.required("client_id").map_err(Unfit::Shown)?;
    let client = clients::of_login(shared, id, now).await.map_err(Unfit::Shown)?;
    let uri = redirect(&client, &asked).map_err(Unfit::Shown)?;
    let state = asked.optional("state").map(str::to_owned);
    if state.as_ref().is_some_and(|state| state.len() > STATE_BYTES_MAX) {
        return Err(Unfit::Shown(Refused::new(
            "invalid_request",
            "`state` is too long; keep it with the client",
        )));
    }
    let back = Back { uri, state };
    match details(shared, &client, &asked) {
        Ok((challenge, key, resource, scopes)) => {
            Ok(Request { client, back, challenge, key, resource, scopes })
        }
        Err(refused) => Err(Unfit::SentBack(back, refused)),
    }
}

fn redirect(client: &Client, asked: &Parameters) -> Result<RedirectUri, Refused> {
    let text = asked.required("redirect_uri")?;
    let fitting = RedirectUri::new(text).ok();
    let fitting = fitting.filter(|uri| client.redirect_uris.iter().any(|named| uri.fits(named)));
    let why = "`redirect_uri` is not one that this client named; register it letter for letter";
    fitting.ok_or_else(|| Refused::new("invalid_request", why))
}

type Details = (String, Option<String>, String, Vec<String>);

fn details(shared: &Shared, client: &Client, asked: &Parameters) -> Result<Details, Refused> {
    client.may(Grant::AuthorizationCode)?;
    if asked.required("response_type")? != "code" {
        return Err(Refused::new("unsupported_response_type", "write `response_type=code`"));
    }
    if asked.optional("response_mode").is_some_and(|mode| mode != "query") {
        return Err(Refused::new("invalid_request", "leave `response_mode` out: answers come in the query"));
    }
    for unsupported in ["request", "request_uri"] {
        if asked.optional(unsupported).is_some() {
            return Err(Refused::new("request_not_supported", "send the parameters themselves"));
        }
    }
    let challenge = challenge(asked)?;
    let key = asked.optional("dpop_jkt").map(str::to_owned);
    if key.as_ref().is_some_and(|key| !is_sha256(key)) {
        return Err(Refused::new("invalid_request", "`dpop_jkt` is not a SHA-256 thumbprint (RFC 7638)"));
    }
    let resource = shared.issuer.door(asked.optional("resource")).ok_or_else(no_such_resource)?;
    let scopes = scopes(shared, asked)?;
    Ok((challenge, key, resource.to_owned(), scopes))
}

pub(super) fn no_such_resource() -> Refused {
    let why = "`resource` is not one of the gateway's doors; write the `resource` of its metadata (RFC 9728)";
    Refused::new("invalid_target", why)
}

/// PKCE (RFC 7636), of everybody, and never in the clear: `plain`, or nothing said, would be a way down.
fn challenge(asked: &Parameters) -> Result<String, Refused> {
    let refused = |why| Refused::new("invalid_request", why);
    let challenge = asked.optional("code_challenge");
    let challenge = challenge.ok_or_else(|| refused("`code_challenge` is missing; send one (PKCE, S256)"))?;
    if asked.optional("code_challenge_method") != Some("S256") {
        return Err(refused("write `code_challenge_method=S256`; no other is taken"));
    }
    if !is_sha256(challenge) {
        return Err(refused("`code_challenge` is not a SHA-256 hash in base64url"));
    }
    Ok(challenge.to_owned())
}

fn is_sha256(text: &str) -> bool {
    URL_SAFE_NO_PAD.decode(text).is_ok_and(|hash| hash.len() == 32)
}

/// What is granted of the scopes that are asked for: those that there are (RFC 6749 §3.3).
fn scopes(shared: &Shared, asked: &Parameters) -> Result<Vec<String>, Refused> {
    let logins = &shared.issuer.settings.logins;
    let wanted = asked.words("scope");
    if wanted.is_empty() {
        return Ok(logins.scopes.clone());
    }
    let is_there = |scope: &String| logins.scopes.contains(scope) || logins.further_scopes.contains(scope);
    let granted: Vec<String> = wanted.into_iter().filter(is_there).collect();
    let why = "none of these scopes exists; see `scopes_supported` in the metadata";
    if granted.is_empty() { Err(Refused::new("invalid_scope", why)) } else { Ok(granted) }
}

fn show(shared: &Shared, request: &Request, query: &str, now: Instant) -> Response {
    let users = shared.issuer.user_names();
    let asked = Parameters::read(query.as_bytes()).ok();
    let hint = asked.as_ref().and_then(|asked| asked.optional("login_hint"));
    let login = Login {
        client: request.client.name.as_deref().unwrap_or(&request.client.id),
        client_id: &request.client.id,
        resource: &request.resource,
        scopes: &request.scopes,
        redirect: request.back.uri.as_str(),
        users: &users,
        hint: hint.unwrap_or_default(),
        request: query,
        seal: &seal(&shared.issuer.form_key, query, now),
    };
    page::login(&login, request.back.uri.url())
}

fn refuse(shared: &Shared, unfit: Unfit) -> Response {
    match unfit {
        Unfit::Shown(refused) => page::refusal(StatusCode::BAD_REQUEST, &refused),
        Unfit::SentBack(back, refused) => {
            let text = refused.text();
            send_back(shared, &back, &[("error", refused.code), ("error_description", &text)])
        }
    }
}

/// Sends the browser back, saying who answers (RFC 9207): a client that talks to several issuers can tell them apart.
fn send_back(shared: &Shared, back: &Back, answer: &[(&str, &str)]) -> Response {
    let mut url: Url = back.uri.url().clone();
    url.query_pairs_mut()
        .extend_pairs(answer)
        .extend_pairs(back.state.as_ref().map(|state| ("state", state)))
        .append_pair("iss", &shared.issuer.name());
    let Ok(location) = HeaderValue::try_from(url.as_str()) else {
        return page::refusal(StatusCode::BAD_REQUEST, &Refused::server());
    };
    let headers =
        [(header::LOCATION, location), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (StatusCode::SEE_OTHER, headers).into_response()
}

/// Only this issuer can make it, for this request, for a while: another site that makes a browser send the form has none.
fn seal(key: &hmac::Key, request: &str, now: Instant) -> String {
    let until = now.0.saturating_add(FORM_MS);
    let tag = hmac::sign(key, format!("{until} {request}").as_bytes());
    format!("{until}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn is_sealed(key: &hmac::Key, request: &str, seal: &str, now: Instant) -> bool {
    let Some((until, tag)) = seal.split_once('.') else { return false };
    let is_ours = URL_SAFE_NO_PAD
        .decode(tag)
        .is_ok_and(|tag| hmac::verify(key, format!("{until} {request}").as_bytes(), &tag).is_ok());
    is_ours && until.parse::<u64>().is_ok_and(|until| now.0 < until)
}

/// Whether a browser says that its form came from this very origin. What says nothing is not a browser.
fn is_from_here(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default());
    let own = text(header::HOST).map(|host| format!("http://{host}"));
    let origin = text(header::ORIGIN);
    let site = headers.get("sec-fetch-site").map(|value| value.to_str().unwrap_or_default());
    origin.is_none_or(|origin| Some(origin) == own.as_deref())
        && site.is_none_or(|site| site == "same-origin")
}
