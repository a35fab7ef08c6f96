//! Asking an issuer: https (http on loopback alone), no redirects, no proxy, bounded in time and size.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, redirect};
use serde_json::Value;
use url::{Host, Url};

/// The longest answer that an issuer may give, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// A URL of an issuer that may be asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint(Url);

/// The text is not a URL that may be asked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a URL that may be asked: write `https://…`; `http` is for loopback alone")]
pub struct BadUrl(String);

impl Endpoint {
    /// Takes an https URL, or an http URL of this machine.
    pub fn new(text: &str) -> Result<Self, BadUrl> {
        let bad = || BadUrl(text.chars().take(200).collect());
        let url = Url::parse(text).map_err(|_| bad())?;
        let is_loopback = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            _ => false,
        };
        let is_secure = url.scheme() == "https" || (url.scheme() == "http" && is_loopback);
        let is_plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        if is_secure && is_plain { Ok(Self(url)) } else { Err(bad()) }
    }
}

/// The issuer did not answer as it should. For the log: the text names no token.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoAnswer(pub(crate) String);

/// Asks issuers.
#[derive(Clone)]
pub(crate) struct Fetcher(Client);

impl Fetcher {
    pub(crate) fn new() -> Result<Self, NoAnswer> {
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(3))
            .timeout(Duration::from_secs(5))
            .build();
        client.map(Self).map_err(|error| NoAnswer(error.to_string()))
    }

    pub(crate) fn get(&self, from: &Endpoint) -> RequestBuilder {
        self.0.get(from.0.clone())
    }

    pub(crate) fn post(&self, to: &Endpoint) -> RequestBuilder {
        self.0.post(to.0.clone())
    }
}

/// Sends a request and reads a JSON answer, with its status.
pub(crate) async fn json(request: RequestBuilder) -> Result<(u16, Value), NoAnswer> {
    let broken = |error: reqwest::Error| NoAnswer(error.without_url().to_string());
    let mut response = request.send().await.map_err(broken)?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            return Err(NoAnswer(format!("its answer is longer than {ANSWER_BYTES_MAX} bytes")));
        }
    }
    let parsed =
        serde_json::from_slice(&body).map_err(|_| NoAnswer(format!("its answer ({status}) is not JSON")))?;
    Ok((status, parsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_never_leaves_the_machine() {
        for good in ["https://login.example.com/jwks", "http://127.0.0.1:8789/jwks.json", "http://[::1]:1/x"]
        {
            assert!(Endpoint::new(good).is_ok(), "{good}");
        }
        for bad in [
            "http://login.example.com",
            "http://localhost/x",
            "https://u:p@x/",
            "file:///etc/passwd",
            "x",
            "https://x/#f",
        ] {
            assert!(Endpoint::new(bad).is_err(), "{bad}");
        }
    }
}
