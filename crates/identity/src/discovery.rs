//! Where an issuer publishes its keys: named by the operator, or found in its metadata (RFC 8414 §3, OpenID Connect Discovery §4).

use std::time::Duration;

use jsonwebtoken::jwk::Jwk;
use serde_json::Value;
use url::Url;

use crate::Endpoint;
use crate::fetch::{Fetcher, NoAnswer, json};
use crate::keys::KEYS_MAX;

/// How long all requests of one fetch may take together.
const FETCH_MAX: Duration = Duration::from_secs(8);

/// Where keys are fetched from.
pub(crate) struct Source {
    at: At,
    fetcher: Fetcher,
    issuer: String,
}

enum At {
    /// The key set itself.
    Jwks(Endpoint),
    /// The documents that may name it, in the order in which they are asked for.
    Metadata(Vec<Endpoint>),
}

impl Source {
    /// The key set at this URL.
    pub(crate) fn jwks(endpoint: Endpoint, issuer: &str) -> Result<Self, NoAnswer> {
        let fetcher = Fetcher::to(&endpoint)?;
        Ok(Self { at: At::Jwks(endpoint), fetcher, issuer: issuer.to_owned() })
    }

    /// The key set that the issuer's metadata names. `issuer` is what the metadata must call itself, letter for letter.
    pub(crate) fn metadata(endpoint: &Endpoint, issuer: &str) -> Result<Self, NoAnswer> {
        let documents = documents(endpoint)?;
        let fetcher = Fetcher::to(endpoint)?;
        Ok(Self { at: At::Metadata(documents), fetcher, issuer: issuer.to_owned() })
    }

    /// Whose keys they are.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The published keys. One that cannot be read is left out: it can be of a kind that nobody here knows.
    pub(crate) async fn fetch(&self) -> Result<Vec<Jwk>, NoAnswer> {
        let fetching = async {
            match &self.at {
                At::Jwks(endpoint) => self.keys(endpoint).await,
                At::Metadata(documents) => self.keys(&self.discover(documents).await?).await,
            }
        };
        let late = || NoAnswer(format!("it took longer than {} s", FETCH_MAX.as_secs()));
        tokio::time::timeout(FETCH_MAX, fetching).await.map_err(|_| late())?
    }

    async fn keys(&self, endpoint: &Endpoint) -> Result<Vec<Jwk>, NoAnswer> {
        let (status, mut document) = json(self.fetcher.get(endpoint)).await?;
        if status != 200 {
            return Err(NoAnswer(format!("it answered {status}")));
        }
        let Some(Value::Array(keys)) = document.get_mut("keys").map(Value::take) else {
            return Err(NoAnswer("its answer is not a key set".to_owned()));
        };
        if keys.len() > KEYS_MAX {
            return Err(NoAnswer(format!("it publishes more than {KEYS_MAX} keys")));
        }
        Ok(keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect())
    }

    /// The key set that the issuer's metadata names.
    async fn discover(&self, documents: &[Endpoint]) -> Result<Endpoint, NoAnswer> {
        let nowhere = || NoAnswer("it publishes no metadata; write `jwks = \"https://…\"`".to_owned());
        let found = published(&self.fetcher, documents, &self.issuer).await?;
        let (document, metadata) = found.ok_or_else(nowhere)?;
        let jwks = metadata.get("jwks_uri").and_then(Value::as_str);
        let jwks = jwks.ok_or_else(|| NoAnswer("its metadata names no key set".to_owned()))?;
        document.names(jwks).map_err(|error| NoAnswer(error.to_string()))
    }
}

/// Where an issuer may publish its metadata, in the order in which it is asked for.
pub(crate) fn documents(issuer: &Endpoint) -> Result<Vec<Endpoint>, NoAnswer> {
    let documents = well_known(issuer.url());
    let documents = documents.iter().map(|url| issuer.names(url));
    documents.collect::<Result<_, _>>().map_err(|error| NoAnswer(error.to_string()))
}

/// The first of these documents that is there, where it is this issuer's own (RFC 8414 §3.3: anything else MUST NOT be used).
pub(crate) async fn published<'a>(
    fetcher: &Fetcher,
    documents: &'a [Endpoint],
    issuer: &str,
) -> Result<Option<(&'a Endpoint, Value)>, NoAnswer> {
    for document in documents {
        let (status, metadata) = json(fetcher.get(document)).await?;
        if status != 200 {
            continue;
        }
        if metadata.get("issuer").and_then(Value::as_str) != Some(issuer) {
            return Err(NoAnswer("its metadata is that of another issuer".to_owned()));
        }
        return Ok(Some((document, metadata)));
    }
    Ok(None)
}

/// The three places that MCP's authorization chapter names, for an issuer with a path; two for one without.
fn well_known(issuer: &Url) -> Vec<String> {
    let origin = issuer.origin().ascii_serialization();
    let path = issuer.path().trim_end_matches('/');
    let mut documents = vec![
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
        format!("{origin}/.well-known/openid-configuration{path}"),
    ];
    if !path.is_empty() {
        documents.push(format!("{origin}{path}/.well-known/openid-configuration"));
    }
    documents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_looked_for_where_the_standards_put_it() {
        let found = well_known(&Url::parse("https://login.example.com/tenant/").unwrap());
        assert_eq!(
            found,
            [
                "https://login.example.com/.well-known/oauth-authorization-server/tenant",
                "https://login.example.com/.well-known/openid-configuration/tenant",
                "https://login.example.com/tenant/.well-known/openid-configuration",
            ]
        );
        assert_eq!(well_known(&Url::parse("https://login.example.com").unwrap()).len(), 2);
    }
}
