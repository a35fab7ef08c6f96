//! The token check: an access token of one issuer, for one audience (RFC 9068, RFC 8725).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use ringfence_core::{Claims, Digest, Instant, Secret};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::dpop::ProofRefused;
use crate::introspect::NotActive;
use crate::keys::{Keys, NoKey};
use crate::verified::{Known, Verified};
use crate::{Introspection, KeySource, KeyTimes, SigningAlgorithm};

/// How far the issuer's clock may be from ours, in seconds.
const LEEWAY_SECONDS: u64 = 5;
/// How long an answer about a token that says nothing itself is kept at the most, in seconds.
const KEEP_MAX_SECONDS: u64 = 60;

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

/// Checks the tokens of one issuer for one audience.
#[derive(Clone)]
pub struct TokenCheck {
    rules: TokenRules,
    keys: Keys,
    asking: Asking,
    verified: Arc<Verified>,
}

/// When the issuer itself is asked about a token.
#[derive(Clone)]
enum Asking {
    Never,
    /// For each token, since tokens say nothing themselves.
    Opaque(Introspection, u64),
    /// Besides the token's own claims, so that what was revoked since ends.
    Recheck(Introspection, u64),
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
    /// The issuer says that it is no longer good.
    #[error("the access token is no longer active")]
    Inactive,
    /// Bound to something that is not checked here, or bound and sent as if it were not (RFC 9449 §7.2).
    #[error("the access token is bound to a key; send `Authorization: DPoP TOKEN` with a proof")]
    Bound,
    /// Not bound to a key, where it has to be.
    #[error("an access token bound to a key is needed; ask for one with a DPoP proof")]
    Unbound,
    /// The proof that came with it is not sound.
    #[error(transparent)]
    Proof(ProofRefused),
    /// Sound, and given to an OAuth client that may not act as an agent here.
    #[error("this OAuth client is not known here; the operator adds it to `known` in `[agents]`")]
    Agent,
    /// Sound, and a user's, where an application's own is needed.
    #[error("an application's own access token is needed (client credentials)")]
    NotAnApplication,
    /// The issuer's keys cannot be had, or it does not say, so nothing can be verified.
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
            Self::Inactive => "token_inactive",
            Self::Bound => "token_bound",
            Self::Unbound => "token_unbound",
            Self::Proof(refused) => refused.code(),
            Self::Agent => "agent_unknown",
            Self::NotAnApplication => "token_of_user",
            Self::Unavailable => "token_unverifiable",
        }
    }
}

impl TokenCheck {
    /// A check with the rules and keys of one issuer. Fails where no TLS client can be made.
    pub fn new(rules: TokenRules, keys: KeySource) -> Result<Self, String> {
        Self::keeping_keys(rules, keys, KeyTimes::default())
    }

    /// The same, with keys that are kept for these times.
    pub fn keeping_keys(rules: TokenRules, keys: KeySource, times: KeyTimes) -> Result<Self, String> {
        let keys = Keys::new(keys, &rules.issuer, times).map_err(|error| error.0)?;
        Ok(Self { rules, keys, asking: Asking::Never, verified: Arc::default() })
    }

    /// The same issuer's tokens for another audience. Keys and answers are shared.
    #[must_use]
    pub fn for_audience(&self, audience: String) -> Self {
        let rules = TokenRules { audience, ..self.rules.clone() };
        Self { rules, verified: Arc::default(), ..self.clone() }
    }

    /// Tokens that say nothing themselves: the issuer is asked, and its answer kept for so many seconds.
    #[must_use]
    pub fn opaque(self, introspection: Introspection, keep_seconds: u64) -> Self {
        Self { asking: Asking::Opaque(introspection, keep_seconds.min(KEEP_MAX_SECONDS)), ..self }
    }

    /// Tokens that the issuer is asked about besides, every so many seconds: what it revoked ends then.
    #[must_use]
    pub fn rechecked(self, introspection: Introspection, every_seconds: u64) -> Self {
        Self { asking: Asking::Recheck(introspection, every_seconds), ..self }
    }

