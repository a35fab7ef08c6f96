//! What is around a sandbox with a way out: servers, names, a record of decisions, and a proxy that judges nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ringfence_sandbox::egress::{
    Decision, Declared, DeclaredCredential, DeclaredRule, Entry, Host, Resolver, Rules, Secret, Trust,
    Unrecorded, Watch,
};
use ringfence_sandbox::{Profile, Stream, WayOut};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::naive::{self, Injected};
use super::upstream::{Answers, Certificates, Upstream};
use crate::canary::random;
use crate::run::{Stage, Target};

/// The host that rules allow.
pub(super) const ALLOWED: &str = "api.allowed.test";

/// Names as the world outside knows them; each question is remembered, whoever asks it.
pub(super) struct Names {
    /// One set of addresses for each question, by turns.
    known: BTreeMap<&'static str, Vec<Vec<SocketAddr>>>,
    all_others: SocketAddr,
    asked: Mutex<Vec<String>>,
    pub(super) in_network_of_traps: bool,
}

impl Names {
    fn next(&self, host: &str) -> Vec<SocketAddr> {
        let mut asked = self.asked.lock().unwrap();
        let turn = asked.iter().filter(|name| name.as_str() == host).count();
        asked.push(host.to_owned());
        match self.known.get(host) {
            Some(answers) => answers[turn % answers.len()].clone(),
            None => vec![self.all_others],
        }
    }

    /// For whoever takes the first address that it gets.
    pub(super) fn first(&self, host: &str) -> SocketAddr {
        self.next(host)[0]
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait::async_trait]
impl Resolver for Names {
    async fn resolve(&self, host: &Host, _: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(self.next(&host.to_string()))
    }
}

/// Every decision, up to as many as it can take.
pub(super) struct Record {
    decisions: Mutex<Vec<Decision>>,
    pub(super) most: AtomicUsize,
}

impl Default for Record {
    fn default() -> Self {
        Self { decisions: Mutex::default(), most: AtomicUsize::new(usize::MAX) }
    }
}

impl Record {
    pub(super) fn decisions(&self) -> Vec<Decision> {
        self.decisions.lock().unwrap().clone()
    }
}

#[async_trait::async_trait]
impl Watch for Record {
    async fn decided(&self, decision: &Decision) -> Result<(), Unrecorded> {
        let mut decisions = self.decisions.lock().unwrap();
        if decisions.len() >= self.most.load(Ordering::Relaxed) {
            return Err(Unrecorded);
        }
        decisions.push(decision.clone());
        Ok(())
    }
}

impl ringfence_sandbox::Watch for Record {
    fn wrote(&self, _: Stream, _: &[u8]) {}
}

/// The world outside of one row of the list.
pub(super) struct World {
    pub(super) allowed: Upstream,
    /// Whatever is no allowed host; nothing may come here.
    pub(super) evil: Upstream,
    pub(super) names: Arc<Names>,
    pub(super) record: Arc<Record>,
    pub(super) secret: String,
    pub(super) placeholder: String,
    naive: SocketAddr,
    authority: String,
    _serving: JoinSet<()>,
}

impl World {
    pub(super) async fn new(stage: &Stage) -> Self {
        let certificates = Certificates::make();
        let prefix = stage.places.prefix.clone();
        let answers = |is_evil| Answers { prefix: prefix.clone(), is_evil };
        let allowed = Upstream::start(&certificates, answers(false)).await;
        let evil = Upstream::start(&certificates, answers(true)).await;
        let names = Arc::new(names(allowed.address, evil.address, stage.places.network));
        let secret = format!("{prefix}-host-credential-{}", random());
        let placeholder = format!("placeholder-{}", random());
        let injected = Injected { placeholder: placeholder.clone(), secret: secret.clone() };
        let (naive, serving) = naive::serve(names.clone(), injected).await;
        let record = Arc::default();
        let authority = certificates.pem;
        Self { allowed, evil, names, record, secret, placeholder, naive, authority, _serving: serving }
    }

