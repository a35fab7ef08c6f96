//! Tokens that are bound to a key (RFC 9449), and the ways to use one without it.

use ringfence_core::{Authorities, Instant, Secret};
use serde_json::{Value, json};
use url::Url;

use super::fake::{Fake, Key, with};
use super::{AUDIENCE, NOW};
use crate::dpop::token_hash;
use crate::{
    Door, Identity, KnownAgents, Presented, ProofRefused, ProofRule, Scheme, TokenRefused, TrustedIssuer,
};

fn identity(issuer: &Fake) -> Identity {
    let TrustedIssuer { agents, people, groups } = issuer.trusted();
    Identity::new(agents, people, groups, Authorities::establish().verifier).knowing(KnownAgents::Any)
}

/// The claims of a sound proof for this token.
fn proof_claims(token: &Secret, id: &str) -> Value {
    let hash = token_hash(token);
    json!({ "jti": id, "htm": "POST", "htu": AUDIENCE, "iat": NOW.seconds(), "ath": hash })
}

async fn judge(
    identity: &Identity,
    (scheme, token, proof): (Scheme, &Secret, Option<&str>),
    now: Instant,
) -> Option<TokenRefused> {
    let url = Url::parse(AUDIENCE).unwrap();
    let presented = Presented { scheme, token, proof, method: "POST", url: Some(&url) };
    identity.identify(Door::Agents, presented, now).await.err()
}

#[tokio::test]
async fn a_bound_token_is_of_use_to_its_key_alone() {
    let (issuing, client, thief) = (Key::named("1"), Key::named("c"), Key::named("t"));
    let issuer = Fake::publishing(&[&issuing]).await;
    let identity = identity(&issuer);
    let bound = |cnf: Value| issuing.token(&with(issuer.claims(), "cnf", cnf));
    let token = bound(json!({ "jkt": client.thumbprint }));
    let good = client.proof(&proof_claims(&token, "1"));
    let (dpop, bearer) = (Scheme::Dpop, Scheme::Bearer);
    assert_eq!(judge(&identity, (dpop, &token, Some(&good)), NOW).await, None, "the control");
    let refused = async |what: &str, sent: (Scheme, &Secret, Option<&str>), why: TokenRefused| {
        assert_eq!(judge(&identity, sent, NOW).await, Some(why), "{what}");
    };
    let proof = |why: ProofRefused| TokenRefused::Proof(why);
    refused("used before", (dpop, &token, Some(&good)), proof(ProofRefused::Replayed)).await;
    refused("no proof", (dpop, &token, None), proof(ProofRefused::Malformed)).await;
    refused("as a bearer token", (bearer, &token, None), TokenRefused::Bound).await;
    let fresh = client.proof(&proof_claims(&token, "2"));
    refused("as a bearer token with its proof", (bearer, &token, Some(&fresh)), TokenRefused::Bound).await;
    let stolen = thief.proof(&proof_claims(&token, "3"));
    refused("another's key", (dpop, &token, Some(&stolen)), proof(ProofRefused::Key)).await;
    for (name, value, why) in [
        ("htm", json!("GET"), ProofRefused::Method),
        ("htu", json!("http://127.0.0.1:8788"), ProofRefused::Url),
        ("ath", json!(token_hash(&bound(json!({ "jkt": "x" })))), ProofRefused::Token),
        ("ath", Value::Null, ProofRefused::Token),
        ("iat", json!(NOW.seconds() - 61), ProofRefused::Time),
        ("iat", json!(NOW.seconds() + 6), ProofRefused::Time),
    ] {
        let wrong = client.proof(&with(proof_claims(&token, "4"), name, value.clone()));
        refused(&format!("{name} = {value}"), (dpop, &token, Some(&wrong)), proof(why)).await;
    }
    let elsewhere = Presented { scheme: dpop, token: &token, proof: Some(&fresh), method: "POST", url: None };
    let refused_elsewhere = identity.identify(Door::Agents, elsewhere, NOW).await.err();
    assert_eq!(refused_elsewhere, Some(proof(ProofRefused::Url)), "where no URL is known");
    assert_eq!(judge(&identity, (dpop, &token, Some(&fresh)), NOW).await, None, "none of them spent it");
}

#[tokio::test]
async fn a_binding_that_cannot_be_checked_is_not_overlooked() {
    let (issuing, client) = (Key::named("1"), Key::named("c"));
    let issuer = Fake::publishing(&[&issuing]).await;
    let identity = identity(&issuer);
    let jkt = client.thumbprint.as_str();
    for (cnf, expected) in [
        (json!({ "jkt": jkt }), None),
        (json!({ "x5t#S256": "abc" }), Some(TokenRefused::Claims)),
        (json!({ "jkt": jkt, "x5t#S256": "abc" }), Some(TokenRefused::Claims)),
        (json!({ "jwk": client.public }), Some(TokenRefused::Claims)),
        (json!({ "jkt": [jkt] }), Some(TokenRefused::Claims)),
        (json!({}), Some(TokenRefused::Claims)),
        (json!(jkt), Some(TokenRefused::Claims)),
    ] {
        let token = issuing.token(&with(issuer.claims(), "cnf", cnf.clone()));
        let proof = client.proof(&proof_claims(&token, &cnf.to_string()));
        assert_eq!(judge(&identity, (Scheme::Dpop, &token, Some(&proof)), NOW).await, expected, "{cnf}");
        if expected.is_some() {
            assert_eq!(
                judge(&identity, (Scheme::Bearer, &token, None), NOW).await,
                expected,
                "{cnf} as bearer"
            );
        }
    }
}

#[tokio::test]
async fn where_proofs_are_required_a_token_for_anyone_is_refused() {
    let (issuing, client) = (Key::named("1"), Key::named("c"));
    let issuer = Fake::publishing(&[&issuing]).await;
    let (lax, strict) = (identity(&issuer), identity(&issuer).proving(ProofRule::Always));
    let unbound = issuing.token(&issuer.claims());
    let bound = issuing.token(&with(issuer.claims(), "cnf", json!({ "jkt": client.thumbprint })));
    assert_eq!(judge(&lax, (Scheme::Bearer, &unbound, None), NOW).await, None, "the control");
    assert_eq!(judge(&strict, (Scheme::Bearer, &unbound, None), NOW).await, Some(TokenRefused::Unbound));
    let proof = client.proof(&proof_claims(&bound, "1"));
    assert_eq!(judge(&strict, (Scheme::Dpop, &bound, Some(&proof)), NOW).await, None);
    // A proof says nothing of a token that is not bound to its key.
    let proof = client.proof(&proof_claims(&unbound, "2"));
    for identity in [&lax, &strict] {
        let judged = judge(identity, (Scheme::Dpop, &unbound, Some(&proof)), NOW).await;
        assert_eq!(judged, Some(TokenRefused::Unbound));
    }
}
