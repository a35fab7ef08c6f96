//! Proof of possession (RFC 9449): whoever sends a token also signs the request, with the key that the token is bound to. A
//! token that was stolen alone is then of no use.
//!
//! A proof is good once. What was spent is remembered for as long as it would be accepted, within bounds; where no more can be
//! remembered, no more is accepted.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, Header, crypto, decode_header};
use ringfence_core::{Digest, Instant, Secret};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

/// The algorithms that proofs are signed with, as metadata and challenges name them.
pub(crate) const ALGORITHMS: [&str; 2] = ["ES256", "EdDSA"];

/// How old a proof may be, in seconds.
const AGE_MAX_SECONDS: u64 = 60;
/// How far the client's clock may be ahead of ours, in seconds.
const LEEWAY_SECONDS: u64 = 5;
/// The longest proof that is looked at, in bytes.
const PROOF_BYTES_MAX: usize = 4096;
/// The longest `jti`, in bytes.
const ID_BYTES_MAX: usize = 256;
/// Spent proofs that are remembered at the most, and of these those of one user, however many keys that one has: nobody can
/// shut out the others.
const SPENT_MAX: usize = 200_000;
const SPENT_BY_ONE_MAX: usize = 20_000;

/// What a proof has to fit.
pub(crate) struct Expected<'a> {
    /// The method of the request, as it stands in it.
    pub(crate) method: &'a str,
    /// The URL of the request as the client spells it, without query and fragment.
    pub(crate) url: &'a Url,
    /// The token that comes with the proof; none at a token endpoint (RFC 9449 §5).
    pub(crate) token: Option<&'a Secret>,
    /// The thumbprint of the key that the token is bound to (`cnf.jkt`), where it is known.
    pub(crate) key: Option<&'a str>,
    /// Whose token it is, as issuer and subject; none at a token endpoint, where a key stands for itself.
    pub(crate) owner: Option<(&'a str, &'a str)>,
}

/// Why a proof was refused (`invalid_dpop_proof`, RFC 9449 §7.1). The text is for the client.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProofRefused {
    /// Not a signed JWT of type `dpop+jwt` with a public key and the claims that a proof has.
    #[error("the DPoP proof is malformed")]
    Malformed,
    /// Signed with an algorithm that is not accepted.
    #[error("the DPoP proof is signed with an algorithm that is not accepted; use ES256 or EdDSA")]
    Algorithm,
    /// The signature does not match.
    #[error("the DPoP proof's signature is not valid")]
    Signature,
    /// For another method.
    #[error("the DPoP proof is for another method")]
    Method,
    /// For another URL.
    #[error("the DPoP proof is for another URL")]
    Url,
    /// Too old, or from the future.
    #[error("the DPoP proof is not of this moment; make a new one for each request")]
    Time,
    /// For another token, or none.
    #[error("the DPoP proof is for another access token")]
    Token,
    /// Signed with another key than the one that the token is bound to.
    #[error("the DPoP proof is signed with another key than the access token's")]
    Key,
    /// Spent already.
    #[error("the DPoP proof was used before; make a new one for each request")]
    Replayed,
    /// No more proofs can be remembered for now.
    #[error("too many DPoP proofs were sent; try again in a minute")]
    Full,
}

impl ProofRefused {
    /// The word for the journal.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "proof_malformed",
            Self::Algorithm => "proof_algorithm",
            Self::Signature => "proof_signature",
            Self::Method => "proof_method",
            Self::Url => "proof_url",
            Self::Time => "proof_time",
            Self::Token => "proof_token",
            Self::Key => "proof_key",
            Self::Replayed => "proof_replayed",
            Self::Full => "proof_full",
        }
    }
}

/// Checks one proof in every part, and spends it last (RFC 9449 §4.3). Gives the thumbprint of its key (RFC 7638), to which a
/// token can be bound.
pub(crate) fn check(
    proof: &str,
    expected: &Expected<'_>,
    now: Instant,
    spent: &SpentProofs,
) -> Result<String, ProofRefused> {
    let (header, claims) = verified(proof)?;
    if claims.htm != expected.method {
        return Err(ProofRefused::Method);
    }
    if !is_same_url(&claims.htu, expected.url) {
        return Err(ProofRefused::Url);
    }
    let now_seconds = now.seconds();
    if claims.iat > now_seconds.saturating_add(LEEWAY_SECONDS)
        || claims.iat.saturating_add(AGE_MAX_SECONDS) < now_seconds
    {
        return Err(ProofRefused::Time);
    }
    if expected.token.is_some_and(|token| claims.ath.as_deref() != Some(&token_hash(token))) {
        return Err(ProofRefused::Token);
    }
    let key = header.thumbprint(ThumbprintHash::SHA256).map_err(|_| ProofRefused::Malformed)?;
    if expected.key.is_some_and(|bound| bound != key) {
        return Err(ProofRefused::Key);
    }
    let owner = match expected.owner {
        Some((issuer, subject)) => json!([issuer, subject]).to_string(),
        None => key.clone(),
    };
    spent.spend(&owner, &key, &claims.jti, now)?;
    Ok(key)
}