    /// Whose tokens are checked.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.rules.issuer
    }

    /// Whether the issuer is asked about these tokens.
    pub(crate) fn is_asked(&self) -> bool {
        !matches!(self.asking, Asking::Never)
    }

    /// Whether these tokens say nothing themselves.
    pub(crate) fn is_opaque(&self) -> bool {
        matches!(self.asking, Asking::Opaque(..))
    }

    /// Checks one token, at this time.
    pub async fn check(&self, token: &Secret, now: Instant) -> Result<VerifiedToken, TokenRefused> {
        match &self.asking {
            Asking::Never => self.signed(token, now).await,
            Asking::Opaque(introspection, seconds) => {
                let answer = introspection.ask(token, *seconds, now).await.map_err(not_active)?;
                self.introspected(answer, now)
            }
            Asking::Recheck(introspection, seconds) => {
                let verified = self.signed(token, now).await?;
                let answer = introspection.ask(token, *seconds, now).await.map_err(not_active)?;
                if is_of(&answer, &verified) { Ok(verified) } else { Err(TokenRefused::Claims) }
            }
        }
    }

    /// A token that carries its claims, signed; verified now, or before with a key that is still the issuer's.
    async fn signed(&self, token: &Secret, now: Instant) -> Result<VerifiedToken, TokenRefused> {
        let name = Digest::of(&[token.expose().as_bytes()]);
        if let Some(known) = self.verified.find(&name, now) {
            let key = self.keys.key(&known.kid, known.algorithm, now).await;
            if key.is_ok_and(|key| Arc::ptr_eq(&key, &known.key)) {
                return Ok(VerifiedToken::clone(&known.token));
            }
        }
        let known = self.verify(token, now).await?;
        let token = VerifiedToken::clone(&known.token);
        self.verified.keep(name, known);
        Ok(token)
    }

    async fn verify(&self, token: &Secret, now: Instant) -> Result<Known, TokenRefused> {
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
        let kid = header.kid.ok_or(TokenRefused::Key)?;
        let key = self.keys.key(&kid, algorithm, now).await.map_err(|error| match error {
            NoKey::Unknown => TokenRefused::Key,
            NoKey::Unreachable => TokenRefused::Unavailable,
        })?;
        let verified = decode::<Unambiguous>(token.expose(), &key, &signature_alone(header.alg));
        let verified = verified.map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => TokenRefused::Signature,
            // Signed, but the library could not read a claim that it knows.
            _ => TokenRefused::Claims,
        });
        let claims = verified?.claims.0;
        // What only an ID token has (OpenID Connect Core §3.1.3.6 and §3.3.2.11), for issuers whose types do not tell them apart.
        if claims.contains_key("at_hash") || claims.contains_key("c_hash") {
            return Err(TokenRefused::Type);
        }
        let issued = seconds(&claims, "iat")?;
        let token = Arc::new(self.claims(claims, issued, now)?);
        Ok(Known { token, kid, algorithm, key })
    }

    /// What the issuer says of a token (RFC 7662 §2.2). Its name may be left out there, and the time of issue.
    fn introspected(&self, mut claims: Claims, now: Instant) -> Result<VerifiedToken, TokenRefused> {
        let kind = claims.get("token_type").map(|kind| kind.as_str().unwrap_or_default());
        if !kind.is_none_or(|kind| kind.eq_ignore_ascii_case("bearer") || kind.eq_ignore_ascii_case("dpop")) {
            return Err(TokenRefused::Type);
        }
        // A token of this type is bound, whether or not the answer says to what.
        if kind.is_some_and(|kind| kind.eq_ignore_ascii_case("dpop")) && !claims.contains_key("cnf") {
            return Err(TokenRefused::Bound);
        }
        claims.entry("iss").or_insert_with(|| self.rules.issuer.as_str().into());
        let issued = if claims.contains_key("iat") {
            seconds(&claims, "iat")?
        } else {
            seconds(&claims, "exp")?.min(now.seconds())
        };
        self.claims(claims, issued, now)
    }

    fn claims(&self, claims: Claims, issued: u64, now: Instant) -> Result<VerifiedToken, TokenRefused> {
        let rules = &self.rules;
        if text(&claims, "iss") != Some(rules.issuer.as_str()) {
            return Err(TokenRefused::Issuer);
        }
        if !is_audience(claims.get("aud"), &rules.audience) {
            return Err(TokenRefused::Audience);
        }
        let expires = seconds(&claims, "exp")?;
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

fn not_active(refused: NotActive) -> TokenRefused {
    match refused {
        NotActive::Inactive => TokenRefused::Inactive,
        NotActive::Unreachable => TokenRefused::Unavailable,
    }
}

/// Whether an answer speaks of this token: what it says at all, it says as the token does.
fn is_of(answer: &Claims, token: &VerifiedToken) -> bool {
    let says = |name: &str, value: Option<&str>| {
        answer.get(name).is_none_or(|said| value.is_some() && said.as_str() == value)
    };
    says("sub", Some(&token.subject))
        && says("client_id", Some(&token.client))
        && ["iss", "jti"].iter().all(|name| says(name, text(&token.claims, name)))
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
