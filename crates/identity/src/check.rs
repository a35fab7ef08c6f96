//! The token check: an access token of one issuer, for one audience (RFC 9068, RFC 8725).

use std::collections::BTreeSet;
use std::fmt;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use ringfence_core::{Claims, Instant, Secret};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::keys::{Keys, NoKey};
use crate::{KeySource, SigningAlgorithm};

/// How far the issuer's clock may be from ours, in seconds.
const LEEWAY_SECONDS: u64 = 5;

/// What a token has to be.
#[derive(Clone, Debug)]
pub struct TokenRules {
    /// The issuer (`iss`), letter for letter.
    pub issuer: String,
    /// The audience (`aud`): this and no other.
    pub audience: String,
    /// The algorithms that this issuer signs with.
    pub algorithms: Vec<SigningAlgorithm>,
    /// The header's `typ`: `at+jwt` by RFC 9068 §2.1.
    pub token_type: String,
    /// The longest time between `iat` and `exp`, in seconds.
    pub lifetime_max_seconds: u64,
}

/// Checks tokens.
pub struct TokenCheck {
    rules: TokenRules,
    keys: Keys,
}

/// A token whose signature, type, issuer, audience and times were checked.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedToken {
    /// `sub`.
    pub subject: String,
    /// `client_id`, or `azp`: the OAuth client it was given to.
    pub client: String,
    /// `scope`, word by word.
    pub scopes: BTreeSet<String>,
    /// `exp`.
    pub expires: Instant,
    /// All claims.
    pub claims: Claims,
}

/// Why a token was refused. The text is for the client and says which check failed, nothing of what is known here.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TokenRefused {
    /// Not a signed JWT, or one whose header asks for what is not done here.
    #[error("the access token is malformed")]
    Malformed,
    /// The header's `typ` is another one: an ID token, perhaps.
    #[error("this is not an access token")]
    Type,
    /// Signed with an algorithm that is not this issuer's.
    #[error("the access token is signed with an algorithm that is not accepted")]
    Algorithm,
    /// Signed with a key that is not this issuer's.
    #[error("the access token is signed with a key that is not known")]
    Key,
    /// The signature does not match.
    #[error("the access token's signature is not valid")]
    Signature,
    /// Another issuer.
    #[error("the access token is from another issuer")]
    Issuer,
    /// Another audience.
    #[error("the access token is for another audience")]
    Audience,
    /// Past its time.
    #[error("the access token has expired")]
    Expired,
    /// Before its time.
    #[error("the access token is not valid yet")]
    NotYet,
    /// A claim is missing, or lives longer than a token may.
    #[error("the access token lacks a claim that is needed, or lives too long")]
    Claims,
    /// The issuer's keys cannot be had, so nothing can be verified.
    #[error("the access token cannot be verified at the moment")]
    Unavailable,
}

impl TokenRefused {
    /// The word for the journal.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "token_malformed",
            Self::Type => "token_type",
            Self::Algorithm => "token_algorithm",
            Self::Key => "token_key",
            Self::Signature => "token_signature",
            Self::Issuer => "token_issuer",
            Self::Audience => "token_audience",
            Self::Expired => "token_expired",
            Self::NotYet => "token_not_yet",
            Self::Claims => "token_claims",
            Self::Unavailable => "token_unverifiable",
        }
    }
}

impl TokenCheck {
    /// A check with the rules and keys of one issuer. Fails where no TLS client can be made.
    pub fn new(rules: TokenRules, keys: KeySource) -> Result<Self, String> {
        Ok(Self { rules, keys: Keys::new(keys).map_err(|error| error.0)? })
    }

