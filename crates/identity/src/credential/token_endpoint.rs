//! Asks a token endpoint, and judges its answer: nothing wider than what was asked for passes (RFC 6749 §5, RFC 8693 §2.2).

use std::collections::BTreeSet;

use reqwest::RequestBuilder;
use ringfence_core::{Instant, Secret};
use serde_json::Value;
use url::form_urlencoded::byte_serialize;

use super::{NoCredential, shown};
use crate::Endpoint;
use crate::fetch::{Fetcher, json};

pub(super) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// A token that lives longer is absurd, in seconds: two days.
const LIFETIME_MAX_SECONDS: u64 = 172_800;
/// The shortest and the longest token, in bytes: what is shorter could not be found in an answer without finding much else.
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 8..=16_384;
/// The error codes that are known (RFC 6749 §5.2, RFC 8693 §2.2.2, RFC 9396, RFC 9470, Entra's). Another text does not pass into the
/// log: whoever answers could echo what it was sent.
const CODES: &[&str] = &[
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "invalid_target",
    "unauthorized_client",
    "unsupported_grant_type",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
    "interaction_required",
    "login_required",
    "consent_required",
    "insufficient_user_authentication",
    "unsupported_token_type",
];

/// The gateway's own client at an issuer.
pub struct ClientSettings {
    /// The issuer's token endpoint.
    pub token_endpoint: Endpoint,
    /// The client.
    pub client_id: String,
    /// Its secret; none for a public client.
    pub client_secret: Option<Secret>,
}

/// Where the client's secret stands in a request (RFC 6749 §2.3.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Authentication {
    /// In the `Authorization` header.
    Header,
    /// In the form.
    Form,
}

pub(crate) struct TokenEndpoint {
    client: ClientSettings,
    authentication: Authentication,
    fetcher: Fetcher,
}

/// What was asked for: an answer may not be wider.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The scopes; none means that whatever the issuer gives will do.
    pub(crate) scopes: Option<&'a BTreeSet<&'a str>>,
    /// The audience, where the token may name that alone.
    pub(crate) audience: Option<&'a str>,
    /// What was sent, and must not come back.
    pub(crate) sent: &'a [&'a Secret],
    pub(crate) now: Instant,
}

/// An answer that is no wider than what was asked for.
pub(crate) struct Answered {
    pub(crate) token: Secret,
    pub(crate) lifetime_seconds: Option<u64>,
    pub(crate) refresh_token: Option<Secret>,
    pub(crate) issued_token_type: Option<String>,
    /// The scopes of the token, where the answer names them: those that were asked for otherwise (RFC 6749 §5.1).
    pub(crate) scopes: Option<Vec<String>>,
}

impl Asked<'_> {
    /// Refuses scopes that were not asked for.
    pub(super) fn allows<'s>(&self, mut given: impl Iterator<Item = &'s str>) -> Result<(), NoCredential> {
        let Some(scopes) = self.scopes else { return Ok(()) };
        if given.all(|scope| scopes.contains(scope)) {
            return Ok(());
        }
        Err(NoCredential::Unsound("the token carries scopes that were not asked for"))
    }
}

impl TokenEndpoint {
    /// Fails where no TLS client can be made.
    pub(crate) fn new(client: ClientSettings, authentication: Authentication) -> Result<Self, String> {
        let fetcher = Fetcher::to(&client.token_endpoint).map_err(|error| error.0)?;
        Ok(Self { client, authentication, fetcher })
    }

    /// Asks, with these fields and the client's own.
    pub(crate) async fn ask(
        &self,
        fields: &[(&str, &str)],
        asked: Asked<'_>,
    ) -> Result<Answered, NoCredential> {
        let request = self.request(fields);
        let (status, answer) = json(request).await.map_err(|error| NoCredential::Unreachable(error.0))?;
        if status == 200 {
            return judge(answer, asked);
        }
        let code = answer.get("error").and_then(Value::as_str).unwrap_or_default();
        if code == "invalid_scope" {
            let scopes = asked.scopes.into_iter().flatten();
            return Err(NoCredential::Scopes(scopes.map(|scope| (*scope).to_owned()).collect()));
        }
        if status >= 500 || status == 429 {
            return Err(NoCredential::Unreachable(format!("it answered {status}")));
        }
        Err(NoCredential::Refused(known_code(code)))
    }

    fn request(&self, fields: &[(&str, &str)]) -> RequestBuilder {
        let ClientSettings { token_endpoint, client_id, client_secret } = &self.client;
        let request = self.fetcher.post(token_endpoint);
        let mut form = fields.to_vec();
        match client_secret {
            Some(secret) if self.authentication == Authentication::Header => {
                let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                let secret = Secret::new(encoded(secret.expose()));
                return request.form(&form).basic_auth(encoded(client_id), Some(secret.expose()));
            }
            Some(secret) => form.push(("client_secret", secret.expose())),
            None => {}
        }
        form.push(("client_id", client_id.as_str()));
        request.form(&form)
    }
}

/// An error code as it may be shown.
pub(crate) fn known_code(code: &str) -> &'static str {
    CODES.iter().find(|known| **known == code).copied().unwrap_or("a code that is not known")
}

fn judge(mut answer: Value, asked: Asked<'_>) -> Result<Answered, NoCredential> {
    let unsound = |why| Err(NoCredential::Unsound(why));
    let text = |name: &str| answer.get(name).and_then(Value::as_str);
    if !text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
        return unsound("the token is not a bearer token");
    }
    if answer.get("scope").is_some_and(|scope| !scope.is_string()) {
        return unsound("its scope is not a text");
    }
    let given = text("scope").unwrap_or_default().split(' ').filter(|word| !word.is_empty());
    asked.allows(given.clone())?;
    let scopes = text("scope").map(|_| given.map(str::to_owned).collect());
    let issued_token_type = text("issued_token_type").map(str::to_owned);
    let lifetime_seconds = lifetime(&answer)?;
    let token = taken(&mut answer, "access_token").ok_or(NoCredential::Unsound("there is no token in it"))?;
    let refresh_token = taken(&mut answer, "refresh_token");
    if asked.sent.iter().any(|sent| sent.expose() == token.expose()) {
        return unsound("it is the token that was sent");
    }
    let lifetime_seconds = shown::judge(&token, asked, lifetime_seconds)?;
    Ok(Answered { token, lifetime_seconds, refresh_token, issued_token_type, scopes })
}

/// How long the token lives: between a second and two days, or nobody says.
pub(super) fn sound_lifetime(seconds: u64) -> Result<u64, NoCredential> {
    match seconds {
        1..=LIFETIME_MAX_SECONDS => Ok(seconds),
        _ => Err(NoCredential::Unsound("the token has ended already, or lives for more than two days")),
    }
}

fn lifetime(answer: &Value) -> Result<Option<u64>, NoCredential> {
    // Some write the number as a text.
    let given = match answer.get("expires_in") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.parse().ok(),
        Some(number) => number.as_u64(),
    };
    let seconds = given.ok_or(NoCredential::Unsound("its lifetime is not a number of seconds"))?;
    sound_lifetime(seconds).map(Some)
}

/// A token out of an answer: moved, so that no copy of it stays behind.
fn taken(answer: &mut Value, name: &str) -> Option<Secret> {
    let Value::String(text) = answer.get_mut(name)?.take() else { return None };
    let token = Secret::new(text);
    let is_token = |byte: u8| byte.is_ascii_graphic();
    let fits = TOKEN_BYTES.contains(&token.expose().len()) && token.expose().bytes().all(is_token);
    fits.then_some(token)
}
