//! Files of a call, through a gateway with a real journal and real tokens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use ringfence_actions::ActionSpace;
use ringfence_core::{Authorities, CallId, Digest, Instant, Secret};
use ringfence_identity::development::{Issuer, IssuerSettings, Logins, Minting, User, new_key};
use ringfence_identity::{GroupsClaim, Identity, KnownAgents};
use ringfence_policy::Policies;
use ringfence_store::{Filter, HeadKey, Journal, JournalSettings, Role, Runs, read, verify};
use ringfence_tools::{Artifact, Output, Systems};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{ArtifactRefused, Handed};
use crate::{CallLimits, Caller, Clock, Gateway, Parts, Reply, RunLimits};

const NOW: Instant = Instant(1_800_000_000_000);
const AUDIENCE: &str = "http://localhost/mcp";

/// A gateway without tools, its journal, and the issuer of its tokens.
struct House {
    folder: tempfile::TempDir,
    key: Secret,
    issuer: Issuer,
    gateway: Gateway,
}

impl House {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = ringfence_store::new_key().unwrap();
        let authorities = Authorities::establish();
        let user = || User::default();
        let settings = IssuerSettings {
            listen: ([127, 0, 0, 1], 9).into(),
            groups_claim: "groups".into(),
            users: [("bob".to_owned(), user()), ("eve".to_owned(), user())].into(),
            resources: Vec::new(),
            downstream: BTreeMap::new(),
            logins: Logins::default(),
        };
        let issuer = Issuer::new(&new_key().unwrap(), settings).unwrap();
        let check = || issuer.check(AUDIENCE).unwrap();
        let groups = GroupsClaim { name: "groups".into(), optional: true };
        let identity =
            Identity::new(check(), check(), groups, authorities.verifier).knowing(KnownAgents::Any);
        let mut problems = Vec::new();
        let space = Arc::new(ActionSpace::read(&[], &BTreeMap::new(), &mut problems));
        let policies = Policies::load(&[], &space, authorities.decider, &mut problems).unwrap();
        let settings = JournalSettings {
            role: Role::Server,
            folder: folder.path().to_owned(),
            head_file: folder.path().join("journal.head"),
            key: &key,
            program: "test".into(),
            configuration: Digest::ZERO,
        };
        let journal = Journal::open(settings, authorities.recorder, NOW).unwrap();
        let systems = Systems::open(BTreeMap::new(), space.clone(), &mut problems).await;
        let clock = Clock::of(|| NOW);
        let limits = CallLimits::default();
        let runs = Runs::open(folder.path(), &journal, NOW).unwrap();
        let (run_limits, applications) = (RunLimits::default(), Vec::new());
        let parts = Parts {
            space,
            policies,
            identity,
            journal,
            runs,
            run_limits,
            applications,
            systems,
            limits,
            clock,
        };
        let gateway = Gateway::new(parts);
        Self { folder, key, issuer, gateway }
    }

    async fn caller(&self, user: &str, agent: &str) -> Caller {
        let minting = Minting { user, agent, audience: AUDIENCE, scopes: &[], lifetime_seconds: 60 };
        let token = self.issuer.mint(minting, NOW).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {}", token.expose()).parse().unwrap());
        self.gateway.caller(&headers).await.unwrap()
    }

    /// What the agent gets of these files, as if a call of this caller had made them.
    fn hand_over(&self, caller: &Caller, artifacts: Vec<Artifact>) -> (Value, Vec<Handed>) {
        let output = Output { structured: json!({ "stdout": "" }), text: None, artifacts };
        let call = CallId(Uuid::now_v7());
        match self.gateway.inner.hand_over(&caller.run, call, output) {
            Reply::Done { structured, artifacts, .. } => (structured, artifacts),
            other => panic!("{other:?}"),
        }
    }

    async fn read(&self, caller: &Caller, uri: &str) -> Option<Vec<u8>> {
        match self.gateway.artifact(caller, uri).await {
            Ok(kept) => Some(kept.bytes.to_vec()),
            Err(ArtifactRefused::Unknown) => None,
            Err(ArtifactRefused::Failed(refusal)) => panic!("{refusal}"),
        }
    }

    fn entries(&self, kind: &str) -> Vec<Value> {
        let filter = Filter { kind: Some(kind.into()), ..Filter::default() };
        let shown = read(self.folder.path(), &filter).unwrap();
        shown.into_iter().map(|shown| serde_json::to_value(shown).unwrap()).collect()
    }
}