/// What a proof says of a token (`ath`, RFC 9449 §4.2).
pub(crate) fn token_hash(token: &Secret) -> String {
    URL_SAFE_NO_PAD.encode(Digest::of(&[token.expose().as_bytes()]).as_bytes())
}

#[derive(Deserialize)]
struct ProofClaims {
    jti: String,
    htm: String,
    htu: String,
    iat: u64,
    ath: Option<String>,
}

/// The key and the claims of a proof whose form and signature are sound.
fn verified(proof: &str) -> Result<(Jwk, ProofClaims), ProofRefused> {
    if proof.len() > PROOF_BYTES_MAX {
        return Err(ProofRefused::Malformed);
    }
    let header = decode_header(proof).map_err(|_| ProofRefused::Malformed)?;
    let is_plain = header.crit.is_none() && header.zip.is_none() && header.enc.is_none();
    let is_proof = header.typ.as_deref().is_some_and(|typ| typ.eq_ignore_ascii_case("dpop+jwt"));
    let (signed, signature) = proof.rsplit_once('.').ok_or(ProofRefused::Malformed)?;
    let (head, payload) = signed.split_once('.').ok_or(ProofRefused::Malformed)?;
    if !is_plain || !is_proof || !holds_a_public_key_alone(head) {
        return Err(ProofRefused::Malformed);
    }
    let key = key(header)?;
    let decoding = DecodingKey::from_jwk(&key.1).map_err(|_| ProofRefused::Malformed)?;
    let is_signed = crypto::verify(signature, signed.as_bytes(), &decoding, key.0);
    if !is_signed.is_ok_and(|is_signed| is_signed) {
        return Err(ProofRefused::Signature);
    }
    let claims = URL_SAFE_NO_PAD.decode(payload).map_err(|_| ProofRefused::Malformed)?;
    let claims: ProofClaims = serde_json::from_slice(&claims).map_err(|_| ProofRefused::Malformed)?;
    if claims.jti.is_empty() || claims.jti.len() > ID_BYTES_MAX {
        return Err(ProofRefused::Malformed);
    }
    Ok((key.1, claims))
}

/// The key in the header, where it fits the algorithm.
fn key(header: Header) -> Result<(Algorithm, Jwk), ProofRefused> {
    let key = header.jwk.ok_or(ProofRefused::Malformed)?;
    let fits = match (header.alg, &key.algorithm) {
        (Algorithm::ES256, AlgorithmParameters::EllipticCurve(key)) => key.curve == EllipticCurve::P256,
        (Algorithm::EdDSA, AlgorithmParameters::OctetKeyPair(key)) => key.curve == EllipticCurve::Ed25519,
        _ => false,
    };
    if fits { Ok((header.alg, key)) } else { Err(ProofRefused::Algorithm) }
}

/// A client that sends its private key has given it away (RFC 9449 §4.3, 7); the library reads past it.
fn holds_a_public_key_alone(head: &str) -> bool {
    let header = URL_SAFE_NO_PAD.decode(head).ok();
    let header: Option<Map<String, Value>> = header.and_then(|text| serde_json::from_slice(&text).ok());
    let key = header.as_ref().and_then(|header| header.get("jwk")?.as_object());
    key.is_some_and(|key| !["d", "k", "p", "q"].iter().any(|private| key.contains_key(*private)))
}

/// The same after normalisation (RFC 3986 §6.2.2 and §6.2.3), whatever the client left as query and fragment.
fn is_same_url(claimed: &str, ours: &Url) -> bool {
    let Ok(mut claimed) = Url::parse(claimed) else { return false };
    claimed.set_query(None);
    claimed.set_fragment(None);
    claimed == *ours
}

/// The proofs that were spent and could still be accepted.
#[derive(Default)]
pub(crate) struct SpentProofs(Mutex<Spent>);

#[derive(Default)]
struct Spent {
    ids: HashSet<Digest>,
    /// In the order in which they were spent, each with its owner and the time until which it is remembered.
    order: VecDeque<(Instant, Digest, Digest)>,
    by_owner: HashMap<Digest, usize>,
}

