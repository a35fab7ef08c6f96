//! Asking an issuer: https (http on loopback alone), no redirects, no proxy, bounded in time and size.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, RequestBuilder, redirect};
use ringfence_addresses::is_public;
use serde_json::Value;
use url::{Host, Url};

/// The longest answer that an issuer may give, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// A URL of an issuer that may be asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    url: Url,
    /// The operator says that its host is one of the organisation's own network.
    is_internal: bool,
}

/// The text is not a URL that may be asked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{0}` is not a URL that may be asked: write `https://…`; `http` is for loopback alone, and a private address needs `internal = true`"
)]
pub struct BadUrl(String);

impl Endpoint {
    /// Takes an https URL of the public internet, or a URL of this machine's loopback, which http may reach too.
    pub fn new(text: &str) -> Result<Self, BadUrl> {
        let endpoint = Self::internal(text)?;
        let is_named = match address(&endpoint.url) {
            Some(address) => address.is_loopback() || is_public(address),
            None => true,
        };
        if is_named { Ok(Self { is_internal: false, ..endpoint }) } else { Err(bad(text)) }
    }

    /// Takes an https URL whose host may have a private address, since the operator says so.
    pub fn internal(text: &str) -> Result<Self, BadUrl> {
        let url = Url::parse(text).map_err(|_| bad(text))?;
        let is_loopback = address(&url).is_some_and(|address| address.is_loopback());
        let is_secure = url.scheme() == "https" || (url.scheme() == "http" && is_loopback);
        let is_plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        if is_secure && is_plain && url.has_host() {
            Ok(Self { url, is_internal: true })
        } else {
            Err(bad(text))
        }
    }

    /// Takes a URL that this endpoint's answer names: on the same host, or on the public internet.
    pub(crate) fn names(&self, text: &str) -> Result<Self, BadUrl> {
        let named = Self::internal(text)?;
        if named.url.host() == self.url.host() {
            return Ok(Self { is_internal: self.is_internal, ..named });
        }
        let is_private = address(&named.url).is_some_and(|address| !is_public(address));
        if is_private { Err(bad(text)) } else { Ok(Self { is_internal: false, ..named }) }
    }

    /// The URL itself.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }
}

fn bad(text: &str) -> BadUrl {
    BadUrl(text.chars().take(200).collect())
}

/// The address in a URL that names its host by one.
fn address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
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
    /// Asks this endpoint and those that it names. Fails where no TLS client can be made.
    pub(crate) fn to(endpoint: &Endpoint) -> Result<Self, NoAnswer> {
        let internal = endpoint.is_internal.then(|| endpoint.url.host_str().map(str::to_owned)).flatten();
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(PublicNames { internal }))
            .connect_timeout(Duration::from_secs(3))
            .timeout(Duration::from_secs(5))
            .build();
        client.map(Self).map_err(|error| NoAnswer(error.to_string()))
    }

    pub(crate) fn get(&self, from: &Endpoint) -> RequestBuilder {
        self.0.get(from.url.clone())
    }

    pub(crate) fn post(&self, to: &Endpoint) -> RequestBuilder {
        self.0.post(to.url.clone())
    }
}

/// Resolves names, and leaves out every address that is not public: a name of another must not lead to this machine, its
/// network or its metadata service. The host that the operator calls internal resolves to whatever it has.
pub(crate) struct PublicNames {
    pub(crate) internal: Option<String>,
}

impl Resolve for PublicNames {
    fn resolve(&self, name: Name) -> Resolving {
        let is_internal =
            self.internal.as_deref().is_some_and(|host| host.eq_ignore_ascii_case(name.as_str()));
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let kept: Vec<SocketAddr> =
                found.filter(|address| is_internal || is_public(address.ip())).collect();
            if kept.is_empty() {
                return Err("it has no public address; if it is yours, write `internal = true`".into());
            }
            let addresses: Addrs = Box::new(kept.into_iter());
            Ok(addresses)
        })
    }
}

/// Sends a request and reads a JSON answer, with its status; what else a refusal says is read as null.
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
    match serde_json::from_slice(&body) {
        Ok(parsed) => Ok((status, parsed)),
        Err(_) if status != 200 => Ok((status, Value::Null)),
        Err(_) => Err(NoAnswer("its answer is not JSON".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_never_leaves_the_machine_and_nothing_private_is_asked() {
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
            "https://10.0.0.1/jwks",
            "https://169.254.169.254/latest",
            "https://[fd00:ec2::254]/",
            "https://2130706433.0x7f/",
        ] {
            assert!(Endpoint::new(bad).is_err(), "{bad}");
        }
        assert!(Endpoint::internal("https://10.0.0.1/jwks").is_ok(), "where the operator says so");
        assert!(Endpoint::internal("http://10.0.0.1/jwks").is_err());
    }

    #[test]
    fn what_a_document_names_is_on_its_own_host_or_public() {
        let (public, own) = ("https://login.example.com", "http://127.0.0.1:8789");
        let names = |from: &str, to: &str| Endpoint::new(from).unwrap().names(to).is_ok();
        assert!(
            names(public, "https://login.example.com/jwks") && names(public, "https://keys.example.com/")
        );
        assert!(names(own, "http://127.0.0.1:8789/jwks"), "the control: on loopback from loopback");
        for hidden in [
            "http://127.0.0.1:8789/jwks",
            "https://127.0.0.1/",
            "https://10.0.0.1/",
            "https://169.254.169.254/",
        ] {
            assert!(!names(public, hidden), "{hidden}");
        }
        let internal = Endpoint::internal("https://sso.corp.test/").unwrap();
        assert!(internal.names("https://10.0.0.1/").is_err(), "one internal host does not make another one");
        assert!(internal.names("https://sso.corp.test/jwks").unwrap().is_internal);
        assert!(!internal.names("https://other.corp.test/jwks").unwrap().is_internal);
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_not_followed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        // The control: a host that the operator calls internal is dialled.
        let internal = Endpoint::internal(&url).unwrap();
        let asking = tokio::spawn(json(Fetcher::to(&internal).unwrap().get(&internal)));
        let (dialled, _) = listener.accept().await.unwrap();
        drop(dialled);
        assert!(asking.await.unwrap().is_err(), "it does not speak TLS");
        let public = Endpoint::new(&url).unwrap();
        assert!(json(Fetcher::to(&public).unwrap().get(&public)).await.is_err());
        let quiet = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await;
        assert!(quiet.is_err(), "nobody came");
    }
}
