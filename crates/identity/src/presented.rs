//! How a token comes: in the `Authorization` header (RFC 6750 §2.1, RFC 9449 §7.1), the only place where one is taken from.

use ringfence_core::Secret;
use url::Url;

/// The longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 8192;

/// The header holds no access token.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("send `Authorization: Bearer TOKEN`")]
pub struct BadHeader;

/// How a token is used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// By whoever has it.
    Bearer,
    /// By whoever proves to have its key.
    Dpop,
}

/// A token with the request that it came in.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// How it is used.
    pub scheme: Scheme,
    /// The token.
    pub token: &'a Secret,
    /// The one `DPoP` header.
    pub proof: Option<&'a str>,
    /// The method of the request.
    pub method: &'a str,
    /// The URL of the request as clients spell it; where it is not known, no proof fits.
    pub url: Option<&'a Url>,
}

/// A bearer token, of whatever request.
impl<'a> From<&'a Secret> for Presented<'a> {
    fn from(token: &'a Secret) -> Self {
        Self { scheme: Scheme::Bearer, token, proof: None, method: "", url: None }
    }
}

/// The token of an `Authorization` header's value, and how it is used.
pub fn credentials(header: &str) -> Result<(Scheme, Secret), BadHeader> {
    let (scheme, token) = header.split_once(' ').ok_or(BadHeader)?;
    let is_token68 = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    let is_token = !token.is_empty() && token.len() <= TOKEN_BYTES_MAX && token.bytes().all(is_token68);
    let scheme = [("bearer", Scheme::Bearer), ("dpop", Scheme::Dpop)]
        .into_iter()
        .find_map(|(name, known)| scheme.eq_ignore_ascii_case(name).then_some(known));
    match scheme {
        Some(scheme) if is_token => Ok((scheme, Secret::new(token.to_owned()))),
        _ => Err(BadHeader),
    }
}

/// The bearer token of an `Authorization` header's value.
pub fn bearer(header: &str) -> Result<Secret, BadHeader> {
    match credentials(header)? {
        (Scheme::Bearer, token) => Ok(token),
        (Scheme::Dpop, _) => Err(BadHeader),
    }
}

/// Whether a query carries an access token (RFC 6750 §2.3), however its name is encoded: it would end up in logs.
#[must_use]
pub fn is_token_in_query(query: &str) -> bool {
    url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name.eq_ignore_ascii_case("access_token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_form_is_a_bearer_token() {
        assert_eq!(
            bearer("Bearer a.b-c").ok().map(|token| token.expose().to_owned()).as_deref(),
            Some("a.b-c")
        );
        assert!(bearer("bearer x").is_ok(), "schemes know no case (RFC 9110 §11.1)");
        let long = format!("Bearer {}", "x".repeat(TOKEN_BYTES_MAX + 1));
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer a b",
            "Basic x",
            "Bearer  x",
            "Bearer x\n",
            "x",
            "DPoP x",
            &long,
        ] {
            assert!(bearer(bad).is_err(), "{bad:?}");
        }
        assert_eq!(credentials("DPoP x").map(|(scheme, _)| scheme), Ok(Scheme::Dpop));
    }

    #[test]
    fn a_token_in_a_query_is_found_however_it_is_written() {
        for found in ["access_token=x", "a=b&access_token", "access%5Ftoken=x", "Access_Token=x"] {
            assert!(is_token_in_query(found), "{found}");
        }
        for other in ["", "token=x", "a=access_token", "xaccess_token=1"] {
            assert!(!is_token_in_query(other), "{other}");
        }
    }
}
