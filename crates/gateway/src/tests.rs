//! A gateway without tools: what it does before any of them would matter.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use ringfence_actions::ActionSpace;
use ringfence_core::{AgentId, Authorities, Claims, Digest, Instant, Principal, RunId, Secret};
use ringfence_identity::{
    Endpoint, GroupsClaim, Identified, Identity, KeySource, SigningAlgorithm, TokenCheck, TokenRules,
};
use ringfence_policy::Policies;
use ringfence_store::{Journal, JournalSettings, Role, Runs, new_key};
use ringfence_tools::Systems;

use crate::{CallLimits, Caller, Clock, Gateway, Parts, RunLimits};

fn check() -> TokenCheck {
    let rules = TokenRules {
        issuer: "i".into(),
        audience: "a".into(),
        algorithms: vec![SigningAlgorithm::Es256],
        token_type: "at+jwt".into(),
        lifetime_max_seconds: 60,
    };
    TokenCheck::new(rules, KeySource::Url(Endpoint::new("https://127.0.0.1:1/jwks").unwrap())).ok().unwrap()
}

async fn gateway(folder: &Path, limits: CallLimits) -> (Gateway, Caller) {
    let authorities = Authorities::establish();
    let space = Arc::new(ActionSpace::default());
    let mut problems = Vec::new();
    let policies = Policies::load(&[], &space, authorities.decider, &mut problems).unwrap();
    let principal =
        Principal::verified(&authorities.verifier, "i".into(), "bob".into(), BTreeSet::new(), Claims::new());
    let groups = GroupsClaim { name: "groups".into(), optional: true };
    let journal = JournalSettings {
        folder: folder.to_owned(),
        head_file: folder.join("journal.head"),
        key: &new_key().unwrap(),
        program: "test".into(),
        configuration: Digest::ZERO,
        role: Role::Server,
    };
    let journal = Journal::open(journal, authorities.recorder, Instant(0)).ok().unwrap();
    let gateway = Gateway::new(Parts {
        runs: Runs::open(folder, &journal, Instant(0)).unwrap(),
        run_limits: RunLimits::default(),
        applications: Vec::new(),
        policies,
        identity: Identity::new(check(), check(), groups, authorities.verifier),
        journal,
        systems: Systems::open(BTreeMap::new(), space.clone(), &mut problems).await,
        space,
        limits,
        clock: Clock::of(|| Instant(1)),
    });
    let (scopes, expires) = (BTreeSet::new(), Instant(1000));
    let identified = Identified { principal, agent: AgentId::new("a").unwrap(), scopes, expires };
    let (run, subject_token) = (RunId::new(uuid::Uuid::nil()), Some(Secret::new("t".into())));
    (gateway, Caller { identified: Arc::new(identified), subject_token, run, terms: Arc::default() })
}

#[tokio::test]
async fn a_list_takes_a_place_among_the_calls_under_way() {
    let (full, roomy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (gateway, caller) = self::gateway(full.path(), CallLimits { total: 8, per_run: 0 }).await;
    assert_eq!(gateway.tools(&caller).await.err().map(|refusal| refusal.code), Some("too_many_calls"));
    let (gateway, caller) = self::gateway(roomy.path(), CallLimits { total: 8, per_run: 1 }).await;
    for _ in 0..3 {
        assert_eq!(gateway.tools(&caller).await.ok().map(|tools| tools.len()), Some(0), "the control");
    }
}

#[tokio::test]
async fn a_run_whose_labels_cannot_be_read_sees_and_calls_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, caller) = self::gateway(folder.path(), CallLimits::default()).await;
    assert!(gateway.tools(&caller).await.is_ok(), "the control");
    gateway.inner.journal.close(Instant(1)).await;
    assert_eq!(gateway.tools(&caller).await.err().map(|refusal| refusal.code), Some("labels_unknown"));
}