impl SpentProofs {
    /// Spends a proof: refused where it was before, or where it could not be remembered.
    fn spend(&self, owner: &str, key: &str, id: &str, now: Instant) -> Result<(), ProofRefused> {
        // A thread that panicked in here leaves nothing that can be trusted.
        let mut spent = self.0.lock().map_err(|_| ProofRefused::Full)?;
        spent.forget(now);
        let owner = Digest::of(&[owner.as_bytes()]);
        let id = Digest::of(&[Digest::of(&[key.as_bytes()]).as_bytes(), id.as_bytes()]);
        if spent.ids.contains(&id) {
            return Err(ProofRefused::Replayed);
        }
        let of_owner = spent.by_owner.get(&owner).copied().unwrap_or(0);
        if spent.ids.len() >= SPENT_MAX || of_owner >= SPENT_BY_ONE_MAX {
            return Err(ProofRefused::Full);
        }
        // The longest that any proof accepted now could be accepted again.
        let kept_ms = (AGE_MAX_SECONDS + LEEWAY_SECONDS + 1) * 1000;
        spent.ids.insert(id);
        spent.by_owner.insert(owner, of_owner + 1);
        spent.order.push_back((Instant(now.0.saturating_add(kept_ms)), id, owner));
        Ok(())
    }
}

