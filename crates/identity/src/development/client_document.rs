//! Clients that are the address of a document about themselves (OAuth Client ID Metadata Documents): nobody registers anything.
//!
//! Whoever starts a login chooses the address, so asking it is done with care: public addresses of https, or http on this
//! machine's loopback; no redirect, no proxy, little time, few bytes, few at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{StatusCode, header, redirect};
use ringfence_addresses::is_public;
use ringfence_core::Instant;
use tokio::sync::Semaphore;
use url::{Host, Url};

use super::Client;
use super::answer::Refused;
use super::register::Metadata;
use crate::fetch::PublicNames;

/// The longest document, in bytes.
const DOCUMENT_BYTES_MAX: usize = 16 << 10;
/// The longest address, in bytes: the gateway takes no longer `client_id` from a token.
const ADDRESS_BYTES_MAX: usize = 255;
/// Documents that are fetched at the same time at the most.
const FETCHES_MAX: usize = 8;
/// Documents that are kept at the most, and for how long, in milliseconds.
const KEPT_MAX: usize = 256;
const KEPT_MS: u64 = 300_000;

const NOT_FETCHED: &str = "its document could not be fetched from this machine; where there is no way to it, take `development-client-documents` out of ringfence.toml, and the client may register itself instead";

/// Whether a client of this name is an address, if perhaps a bad one.
pub(super) fn is_address(id: &str) -> bool {
    id.starts_with("https://") || id.starts_with("http://")
}

pub(super) struct Documents {
    fetcher: reqwest::Client,
    places: Semaphore,
    kept: Mutex<BTreeMap<String, (Instant, Arc<Client>)>>,
}

impl Documents {
    /// Fails where no TLS client can be made.
    pub(super) fn new() -> reqwest::Result<Self> {
        let fetcher = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(PublicNames { internal: None }))
            .connect_timeout(Duration::from_secs(3))
            .timeout(Duration::from_secs(5))
            .build()?;
        Ok(Self { fetcher, places: Semaphore::new(FETCHES_MAX), kept: Mutex::default() })
    }

    /// The client at this address.
    pub(super) async fn client(&self, id: &str, now: Instant) -> Result<Arc<Client>, Refused> {
        if let Some(kept) = self.kept(id, now) {
            return Ok(kept);
        }
        let address = address(id).map_err(bad)?;
        let _place = self.places.try_acquire().map_err(|_| Refused::busy())?;
        let document = self.fetch(address).await?;
        let client = Arc::new(client(id, &document)?);
        self.keep(id, client.clone(), now);
        Ok(client)
    }

    fn kept(&self, id: &str, now: Instant) -> Option<Arc<Client>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, client) = kept.get(id)?;
        (now.0 < at.0.saturating_add(KEPT_MS)).then(|| client.clone())
    }

    fn keep(&self, id: &str, client: Arc<Client>, now: Instant) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, (at, _)| now.0 < at.0.saturating_add(KEPT_MS));
        }
        if kept.len() < KEPT_MAX {
            kept.insert(id.to_owned(), (now, client));
        }
    }

    async fn fetch(&self, address: Url) -> Result<Vec<u8>, Refused> {
        // Nothing of the answer travels into the text: what is behind an address is not for whoever named it.
        let silent = |_| bad(NOT_FETCHED);
        let request = self.fetcher.get(address).header(header::ACCEPT, "application/json");
        let mut response = request.send().await.map_err(silent)?;
        if response.status() != StatusCode::OK || !is_json(&response) {
            return Err(bad(NOT_FETCHED));
        }
        let mut document = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(silent)? {
            document.extend_from_slice(&chunk);
            if document.len() > DOCUMENT_BYTES_MAX {
                return Err(bad("its document is too long"));
            }
        }
        Ok(document)
    }
}

fn bad(why: &'static str) -> Refused {
    Refused::new("invalid_client", format!("this client is named by an address, and {why}"))
}

/// The address, where it may be asked: nothing in it is hidden, relative or for a parser to guess at.
fn address(id: &str) -> Result<Url, &'static str> {
    let url = Url::parse(id).map_err(|_| "that is not a URL")?;
    if url.as_str() != id || id.len() > ADDRESS_BYTES_MAX {
        return Err("it is not written as a URL is: no dot segments, no upper-case host, no default port");
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("it has a user or a fragment; leave them out");
    }
    if url.path() == "/" {
        return Err("it has no path; write one");
    }
    let may_be_asked = match (url.scheme(), url.host()) {
        ("https", Some(Host::Domain(_))) => true,
        ("https", Some(Host::Ipv4(address))) => is_public(address.into()),
        ("https", Some(Host::Ipv6(address))) => is_public(address.into()),
        ("http", Some(Host::Ipv4(address))) => address.is_loopback(),
        ("http", Some(Host::Ipv6(address))) => address.is_loopback(),
        _ => false,
    };
    if may_be_asked {
        Ok(url)
    } else {
        Err("that is not `https://` at a public host, or `http://127.0.0.1:…`")
    }
}

fn is_json(response: &reqwest::Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
        || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// What the document says, where it speaks of this very client.
fn client(id: &str, document: &[u8]) -> Result<Client, Refused> {
    let value: serde_json::Value =
        serde_json::from_slice(document).map_err(|_| bad("its document is not JSON"))?;
    if value.get("client_id").and_then(serde_json::Value::as_str) != Some(id) {
        return Err(bad("its document has another `client_id`; write its own address there"));
    }
    if value.get("client_secret").is_some() {
        return Err(bad("its document has a `client_secret`, which everybody can read; leave it out"));
    }
    let metadata: Metadata =
        serde_json::from_value(value).map_err(|_| bad("its document is not the metadata of a client"))?;
    if metadata.token_endpoint_auth_method.as_deref().is_some_and(|method| method != "none") {
        return Err(bad("write `none` as its `token_endpoint_auth_method`"));
    }
    metadata.lets_users_log_in()?;
    Ok(Client::of_users(id.to_owned(), metadata.name(), metadata.redirects()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_and_plain_loopback_are_asked() {
        for good in [
            "https://app.example.com/client.json",
            "https://8.8.8.8/client.json",
            "https://[2606:4700::1111]/c",
            "http://127.0.0.1:4711/client.json",
            "http://[::1]:4711/client.json",
        ] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in [
            "https://app.example.com",
            "https://app.example.com/",
            "https://app.example.com/a/../b",
            "https://app.example.com/c#f",
            "https://u:p@app.example.com/c",
            "https://APP.example.com/c",
            "http://app.example.com/c",
            "http://localhost:1/c",
            "http://10.0.0.1/c",
            "http://169.254.169.254/latest/meta-data",
            "https://127.0.0.1:8443/c",
            "https://10.0.0.1/c",
            "https://192.168.1.1/c",
            "https://169.254.169.254/latest/meta-data",
            "https://168.63.129.16/c",
            "https://[::1]/c",
            "https://[fe80::1]/c",
            "https://[fd00::1]/c",
            "https://[::ffff:10.0.0.1]/c",
            "https://[64:ff9b::a00:1]/c",
            "https://0x7f000001/c",
            "https://2130706433/c",
            "file:///etc/passwd",
            "gopher://app.example.com/c",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
