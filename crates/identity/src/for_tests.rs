//! For tests: an authorization server and a store of grants, in this process.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_core::{AgentId, Authorities, Claims, Instant, Principal, Run, Secret, SystemName};
use serde_json::{Value, json};

use crate::Endpoint;
use crate::credential::{ClientSettings, GrantStore, GrantsUnavailable, Owner, StoredGrant, Wanted};

pub(crate) const NOW: Instant = Instant(1_800_000_000_000);

/// What a token endpoint was sent.
pub(crate) type Fields = HashMap<String, String>;
type Answer = Arc<dyn Fn(&Fields) -> (u16, Value) + Send + Sync>;

/// A token endpoint that answers as it is told, and remembers what it was asked.
#[derive(Clone)]
pub(crate) struct FakeIssuer {
    pub(crate) url: String,
    shared: Shared,
}

#[derive(Clone)]
struct Shared {
    asked: Arc<Mutex<Vec<Fields>>>,
    answer: Answer,
}

impl FakeIssuer {
    pub(crate) async fn start(answer: impl Fn(&Fields) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let shared = Shared { asked: Arc::default(), answer: Arc::new(answer) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/token", post(token)).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared }
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Fields> {
        self.shared.asked.lock().unwrap().clone()
    }

    pub(crate) fn client(&self) -> ClientSettings {
        ClientSettings {
            token_endpoint: Endpoint::new(&format!("{}/token", self.url)).unwrap(),
            client_id: "gate:way".into(),
            client_secret: Some(Secret::new("se+cret".into())),
        }
    }
}

async fn token(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Form(mut fields): Form<Fields>,
) -> (StatusCode, Json<Value>) {
    if let Some(header) = headers.get("authorization") {
        fields.insert("(authorization)".into(), header.to_str().unwrap().to_owned());
    }
    let (status, answer) = (shared.answer)(&fields);
    shared.asked.lock().unwrap().push(fields);
    // Whoever wants the same meanwhile has time to come.
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    (StatusCode::from_u16(status).unwrap(), Json(answer))
}

/// A JWT that nobody signed.
pub(crate) fn jwt(claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2lnbmF0dXJl", encode(&json!({ "alg": "ES256" })), encode(claims))
}

pub(crate) fn run(subject: &str) -> Run {
    let verifier = Authorities::establish().verifier;
    let principal = Principal::verified(
        &verifier,
        "https://login.example".into(),
        subject.into(),
        BTreeSet::new(),
        Claims::new(),
    );
    let id = serde_json::from_value(format!("run-{subject}").into()).unwrap();
    let agent = AgentId::new("agent-7").unwrap();
    Run::new(id, principal, agent, Instant(u64::MAX), std::sync::Arc::default(), BTreeSet::new())
}

pub(crate) fn system(name: &str) -> SystemName {
    SystemName::new(name.to_owned()).unwrap()
}

/// What one user wants of one system.
pub(crate) struct Wish {
    pub(crate) run: Run,
    pub(crate) token: Secret,
    pub(crate) system: SystemName,
    pub(crate) scopes: Option<Vec<String>>,
}

impl Wish {
    pub(crate) fn of(subject: &str) -> Self {
        let token = Secret::new(format!("token-of-{subject}"));
        Self { run: run(subject), token, system: system("tickets"), scopes: None }
    }

    pub(crate) fn with_scopes(self, scopes: &[&str]) -> Self {
        Self { scopes: Some(scopes.iter().map(|scope| (*scope).to_owned()).collect()), ..self }
    }

    pub(crate) fn at(&self, now: Instant) -> Wanted<'_> {
        let Self { run, token, system, scopes } = self;
        Wanted { run, subject_token: Some(token), system, scopes: scopes.as_deref(), now }
    }
}

/// Grants in memory; where it is full nothing can be written.
#[derive(Default)]
pub(crate) struct FakeGrants {
    pub(crate) kept: Mutex<BTreeMap<Owner, StoredGrant>>,
    pub(crate) is_full: std::sync::atomic::AtomicBool,
}

impl FakeGrants {
    fn check(&self) -> Result<(), GrantsUnavailable> {
        if self.is_full.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(GrantsUnavailable("the disk is full".into()));
        }
        Ok(())
    }
}

impl GrantStore for FakeGrants {
    fn read(&self, owner: &Owner) -> Result<Option<StoredGrant>, GrantsUnavailable> {
        Ok(self.kept.lock().unwrap().get(owner).cloned())
    }

    fn put(&self, owner: &Owner, grant: &StoredGrant, _now: Instant) -> Result<(), GrantsUnavailable> {
        self.check()?;
        self.kept.lock().unwrap().insert(owner.clone(), grant.clone());
        Ok(())
    }

    fn replace(&self, owner: &Owner, was: &StoredGrant, sealed: &[u8]) -> Result<bool, GrantsUnavailable> {
        self.check()?;
        let mut kept = self.kept.lock().unwrap();
        let Some(grant) = kept.get_mut(owner).filter(|grant| *grant == was) else { return Ok(false) };
        grant.sealed = sealed.to_vec();
        Ok(true)
    }

    fn remove(&self, owner: &Owner, was: &StoredGrant) -> Result<(), GrantsUnavailable> {
        self.check()?;
        let mut kept = self.kept.lock().unwrap();
        if kept.get(owner) == Some(was) {
            kept.remove(owner);
        }
        Ok(())
    }
}
