//! What it costs to know who sent a request, with the issuer's keys at hand: the token check alone, and with the principal.
//!
//! `cargo xtask bench identity` runs it on a release build. Nothing is asked of anybody.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a bench"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant as Clock};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ringfence_core::{Authorities, Instant, Secret};
use ringfence_identity::development::{Issuer, IssuerSettings, Logins, Minting, User, new_key};
use ringfence_identity::{
    Door, GroupsClaim, Identity, KeySource, KnownAgents, SigningAlgorithm, TokenCheck, TokenRules,
};
use serde_json::json;

const NOW: Instant = Instant(1_800_000_000_000);
const AUDIENCE: &str = "https://agents.example.com/mcp";
const WARM_UP: usize = 2_000;
const CHECKS: usize = 10_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!("A token check with the issuer's key at hand, {CHECKS} in a row:");
    for (name, key, algorithm, configured) in keys() {
        let (check, tokens) = signed(&key, algorithm, configured);
        let mut next = tokens.iter();
        let first = || runtime.block_on(check.check(next.next().unwrap(), NOW)).map(drop).unwrap();
        report(&format!("{name}, a token seen for the first time"), &measure(first));
    }
    let (identity, tokens) = development();
    let mut next = tokens.iter().cycle();
    let took = measure(|| {
        let token = next.next().unwrap();
        drop(runtime.block_on(identity.identify(Door::Agents, token, NOW)).unwrap());
    });
    report("ES256, to a principal, 1,000 users by turns", &took);
}

fn measure(mut once: impl FnMut()) -> Vec<Duration> {
    (0..WARM_UP).for_each(|_| once());
    let timed = (0..CHECKS).map(|_| {
        let began = Clock::now();
        once();
        began.elapsed()
    });
    let mut took: Vec<Duration> = timed.collect();
    took.sort_unstable();
    took
}

fn report(what: &str, took: &[Duration]) {
    let at = |part: usize| took[took.len() * part / 1000];
    println!("  {what:<46} p50 {:>9.1?}  p99 {:>9.1?}  p99.9 {:>9.1?}", at(500), at(990), at(999));
}

fn keys() -> Vec<(&'static str, EncodingKey, Algorithm, SigningAlgorithm)> {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let ec = EncodingKey::from_ec_der(&STANDARD.decode(new_key().unwrap().expose()).unwrap());
    let ed = aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap();
    let rsa = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let rsa: Pkcs8V1Der<'_> = rsa.as_der().unwrap();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(rsa.as_ref())
    );
    vec![
        ("ES256", ec, Algorithm::ES256, SigningAlgorithm::Es256),
        ("EdDSA", EncodingKey::from_ed_der(ed.as_ref()), Algorithm::EdDSA, SigningAlgorithm::EdDsa),
        (
            "RS256",
            EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
            Algorithm::RS256,
            SigningAlgorithm::Rs256,
        ),
    ]
}

fn signed(
    key: &EncodingKey,
    algorithm: Algorithm,
    configured: SigningAlgorithm,
) -> (TokenCheck, Vec<Secret>) {
    let mut public = Jwk::from_encoding_key(key, algorithm).unwrap();
    public.common.key_id = Some("1".into());
    let rules = TokenRules {
        issuer: "https://login.example.com".into(),
        audience: AUDIENCE.into(),
        algorithms: vec![configured],
        token_type: "at+jwt".into(),
        lifetime_max_seconds: 3600,
    };
    let header = Header { typ: Some("at+jwt".into()), kid: Some("1".into()), ..Header::new(algorithm) };
    let now = NOW.seconds();
    let claims = json!({
        "iss": rules.issuer, "sub": "bob", "aud": AUDIENCE, "client_id": "cli", "iat": now, "exp": now + 600,
        "scope": "tools tickets:write", "groups": ["analysts", "operators"], "tenant": "acme",
    });
    let tokens = (0..WARM_UP + CHECKS).map(|number| {
        let mut claims = claims.clone();
        claims["jti"] = json!(number);
        Secret::new(jsonwebtoken::encode(&header, &claims, key).unwrap())
    });
    let tokens = tokens.collect();
    (TokenCheck::new(rules, KeySource::Fixed(JwkSet { keys: vec![public] })).unwrap(), tokens)
}

fn development() -> (Identity, Vec<Secret>) {
    let users: BTreeMap<String, User> = (0..1000)
        .map(|number| (format!("user-{number}"), User { groups: vec!["analysts".into()], ..User::default() }))
        .collect();
    let names: Vec<String> = users.keys().cloned().collect();
    let settings = IssuerSettings {
        listen: ([127, 0, 0, 1], 8789).into(),
        groups_claim: "groups".into(),
        users,
        resources: vec![AUDIENCE.into()],
        downstream: BTreeMap::new(),
        logins: Logins::default(),
    };
    let issuer = Issuer::new(&new_key().unwrap(), settings).unwrap();
    let mint = |user: &String| {
        let minting = Minting { user, agent: "cli", audience: AUDIENCE, scopes: &[], lifetime_seconds: 600 };
        issuer.mint(minting, NOW).unwrap()
    };
    let tokens = names.iter().map(mint).collect();
    let (agents, people) = (issuer.check(AUDIENCE).unwrap(), issuer.check("x").unwrap());
    let groups = GroupsClaim { name: "groups".into(), optional: false };
    let identity = Identity::new(agents, people, groups, Authorities::establish().verifier);
    (identity.knowing(KnownAgents::Any), tokens)
}