fn file(name: &str, mime_type: &str, bytes: &[u8]) -> Artifact {
    Artifact { name: name.into(), mime_type: mime_type.into(), bytes: bytes.to_vec() }
}

#[tokio::test]
async fn small_images_come_with_the_result_and_the_rest_is_linked_to() {
    let house = House::new().await;
    let bob = house.caller("bob", "agent").await;
    let png = b"\x89PNG\r\n\x1a\nsmall";
    let large = [png.as_slice(), &vec![0; 300 << 10]].concat();
    let files = vec![
        file("plot.png", "image/png", png),
        file("large.png", "image/png", &large),
        file("a b/ä.csv", "text/csv", b"a,b"),
        file("huge.bin", "application/zip", &vec![0; 9 << 20]),
    ];
    let (structured, handed) = house.hand_over(&bob, files);
    let [Handed::Image { mime_type: "image/png", bytes }, Handed::Link(one), Handed::Link(other)] =
        handed.as_slice()
    else {
        panic!("{handed:?}")
    };
    assert_eq!(bytes.as_ref(), png);
    assert!(other.uri.starts_with("ringfence://artifacts/") && other.uri.ends_with("/a%20b%5F%C3%A4%2Ecsv"));
    assert_eq!(
        structured["artifacts"],
        json!([
            { "name": "plot.png", "mime_type": "image/png", "bytes": 13, "inline": true },
            { "name": "large.png", "mime_type": "image/png", "bytes": large.len(), "uri": one.uri },
            { "name": "a b_ä.csv", "mime_type": "text/csv", "bytes": 3, "uri": other.uri },
            { "name": "huge.bin", "mime_type": "application/zip", "bytes": 9 << 20, "left_out": true },
        ])
    );
    assert_eq!(house.read(&bob, &one.uri).await, Some(large));
    assert_eq!(house.gateway.artifacts(&bob), [one.clone(), other.clone()]);
    let (nothing, _) = house.hand_over(&bob, Vec::new());
    assert_eq!(nothing, json!({ "stdout": "" }), "a call without files looks as it did");
}

#[tokio::test]
async fn only_the_run_that_made_a_file_reads_it_and_each_read_is_journalled() {
    let house = House::new().await;
    let bob = house.caller("bob", "agent").await;
    let (structured, _) = house.hand_over(&bob, vec![file("a.csv", "text/csv", b"a,b")]);
    let uri = structured["artifacts"][0]["uri"].as_str().unwrap();
    assert_eq!(house.read(&bob, uri).await, Some(b"a,b".to_vec()), "the control");
    // Another user, and another agent of the same user.
    for stranger in [house.caller("eve", "agent").await, house.caller("bob", "other").await] {
        assert_eq!(house.read(&stranger, uri).await, None);
        assert!(house.gateway.artifacts(&stranger).is_empty());
    }
    assert_eq!(house.read(&bob, "ringfence://artifacts/0/a").await, None);
    house.gateway.finish(Duration::ZERO).await;
    let read = house.entries("artifact_read");
    let [entry] = read.as_slice() else { panic!("{read:?}") };
    assert_eq!((&entry["bytes"], &entry["content"]["principal"]["subject"]), (&json!(3), &json!("bob")));
    assert_eq!(entry["content"]["arguments"], json!({ "name": "a.csv" }));
    assert!(!entry.to_string().contains(uri), "who reads the journal cannot read the file");
    let refused = house.entries("refused");
    assert!(refused.iter().all(|entry| entry["code"] == "unknown_artifact") && refused.len() == 3);
    let head = std::fs::read_to_string(house.folder.path().join("journal.head")).unwrap();
    let report = verify(house.folder.path(), &HeadKey::new(&house.key).unwrap(), Some(&head));
    assert!(report.is_sound(), "{report:?}");
}

#[tokio::test]
async fn a_read_that_cannot_be_recorded_gives_nothing() {
    let house = House::new().await;
    let bob = house.caller("bob", "agent").await;
    let (structured, _) = house.hand_over(&bob, vec![file("a.csv", "text/csv", b"a,b")]);
    let uri = structured["artifacts"][0]["uri"].as_str().unwrap();
    assert!(house.read(&bob, uri).await.is_some(), "the control");
    house.gateway.inner.journal.close(NOW).await;
    let refused = house.gateway.artifact(&bob, uri).await;
    assert!(matches!(refused, Err(ArtifactRefused::Failed(refusal)) if refusal.code == "not_recorded"));
}
