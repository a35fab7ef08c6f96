//! What a client is told so that it can log in: protected resource metadata (RFC 9728) and the challenge that points to it.

use serde_json::{Value, json};
use url::Url;

use crate::ProofRule;
use crate::dpop::ALGORITHMS;

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The metadata document of a resource (RFC 9728 §2, RFC 9449 §5.1 by its registry).
#[must_use]
pub fn metadata(resource: &str, issuers: &[String], scopes: &[String], proofs: ProofRule) -> Value {
    json!({
        "resource": resource,
        "authorization_servers": issuers,
        "scopes_supported": scopes,
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": ALGORITHMS,
        "dpop_bound_access_tokens_required": proofs == ProofRule::Always,
        "resource_name": "Ringfence",
    })
}

/// Where the document is served: under the path of the resource (RFC 9728 §3.1), and at the root for clients that look there.
#[must_use]
pub fn metadata_paths(resource: &str) -> Vec<String> {
    let path = Url::parse(resource)
        .map_or_else(|_| String::new(), |url| url.path().trim_end_matches('/').to_owned());
    let mut paths = vec![WELL_KNOWN.to_owned()];
    if !path.is_empty() {
        paths.push(format!("{WELL_KNOWN}{path}"));
    }
    paths
}

/// The address of the document, for challenges.
#[must_use]
pub fn metadata_url(resource: &str) -> String {
    let path = metadata_paths(resource).pop().unwrap_or_default();
    match Url::parse(resource) {
        Ok(url) => format!("{}{path}", url.origin().ascii_serialization()),
        Err(_) => path,
    }
}

/// The value of `WWW-Authenticate` for a bearer token (RFC 6750 §3, RFC 9728 §5.1). `error` is absent where no token was sent.
#[must_use]
pub fn bearer_challenge(error: Option<&str>, scopes: &[String], metadata_url: &str) -> String {
    format!("Bearer {}", parameters(error, scopes, metadata_url))
}

/// The same for a token that is bound to a key (RFC 9449 §7.1), with the algorithms that proofs may be signed with.
#[must_use]
pub fn proof_challenge(error: Option<&str>, scopes: &[String], metadata_url: &str) -> String {
    format!("DPoP {}, {}", parameters(error, scopes, metadata_url), algorithms())
}

/// Both, for a door where either will do: a client takes the one that it knows (RFC 9110 §11.6.1).
#[must_use]
pub fn either_challenge(error: Option<&str>, scopes: &[String], metadata_url: &str) -> String {
    format!("{}, DPoP {}", bearer_challenge(error, scopes, metadata_url), algorithms())
}

fn algorithms() -> String {
    format!("algs=\"{}\"", ALGORITHMS.join(" "))
}

fn parameters(error: Option<&str>, scopes: &[String], metadata_url: &str) -> String {
    let mut parts = vec![format!("resource_metadata=\"{}\"", quotable(metadata_url))];
    if !scopes.is_empty() {
        parts.push(format!("scope=\"{}\"", quotable(&scopes.join(" "))));
    }
    parts.extend(error.map(|error| format!("error=\"{}\"", quotable(error))));
    parts.join(", ")
}

/// The text without what would end a quoted string or a header (RFC 9110 §5.6.4).
fn quotable(text: &str) -> String {
    text.chars().filter(|char| matches!(char, ' '..='~') && !matches!(char, '"' | '\\')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_points_to_a_document_that_is_served() {
        let resource = "https://agents.example.com:8443/team/mcp";
        let url = metadata_url(resource);
        assert_eq!(url, "https://agents.example.com:8443/.well-known/oauth-protected-resource/team/mcp");
        assert!(metadata_paths(resource).iter().any(|path| url.ends_with(path)));
        assert_eq!(metadata_paths("https://agents.example.com"), [WELL_KNOWN]);
    }

    #[test]
    fn nothing_breaks_out_of_a_challenge() {
        let scopes = ["tools".to_owned(), "x\", realm=\"evil\r\n".to_owned()];
        assert_eq!(
            bearer_challenge(Some("invalid_token"), &scopes, "https://a/m"),
            r#"Bearer resource_metadata="https://a/m", scope="tools x, realm=evil", error="invalid_token""#
        );
    }
}