impl Spent {
    fn forget(&mut self, now: Instant) {
        while let Some((_, id, owner)) = self.order.pop_front_if(|(until, _, _)| until.0 <= now.0) {
            self.ids.remove(&id);
            let left = self.by_owner.get(&owner).map_or(0, |count| count.saturating_sub(1));
            if left == 0 {
                self.by_owner.remove(&owner);
            } else {
                self.by_owner.insert(owner, left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::EncodingKey;

    const NOW: Instant = Instant(1_800_000_000_000);
    const URL: &str = "https://agents.example.com/mcp";

    /// A client's key, with which it signs what it likes.
    struct Key {
        signing: EncodingKey,
        public: Value,
        thumbprint: String,
    }

    fn new_key() -> Key {
        let der = crate::development::new_key().unwrap();
        let der = base64::engine::general_purpose::STANDARD.decode(der.expose()).unwrap();
        let signing = EncodingKey::from_ec_der(&der);
        let mut public = Jwk::from_encoding_key(&signing, Algorithm::ES256).unwrap();
        public.common = jsonwebtoken::jwk::CommonParameters::default();
        let thumbprint = public.thumbprint(ThumbprintHash::SHA256).unwrap();
        Key { signing, public: json!(public), thumbprint }
    }

    fn sign(key: &Key, header: &Value, claims: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", encode(&header.to_string()), encode(claims));
        let signature = crypto::sign(signed.as_bytes(), &key.signing, Algorithm::ES256).unwrap();
        format!("{signed}.{signature}")
    }

    fn header(key: &Key) -> Value {
        json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": key.public })
    }

    fn claims(id: &str) -> Value {
        let token = Secret::new("token".into());
        json!({ "jti": id, "htm": "POST", "htu": URL, "iat": NOW.seconds(), "ath": token_hash(&token) })
    }

    fn with(mut object: Value, name: &str, value: Value) -> Value {
        match value {
            Value::Null => object.as_object_mut().unwrap().remove(name),
            value => object.as_object_mut().unwrap().insert(name.into(), value),
        };
        object
    }

    fn judge(proof: &str, bound_to: &str, spent: &SpentProofs, now: Instant) -> Result<String, ProofRefused> {
        let (url, token) = (Url::parse(URL).unwrap(), Secret::new("token".into()));
        let expected =
            Expected { method: "POST", url: &url, token: Some(&token), key: Some(bound_to), owner: None };
        check(proof, &expected, now, spent)
    }

    #[test]
    fn a_proof_that_is_wrong_in_any_one_way_is_refused_for_that() {
        let (key, other) = (new_key(), new_key());
        let spent = SpentProofs::default();
        let good = sign(&key, &header(&key), &claims("control").to_string());
        assert_eq!(judge(&good, &key.thumbprint, &spent, NOW), Ok(key.thumbprint.clone()), "the control");
        assert_eq!(judge(&good, &key.thumbprint, &spent, NOW), Err(ProofRefused::Replayed));
        let now = NOW.seconds();
        let by_claim = [
            ("htm", json!("GET"), ProofRefused::Method),
            ("htm", json!("post"), ProofRefused::Method),
            ("htm", Value::Null, ProofRefused::Malformed),
            ("htu", json!("https://agents.example.com/other"), ProofRefused::Url),
            ("htu", json!("http://agents.example.com/mcp"), ProofRefused::Url),
            ("htu", json!("https://agents.example.com:8443/mcp"), ProofRefused::Url),
            ("htu", json!("mcp"), ProofRefused::Url),
            ("iat", json!(now - AGE_MAX_SECONDS - 1), ProofRefused::Time),
            ("iat", json!(now + LEEWAY_SECONDS + 1), ProofRefused::Time),
            ("iat", json!(now.to_string()), ProofRefused::Malformed),
            ("ath", json!(token_hash(&Secret::new("another".into()))), ProofRefused::Token),
            ("ath", Value::Null, ProofRefused::Token),
            ("jti", json!(""), ProofRefused::Malformed),
            ("jti", json!("x".repeat(ID_BYTES_MAX + 1)), ProofRefused::Malformed),
            ("jti", Value::Null, ProofRefused::Malformed),
        ];
        for (name, value, why) in by_claim {
            let proof = sign(&key, &header(&key), &with(claims("wrong"), name, value.clone()).to_string());
            assert_eq!(judge(&proof, &key.thumbprint, &spent, NOW), Err(why), "{name} = {value}");
        }
        let private = with(key.public.clone(), "d", json!("AAAA"));
        let by_header = [
            ("typ", json!("JWT"), ProofRefused::Malformed),
            ("typ", Value::Null, ProofRefused::Malformed),
            ("alg", json!("none"), ProofRefused::Malformed),
            ("alg", json!("HS256"), ProofRefused::Algorithm),
            ("alg", json!("EdDSA"), ProofRefused::Algorithm),
            ("jwk", Value::Null, ProofRefused::Malformed),
            ("jwk", private, ProofRefused::Malformed),
            ("jwk", other.public.clone(), ProofRefused::Signature),
            ("crit", json!(["b64"]), ProofRefused::Malformed),
        ];
        for (name, value, why) in by_header {
            let proof = sign(&key, &with(header(&key), name, value.clone()), &claims("wrong").to_string());
            assert_eq!(judge(&proof, &key.thumbprint, &spent, NOW), Err(why), "{name} = {value}");
        }
        let of_other = sign(&other, &header(&other), &claims("wrong").to_string());
        assert_eq!(judge(&of_other, &key.thumbprint, &spent, NOW), Err(ProofRefused::Key));
        let twice = claims("wrong").to_string().replace('{', r#"{"htm":"GET","#);
        let twice = sign(&key, &header(&key), &twice);
        assert_eq!(judge(&twice, &key.thumbprint, &spent, NOW), Err(ProofRefused::Malformed));
        // None of the refused was spent.
        let again = sign(&key, &header(&key), &claims("wrong").to_string());
        assert!(judge(&again, &key.thumbprint, &spent, NOW).is_ok());
    }

    #[test]
    fn a_url_is_compared_by_its_parts() {
        let (key, spent) = (new_key(), SpentProofs::default());
        for same in ["HTTPS://Agents.Example.COM:443/mcp", "https://agents.example.com/mcp?a=b#c"] {
            let proof = sign(&key, &header(&key), &with(claims(same), "htu", json!(same)).to_string());
            assert!(judge(&proof, &key.thumbprint, &spent, NOW).is_ok(), "{same}");
        }
    }

    #[test]
    fn an_ed25519_key_proves_as_well() {
        use aws_lc_rs::signature::KeyPair as _;
        let pair = aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap();
        let public =
            json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(pair.public_key()) });
        let header = json!({ "typ": "dpop+jwt", "alg": "EdDSA", "jwk": public });
        let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims("1").to_string()));
        let proof = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes())));
        let thumbprint: Jwk = serde_json::from_value(public).unwrap();
        let thumbprint = thumbprint.thumbprint(ThumbprintHash::SHA256).unwrap();
        assert_eq!(judge(&proof, &thumbprint, &SpentProofs::default(), NOW), Ok(thumbprint.clone()));
    }

    #[test]
    fn what_is_spent_is_remembered_for_as_long_as_it_would_be_accepted_and_within_bounds() {
        let spent = SpentProofs::default();
        for id in 0..SPENT_BY_ONE_MAX {
            // Ten keys of one user.
            assert_eq!(spent.spend("busy", &(id % 10).to_string(), &id.to_string(), NOW), Ok(()));
        }
        assert_eq!(spent.spend("busy", "another key", "more", NOW), Err(ProofRefused::Full));
        assert_eq!(spent.spend("another", "0", "more", NOW), Ok(()), "one user does not shut out another");
        let last = Instant(NOW.0 + (AGE_MAX_SECONDS + LEEWAY_SECONDS) * 1000);
        assert_eq!(spent.spend("another", "0", "0", last), Err(ProofRefused::Replayed), "whoever's it is");
        let later = Instant(last.0 + 1000);
        assert_eq!(spent.spend("busy", "0", "0", later), Ok(()));
        let remembered = spent.0.lock().unwrap();
        assert_eq!((remembered.ids.len(), remembered.order.len(), remembered.by_owner.len()), (1, 1, 1));
    }
}
