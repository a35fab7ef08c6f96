//! An issuer in this process, found by its metadata, that signs whatever a test or a bench wants, and a project that trusts it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::Router;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_core::Digest;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::Project;

/// A key pair with which a test is an issuer, or a client.
pub struct Key(EcdsaKeyPair);

impl Default for Key {
    fn default() -> Self {
        Self::new()
    }
}

impl Key {
    /// A fresh one.
    ///
    /// # Panics
    /// Where there is no randomness.
    #[must_use]
    pub fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    /// The public half, as a JWK.
    #[must_use]
    pub fn public(&self) -> Value {
        let point = self.0.public_key().as_ref();
        let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        json!({ "crv": "P-256", "kty": "EC", "x": encode(&point[1..33]), "y": encode(&point[33..]) })
    }

    /// RFC 7638: the members in their order, and nothing else.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(Digest::of(&[self.public().to_string().as_bytes()]).as_bytes())
    }

    /// A JWT with this header.
    ///
    /// # Panics
    /// Where it cannot be signed.
    #[must_use]
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// An issuer that is found by its metadata.
pub struct Issuer {
    /// Its name.
    pub name: String,
    /// The key that it signs with.
    pub key: Key,
    _runtime: Runtime,
}

impl Default for Issuer {
    fn default() -> Self {
        Self::new()
    }
}

impl Issuer {
    /// One that answers on loopback.
    ///
    /// # Panics
    /// Where it cannot listen.
    #[must_use]
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let (runtime, key) = (runtime.unwrap(), Key::new());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let name = format!("http://{}", listener.local_addr().unwrap());
        let mut public = key.public();
        public["kid"] = json!("1");
        let metadata = Arc::new(json!({ "issuer": name, "jwks_uri": format!("{name}/keys") }).to_string());
        let keys = Arc::new(json!({ "keys": [public] }).to_string());
        let says = |text: Arc<String>| get(move || async move { text.to_string() });
        let router = Router::new()
            .route("/.well-known/openid-configuration", says(metadata))
            .route("/keys", says(keys));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { name, key, _runtime: runtime }
    }

    /// A token of Bob's for this audience, with further claims.
    ///
    /// # Panics
    /// Where `further` is no object.
    #[must_use]
    pub fn token(&self, audience: &str, further: &Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({
            "iss": self.name, "sub": "bob", "aud": audience, "client_id": "desk", "scope": "tools",
            "iat": now, "exp": now + 300, "groups": ["analysts"], "tenant": "acme",
        });
        claims.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
        self.key.sign(&json!({ "alg": "ES256", "typ": "at+jwt", "kid": "1" }), &claims)
    }
}

/// A project that trusts these issuers.
///
/// # Panics
/// Where it cannot be written.
#[must_use]
pub fn trusting(issuers: &[&Issuer], further: &str) -> Project {
    let project = Project::new();
    project.edit("ringfence.toml", |text| {
        let own =
            text.lines().filter(|line| !["development-", "users"].iter().any(|word| line.starts_with(word)));
        let listed = issuers.iter().map(|issuer| {
            format!("[[identity.issuers]]\nissuer = \"{}\"\nalgorithms = [\"ES256\"]\n\n", issuer.name)
        });
        let listed = listed.collect::<String>() + "[agents]\n";
        own.collect::<Vec<_>>()
            .join("\n")
            .replace("[agents]\n", &listed)
            .replace("[identity]\n", &format!("[identity]\n{further}"))
    });
    project
}
