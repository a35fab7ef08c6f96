//! An issuer that does what a test tells it to, on loopback, and the keys that sign for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ringfence_core::{Instant, Secret};
use serde_json::{Value, json};

use super::{AUDIENCE, NOW, PEOPLE};
use crate::development::new_key;
use crate::{Endpoint, GroupsClaim, KeySource, SigningAlgorithm, TokenCheck, TokenRules, TrustedIssuer};

/// A P-256 key pair.
pub(super) struct Key {
    pub(super) signing: EncodingKey,
    /// With its name.
    pub(super) public: Value,
    pub(super) thumbprint: String,
}

impl Key {
    pub(super) fn named(kid: &str) -> Self {
        let der = STANDARD.decode(new_key().unwrap().expose()).unwrap();
        let signing = EncodingKey::from_ec_der(&der);
        let mut public = Jwk::from_encoding_key(&signing, Algorithm::ES256).unwrap();
        public.common.key_id = Some(kid.into());
        let thumbprint = public.thumbprint(ThumbprintHash::SHA256).unwrap();
        Self { signing, public: json!(public), thumbprint }
    }

    /// A token that this key signs, of type `at+jwt`.
    pub(super) fn token(&self, claims: &Value) -> Secret {
        self.typed("at+jwt", claims)
    }

    pub(super) fn typed(&self, typ: &str, claims: &Value) -> Secret {
        let kid = self.public["kid"].as_str().map(str::to_owned);
        let header = Header { typ: Some(typ.into()), kid, ..Header::new(Algorithm::ES256) };
        Secret::new(jsonwebtoken::encode(&header, claims, &self.signing).unwrap())
    }

    /// A proof of possession by this key.
    pub(super) fn proof(&self, claims: &Value) -> String {
        let mut public = self.public.clone();
        public.as_object_mut().unwrap().retain(|name, _| ["kty", "crv", "x", "y"].contains(&name.as_str()));
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": public });
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature =
            jsonwebtoken::crypto::sign(signed.as_bytes(), &self.signing, Algorithm::ES256).unwrap();
        format!("{signed}.{signature}")
    }
}

/// An issuer on loopback.
pub(super) struct Fake {
    pub(super) name: String,
    pub(super) told: Arc<Told>,
    serving: tokio::task::JoinHandle<()>,
}

/// What it is told to answer, and how often it was asked.
#[derive(Default)]
pub(super) struct Told {
    /// The published keys; `None`: it fails.
    pub(super) keys: Mutex<Option<Value>>,
    pub(super) metadata: Mutex<Value>,
    /// What it says of each token; of others, that they are not active.
    pub(super) tokens: Mutex<HashMap<String, Value>>,
    pub(super) introspection_fails: Mutex<Option<(StatusCode, String)>>,
    pub(super) keys_asked: AtomicUsize,
    pub(super) tokens_asked: AtomicUsize,
    pub(super) elsewhere_asked: AtomicUsize,
}

impl Fake {
    pub(super) async fn publishing(keys: &[&Key]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = format!("http://{}", listener.local_addr().unwrap());
        let told = Arc::new(Told::default());
        *told.metadata.lock().unwrap() = json!({ "issuer": name, "jwks_uri": format!("{name}/jwks") });
        let router = Router::new()
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/jwks", get(jwks))
            .route("/redirect", get(|| async { (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")]) }))
            .route("/elsewhere", get(elsewhere))
            .route("/long", get(|| async { "x".repeat(300 << 10) }))
            .route("/introspect", post(introspect))
            .with_state(told.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let fake = Self { name, told, serving };
        fake.publish(keys);
        fake
    }

    pub(super) fn publish(&self, keys: &[&Key]) {
        let keys: Vec<&Value> = keys.iter().map(|key| &key.public).collect();
        *self.told.keys.lock().unwrap() = Some(json!({ "keys": keys }));
    }

    pub(super) fn fail(&self) {
        *self.told.keys.lock().unwrap() = None;
    }

    pub(super) fn keys_asked(&self) -> usize {
        self.told.keys_asked.load(Ordering::SeqCst)
    }

    pub(super) fn tokens_asked(&self) -> usize {
        self.told.tokens_asked.load(Ordering::SeqCst)
    }

    pub(super) fn at(&self, path: &str) -> KeySource {
        KeySource::Url(Endpoint::new(&format!("{}{path}", self.name)).unwrap())
    }

    pub(super) fn rules(&self) -> TokenRules {
        TokenRules {
            issuer: self.name.clone(),
            audience: AUDIENCE.into(),
            algorithms: vec![SigningAlgorithm::Es256],
            token_type: "at+jwt".into(),
            lifetime_max_seconds: 3600,
        }
    }

    pub(super) fn check(&self) -> TokenCheck {
        TokenCheck::new(self.rules(), self.at("/jwks")).unwrap()
    }

    pub(super) fn trusted(&self) -> TrustedIssuer {
        trusted(self.check())
    }

    /// The claims of a sound token of this issuer at this time.
    pub(super) fn claims_at(&self, now: Instant) -> Value {
        let now = now.seconds();
        json!({
            "iss": self.name, "sub": "bob", "aud": AUDIENCE, "client_id": "cli", "scope": "tools",
            "iat": now, "exp": now + 600, "groups": ["analysts"],
        })
    }

    pub(super) fn claims(&self) -> Value {
        self.claims_at(NOW)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub(super) fn trusted(check: TokenCheck) -> TrustedIssuer {
    let people = check.for_audience(PEOPLE.into());
    TrustedIssuer { agents: check, people, groups: GroupsClaim { name: "groups".into(), optional: false } }
}

/// The value with a member changed; `null` takes it away.
pub(super) fn with(mut object: Value, name: &str, value: Value) -> Value {
    match value {
        Value::Null => object.as_object_mut().unwrap().remove(name),
        value => object.as_object_mut().unwrap().insert(name.into(), value),
    };
    object
}

async fn metadata(State(told): State<Arc<Told>>) -> Json<Value> {
    Json(told.metadata.lock().unwrap().clone())
}

async fn jwks(State(told): State<Arc<Told>>) -> Response {
    told.keys_asked.fetch_add(1, Ordering::SeqCst);
    match told.keys.lock().unwrap().clone() {
        Some(keys) => Json(keys).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn elsewhere(State(told): State<Arc<Told>>) -> Response {
    told.elsewhere_asked.fetch_add(1, Ordering::SeqCst);
    Json(told.keys.lock().unwrap().clone()).into_response()
}

async fn introspect(
    State(told): State<Arc<Told>>,
    headers: HeaderMap,
    Form(asked): Form<HashMap<String, String>>,
) -> Response {
    told.tokens_asked.fetch_add(1, Ordering::SeqCst);
    // `gateway:a secret`, each part in the form encoding (RFC 6749 §2.3.1).
    let expected = format!("Basic {}", STANDARD.encode("gateway:a+secret"));
    if headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) != Some(expected.as_str()) {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "error": "invalid_client" }))).into_response();
    }
    if let Some(failure) = told.introspection_fails.lock().unwrap().clone() {
        return failure.into_response();
    }
    let said = told.tokens.lock().unwrap().get(&asked["token"]).cloned();
    Json(said.unwrap_or_else(|| json!({ "active": false }))).into_response()
}