    /// Checks one token, at this time.
    pub async fn check(&self, token: &Secret, now: Instant) -> Result<VerifiedToken, TokenRefused> {
        let header = decode_header(token.expose()).map_err(|_| TokenRefused::Malformed)?;
        let algorithm = SigningAlgorithm::of(header.alg).ok_or(TokenRefused::Algorithm)?;
        if !self.rules.algorithms.contains(&algorithm) {
            return Err(TokenRefused::Algorithm);
        }
        if !header.typ.as_deref().is_some_and(|typ| is_type(typ, &self.rules.token_type)) {
            return Err(TokenRefused::Type);
        }
        // An extension that must be understood (RFC 7515 §4.1.11), compression or encryption: none is.
        if header.crit.is_some() || header.zip.is_some() || header.enc.is_some() {
            return Err(TokenRefused::Malformed);
        }
        let kid = header.kid.as_deref().ok_or(TokenRefused::Key)?;
        let key = self.keys.key(kid, algorithm, now).await.map_err(|error| match error {
            NoKey::Unknown => TokenRefused::Key,
            NoKey::Unreachable => TokenRefused::Unavailable,
        })?;
        let verified = decode::<Unambiguous>(token.expose(), &key, &signature_alone(header.alg));
        let verified = verified.map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => TokenRefused::Signature,
            // Signed, but the library could not read a claim that it knows.
            _ => TokenRefused::Claims,
        });
        self.claims(verified?.claims.0, now)
    }

    fn claims(&self, claims: Claims, now: Instant) -> Result<VerifiedToken, TokenRefused> {
        let rules = &self.rules;
        if text(&claims, "iss") != Some(rules.issuer.as_str()) {
            return Err(TokenRefused::Issuer);
        }
        if !is_audience(claims.get("aud"), &rules.audience) {
            return Err(TokenRefused::Audience);
        }
        let (expires, issued) = (seconds(&claims, "exp")?, seconds(&claims, "iat")?);
        let now = now.seconds();
        if expires.saturating_add(LEEWAY_SECONDS) <= now {
            return Err(TokenRefused::Expired);
        }
        let begins = if claims.contains_key("nbf") { seconds(&claims, "nbf")? } else { issued };
        if begins.max(issued) > now.saturating_add(LEEWAY_SECONDS) {
            return Err(TokenRefused::NotYet);
        }
        let lifetime = expires.checked_sub(issued).ok_or(TokenRefused::Claims)?;
        if lifetime > rules.lifetime_max_seconds {
            return Err(TokenRefused::Claims);
        }
        let name = |claim| {
            text(&claims, claim).filter(|text| !text.is_empty() && text.len() <= 256).map(str::to_owned)
        };
        let subject = name("sub").ok_or(TokenRefused::Claims)?;
        let client = if claims.contains_key("client_id") { name("client_id") } else { name("azp") };
        let client = client.ok_or(TokenRefused::Claims)?;
        let scopes = text(&claims, "scope").unwrap_or_default().split(' ').filter(|word| !word.is_empty());
        let scopes = scopes.map(str::to_owned).collect();
        Ok(VerifiedToken { subject, client, scopes, expires: Instant(expires.saturating_mul(1000)), claims })
    }
}

/// Claims of which none stands twice: two readers could each take another one (RFC 7519 §4).
struct Unambiguous(Claims);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OnceEach).map(Self)
    }
}

struct OnceEach;

impl<'de> Visitor<'de> for OnceEach {
    type Value = Claims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of claims")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
        let mut claims = Claims::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if claims.insert(name, value).is_some() {
                return Err(serde::de::Error::custom("a claim stands twice"));
            }
        }
        Ok(claims)
    }
}

/// The library checks the signature; the claims are checked here, against a time that is passed in.
fn signature_alone(algorithm: jsonwebtoken::Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

/// Media types know no case, and `application/` may be left out (RFC 7515 §4.1.9).
fn is_type(given: &str, wanted: &str) -> bool {
    let bare =
        given.get(..12).filter(|prefix| prefix.eq_ignore_ascii_case("application/")).and(given.get(12..));
    bare.unwrap_or(given).eq_ignore_ascii_case(wanted)
}

/// Exactly ours: a token that is also good elsewhere could be replayed from there.
fn is_audience(claim: Option<&Value>, ours: &str) -> bool {
    match claim {
        Some(Value::String(only)) => only == ours,
        Some(Value::Array(list)) => matches!(list.as_slice(), [Value::String(only)] if only == ours),
        _ => false,
    }
}

fn text<'a>(claims: &'a Claims, name: &str) -> Option<&'a str> {
    claims.get(name).and_then(Value::as_str)
}

/// A time in whole seconds (RFC 7519 §2, `NumericDate`).
fn seconds(claims: &Claims, name: &str) -> Result<u64, TokenRefused> {
    let number = claims.get(name).ok_or(TokenRefused::Claims)?;
    number.as_u64().ok_or(TokenRefused::Claims)
}