    /// The target's profile with a way out by these rules. Each is a sandbox of its own: none waits.
    pub(super) fn profile(&self, target: &Target, declared: &Declared) -> Profile {
        let secrets = BTreeMap::from([("api".to_owned(), Secret::new(self.secret.clone().into()).unwrap())]);
        let rules = Arc::new(Rules::check(declared, &secrets).unwrap());
        let trust = Trust::of_pem(&self.authority).unwrap();
        let mut profile = target.profile.clone();
        profile.ready = 0;
        profile.egress = Some(WayOut { rules, resolver: self.names.clone(), trust });
        profile.isolation = target.isolation.clone();
        profile
    }

    /// What programs inside are told.
    pub(super) fn given(&self, declared: &Declared) -> Value {
        let is_inspected = |entry: &Entry| matches!(entry, Entry::Rule(rule) if rule.inspect);
        json!({
            "proxy": ["127.0.0.1", 3128],
            "authority": self.authority,
            "inspected": declared.allow.iter().any(is_inspected),
            "placeholder": self.placeholder,
            "upstream": self.allowed.address.port(),
        })
    }

    /// What they are told outside, before the proxy that judges nothing.
    pub(super) fn given_outside(&self) -> Value {
        let mut given = self.given(&Declared::default());
        given["proxy"] = json!(["127.0.0.1", self.naive.port()]);
        given["control"] = true.into();
        given["outside"] = true.into();
        given
    }

    /// The allowed host, inspected, with a credential for `GET /v1`; without one `POST /open`, and another host.
    pub(super) fn bound(&self) -> Declared {
        let credential = DeclaredCredential {
            secret: "api".to_owned(),
            header: "Authorization".to_owned(),
            format: "Bearer {}".to_owned(),
            placeholder: self.placeholder.clone(),
        };
        let mut declared = allow(&[]);
        let mut v1 = inspected(ALLOWED, "GET", "/v1");
        v1.credential = Some(credential);
        declared.allow = vec![
            Entry::Rule(v1),
            Entry::Rule(inspected(ALLOWED, "POST", "/open")),
            Entry::Text("http://api.allowed.test".to_owned()),
            Entry::Text("http://tunnel.allowed.test".to_owned()),
        ];
        declared
    }
}

/// Rules without conditions. The servers are on loopback, which has to be said.
pub(super) fn allow(entries: &[&str]) -> Declared {
    let allow = entries.iter().map(|text| Entry::Text((*text).to_owned())).collect();
    Declared { allow, private: vec!["127.0.0.1".to_owned()], ..Declared::default() }
}

pub(super) fn inspected(to: &str, method: &str, path: &str) -> DeclaredRule {
    DeclaredRule {
        to: to.to_owned(),
        inspect: true,
        methods: vec![method.to_owned()],
        paths: vec![path.to_owned()],
        ..DeclaredRule::default()
    }
}

/// Names that are honest, and names whose owner turned against us: they lead inside, at once or at the second question.
fn names(allowed: SocketAddr, evil: SocketAddr, in_network_of_traps: bool) -> Names {
    let all = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
    let inside = ["10.0.0.1:80", "169.254.169.254:80", "[fd00:ec2::254]:80", "[::ffff:10.0.0.1]:80"];
    let known = BTreeMap::from([
        (ALLOWED, vec![vec![allowed]]),
        ("tunnel.allowed.test", vec![vec![allowed]]),
        ("storage.allowed.test", vec![vec![allowed]]),
        ("inside.allowed.test", vec![all(&inside)]),
        ("metadata.allowed.test", vec![all(&["169.254.169.254:80"])]),
        ("mixed.allowed.test", vec![[all(&inside), vec![allowed]].concat()]),
        ("rebound.allowed.test", vec![vec![allowed], all(&["10.0.0.1:80"])]),
    ]);
    Names { known, all_others: evil, asked: Mutex::default(), in_network_of_traps }
}
