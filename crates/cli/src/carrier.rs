//! Carries a message of standard input to a gateway, with the token of the user's login.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::Response;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use ringfence_core::{Digest, Secret};
use ringfence_identity::Endpoint;
use ringfence_identity::native::NoLogin;
use ringfence_mcp::stdio::Carrier;
use serde_json::Value;

use crate::bearer::Bearer;
use crate::failure::Failure;
use crate::print::harmless;
use crate::wiring::Addresses;

/// The longest that one answer may take: a tool may have an hour.
const ANSWER_MAX: Duration = Duration::from_mins(65);
/// How much of a refusal is read, in bytes, and shown, in characters.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
const REFUSAL_SHOWN_MAX: usize = 300;

/// A carrier in the name of one user.
#[derive(Clone)]
pub(crate) struct LoggedIn(Arc<Inner>);

struct Inner {
    bearer: Bearer,
    way: Way,
    /// A token that was renewed and refused all the same: one more would be too.
    hopeless: Mutex<Option<Digest>>,
}

enum Way {
    /// To a gateway at this address.
    Http(reqwest::Client, String),
    /// To the agents' door of this very process, by this `Host`.
    Here(TowerToHyperService<Router>, HeaderValue),
}

impl LoggedIn {
    /// To the gateway at this address: https, or plain http on loopback.
    pub(crate) fn to_gateway(address: &str, bearer: Bearer) -> Result<Self, Failure> {
        Endpoint::internal(address).map_err(|_| Failure::of(NoLogin::Address(address.to_owned())))?;
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(10))
            .timeout(ANSWER_MAX)
            .build();
        let way = Way::Http(client.map_err(Failure::of)?, address.to_owned());
        Ok(Self::of(bearer, way))
    }

    /// To this agents' door, without a socket.
    pub(crate) fn to_router(door: Router, addresses: &Addresses, bearer: Bearer) -> Result<Self, Failure> {
        let host = HeaderValue::try_from(addresses.agents.to_string()).map_err(Failure::of)?;
        let way = Way::Here(TowerToHyperService::new(door), host);
        Ok(Self::of(bearer, way))
    }

    fn of(bearer: Bearer, way: Way) -> Self {
        Self(Arc::new(Inner { bearer, way, hopeless: Mutex::default() }))
    }

    fn is_hopeless(&self, token: &Secret) -> bool {
        self.0.hopeless.lock().is_ok_and(|hopeless| *hopeless == Some(named(token)))
    }

    fn give_up(&self, token: &Secret) {
        if let Ok(mut hopeless) = self.0.hopeless.lock() {
            *hopeless = Some(named(token));
        }
    }

    /// Waits for renewals of the login that are under way.
    pub(crate) async fn settle(&self) {
        self.0.bearer.settle().await;
    }
}

/// Names a token without holding it.
fn named(token: &Secret) -> Digest {
    Digest::of(&[token.expose().as_bytes()])
}

impl Carrier for LoggedIn {
    async fn carry(&self, headers: HeaderMap, body: String) -> Result<Response, String> {
        let Inner { bearer, way, .. } = &*self.0;
        let token = bearer.token().await?;
        let mut answer = way.send(&headers, &body, &token).await?;
        // The one answer after which the same message may be sent again: it was not read.
        if answer.status() == StatusCode::UNAUTHORIZED && !self.is_hopeless(&token) {
            let another = bearer.another(token).await?;
            answer = way.send(&headers, &body, &another).await?;
            if answer.status() == StatusCode::UNAUTHORIZED {
                self.give_up(&another);
            }
        }
        match answer.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(refusal(answer, bearer.command()).await),
            _ => Ok(answer),
        }
    }
}

impl Way {
    async fn send(&self, headers: &HeaderMap, body: &str, token: &Secret) -> Result<Response, String> {
        let bearer = Secret::new(format!("Bearer {}", token.expose()));
        let mut value = HeaderValue::try_from(bearer.expose()).map_err(|_| "the login's token is none")?;
        value.set_sensitive(true);
        let mut headers = headers.clone();
        headers.insert(header::AUTHORIZATION, value);
        match self {
            Self::Http(client, address) => {
                let sent = client.post(address).headers(headers).body(body.to_owned()).send().await;
                let failed = |error: reqwest::Error| {
                    format!("the gateway `{address}` cannot be reached: {}", error.without_url())
                };
                let (parts, body) = axum::http::Response::from(sent.map_err(failed)?).into_parts();
                Ok(Response::from_parts(parts, Body::new(body)))
            }
            Self::Here(door, host) => {
                headers.insert(header::HOST, host.clone());
                let mut request = Request::post("/mcp").body(Body::from(body.to_owned()));
                if let Ok(request) = &mut request {
                    *request.headers_mut() = headers;
                }
                let request = request.map_err(|error| error.to_string())?;
                door.call(request).await.map_err(|never| match never {})
            }
        }
    }
}

/// What the user is told where the gateway lets nobody in, or not this far: its own words, and what to run.
async fn refusal(answer: Response, command: &str) -> String {
    let status = answer.status().as_u16();
    let challenge = answer.headers().get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
    let options = match challenge {
        Some(challenge) => needed_scopes(challenge),
        // The token is good, and the gateway does not know the client that it was given to.
        None if answer.status() == StatusCode::FORBIDDEN => " --client-id ID".to_owned(),
        None => String::new(),
    };
    let body = to_bytes(answer.into_body(), REFUSAL_BYTES_MAX).await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let said = body.pointer("/error/message").and_then(Value::as_str).unwrap_or("no");
    let said: String = harmless(said).chars().take(REFUSAL_SHOWN_MAX).collect();
    format!("the gateway refused ({status}): {said}; run `{command}{options}`")
}

/// The scopes that a challenge of `insufficient_scope` asks for (RFC 6750 §3.1), as options.
fn needed_scopes(challenge: &str) -> String {
    if !challenge.contains(r#"error="insufficient_scope""#) {
        return String::new();
    }
    let named = challenge.split_once(r#"scope=""#).and_then(|(_, after)| after.split_once('"'));
    let is_plain = |char: char| char.is_ascii_alphanumeric() || ".:/_-".contains(char);
    let scopes = named.map(|(scopes, _)| scopes).unwrap_or_default().split(' ');
    let scopes = scopes.filter(|scope| !scope.is_empty() && scope.chars().all(is_plain));
    scopes.flat_map(|scope| [" --scope ", scope]).collect()
}

#[cfg(test)]
mod tests {
    use super::needed_scopes;

    #[test]
    fn a_challenge_says_which_scopes_to_log_in_for_and_nothing_else() {
        let challenge =
            r#"Bearer resource_metadata="https://a/m", scope="tools mail:read", error="insufficient_scope""#;
        assert_eq!(needed_scopes(challenge), " --scope tools --scope mail:read");
        assert_eq!(needed_scopes(&challenge.replace("mail:read", "$(reboot)")), " --scope tools");
        assert_eq!(needed_scopes(r#"Bearer scope="tools", error="invalid_token""#), "");
    }
}
