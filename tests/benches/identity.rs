//! The numbers of identity: what its steps add to a call, what ten thousand principals leave behind, and how soon a revocation
//! among them is in force.
//!
//! `cargo xtask bench identity` runs it on release builds. Traffic goes to loopback alone.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use ringfence_core::{Authorities, Digest, Instant, Run, RunId, Secret, SystemName};
use ringfence_identity::credential::{ClientSettings, Exchange, ExchangeSettings, Target, Wanted};
use ringfence_identity::development::{
    GATEWAY_CLIENT, Issuer as Development, IssuerSettings, Logins, Minting, User, new_key, router,
};
use ringfence_identity::{Door, Endpoint, GroupsClaim, Identity, KnownAgents};
use ringfence_mcp::client::Client;
use ringfence_mcp::{Revision, ToolCall};
use ringfence_store::{Journal, JournalSettings, Lifetime, Owner, Role, Runs};
use ringfence_tests::issuer::{Issuer, trusting};
use ringfence_tests::{Project, Serving, ringfence, until};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const NOW: Instant = Instant(1_800_000_000_000);
const AUDIENCE: &str = "https://agents.example.com/mcp";
const SYSTEM: &str = "https://tickets.example.com";
const USERS: usize = 1_000;
const CALLS: usize = 20_000;
const PRINCIPALS: usize = 10_000;
/// Connections that ask at the same time.
const CONNECTIONS: usize = 64;
const READ: &str = "get_user_monthly_metrics";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(steps());
    let house = House::new(runtime);
    println!("Memory of the gateway, a call of each of {PRINCIPALS} users, {CONNECTIONS} at a time:");
    println!("  before                       {:>6.1} MiB resident", house.resident());
    house.wave("first");
    house.revocation();
    for name in ["second", "third", "fourth"] {
        house.wave(name);
    }
}

fn quantiles(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let at = |part: usize| took[(took.len() - 1) * part / 100];
    format!("p50 {:>9.1?}  p99 {:>9.1?}", at(50), at(99))
}

/// The check of the token, the look for its run and its leave to call, and the credential of its system, all of them warm.
async fn steps() {
    let folder = tempfile::tempdir().unwrap();
    let name = |number: usize| format!("user-{number}");
    let user = User { groups: vec!["analysts".into()], ..User::default() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = listener.local_addr().unwrap();
    let settings = IssuerSettings {
        listen,
        groups_claim: "groups".into(),
        users: (0..USERS).map(|number| (name(number), user.clone())).collect(),
        resources: vec![AUDIENCE.into()],
        downstream: BTreeMap::from([(SYSTEM.to_owned(), ["edit".to_owned()].into())]),
        logins: Logins::default(),
    };
    let issuer = Arc::new(Development::new(&new_key().unwrap(), settings).unwrap());
    tokio::spawn(axum::serve(listener, router(issuer.clone(), || NOW)).into_future());
    let authorities = Authorities::establish();
    let (agents, people) = (issuer.check(AUDIENCE).unwrap(), issuer.check("people").unwrap());
    let groups = GroupsClaim { name: "groups".into(), optional: false };
    let identity = Identity::new(agents, people, groups, authorities.verifier).knowing(KnownAgents::Any);
    let journal = Journal::open(
        JournalSettings {
            folder: folder.path().into(),
            head_file: folder.path().join("journal.head"),
            key: &ringfence_store::new_key().unwrap(),
            program: "bench".into(),
            configuration: Digest::ZERO,
            role: Role::Server,
        },
        authorities.recorder,
        NOW,
    );
    let runs = Runs::open(folder.path(), &journal.unwrap(), NOW).unwrap();
    let exchange = Exchange::new(ExchangeSettings {
        client: ClientSettings {
            token_endpoint: Endpoint::new(&format!("http://{listen}/token")).unwrap(),
            client_id: GATEWAY_CLIENT.into(),
            client_secret: Some(issuer.gateway_secret()),
        },
        target: Target::Audience(SYSTEM.into()),
        scopes: vec!["edit".into()],
        act_required: true,
    });
    let (exchange, system) = (exchange.unwrap(), SystemName::new("tickets").unwrap());
    let mint = |number: usize| {
        let user = &name(number);
        let minting = Minting { user, agent: "cli", audience: AUDIENCE, scopes: &[], lifetime_seconds: 600 };
        issuer.mint(minting, NOW).unwrap()
    };
    let tokens: Vec<Secret> = (0..USERS).map(mint).collect();
    let lifetime = Lifetime { idle_ms: 3_600_000, total_ms: 3_600_000 };
    let [mut checked, mut looked_up, mut shown, mut all] = [const { Vec::new() }; 4];
    for (number, token) in tokens.iter().cycle().take(USERS + CALLS).enumerate() {
        let began = Clock::now();
        let identified = identity.identify(Door::Agents, token, NOW).await.unwrap();
        let after_check = Clock::now();
        let scopes = identified.scopes.iter().cloned().collect::<Vec<_>>().join(" ");
        let owner = Owner {
            issuer: identified.principal.issuer(),
            subject: identified.principal.subject(),
            agent: &identified.agent,
            claims: identified.principal.claims(),
            scopes: &scopes,
            login: None,
        };
        let fresh = RunId::new(uuid::Uuid::now_v7());
        let (stored, _) = runs.implicit(&owner, &fresh, lifetime, NOW).unwrap();
        runs.admit(&stored.id, NOW).unwrap();
        let after_run = Clock::now();
        let (principal, agent) = (identified.principal.clone(), identified.agent.clone());
        let run = Run::new(stored.id, principal, agent, identified.expires, Arc::default(), [].into());
        let wanted =
            Wanted { run: &run, subject_token: Some(token), system: &system, scopes: None, now: NOW };
        drop(exchange.token_for(wanted).await.unwrap());
        let ended = Clock::now();
        // The first round of each user fills what is kept.
        if number >= USERS {
            checked.push(after_check - began);
            looked_up.push(after_run - after_check);
            shown.push(ended - after_run);
            all.push(ended - began);
        }
    }
    println!("What identity adds to a call, warm, {USERS} users by turns, {CALLS} calls:");
    println!("  the token, to a principal            {}", quantiles(checked));
    println!("  its run: found, and let call         {}", quantiles(looked_up));
    println!("  the exchanged credential, kept       {}", quantiles(shown));
    println!("  all of them (promised: p50 < 100 µs) {}\n", quantiles(all));
}

struct House {
    issuer: Issuer,
    project: Project,
    serving: Serving,
    runtime: Runtime,
}

impl House {
    fn new(runtime: Runtime) -> Self {
        let issuer = Issuer::new();
        let project = trusting(&[&issuer], "");
        let serving = project.serve(&[]);
        Self { issuer, project, serving, runtime }
    }

    fn client(&self, user: &str) -> Client {
        let claims = json!({ "sub": user, "groups": ["analysts", "coders"], "exp": ends() });
        self.serving.client(&self.issuer.token(&self.serving.mcp, &claims), Revision::V2026)
    }

    /// The memory of the gateway itself, in MiB.
    fn resident(&self) -> f64 {
        let path = format!("/proc/{}/status", self.serving.process().as_raw_nonzero());
        let status = std::fs::read_to_string(path).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        resident.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap() / 1024.0
    }

    /// One call of each of so many new users, and what the gateway holds then.
    fn wave(&self, name: &str) {
        let tokens: Vec<String> = (0..PRINCIPALS)
            .map(|number| {
                let claims =
                    json!({ "sub": format!("{name}-{number}"), "groups": ["analysts"], "exp": ends() });
                self.issuer.token(&self.serving.mcp, &claims)
            })
            .collect();
        let began = Clock::now();
        let tokens = Arc::new(std::sync::Mutex::new(tokens));
        let mcp = self.serving.mcp.clone();
        let asking = (0..CONNECTIONS).map(|_| {
            let (tokens, mcp) = (tokens.clone(), mcp.clone());
            // One connection carries the tokens of many.
            self.runtime.spawn(async move {
                let plain = Client::new(mcp, None, Revision::V2026).unwrap();
                loop {
                    let Some(token) = tokens.lock().unwrap().pop() else { return };
                    let mut headers = plain.headers("tools/call", Some(READ));
                    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
                    let answer = plain.send(headers, call_body()).await.unwrap();
                    assert_eq!(answer.status, 200, "{}", answer.body);
                }
            })
        });
        let asking: Vec<_> = asking.collect();
        for asking in asking {
            self.runtime.block_on(asking).unwrap();
        }
        let resident = self.resident();
        println!("  after {PRINCIPALS} {name} ({:.0?})    {resident:>6.1} MiB resident", began.elapsed());
    }

    /// One of the runs is revoked while others call and it runs a program.
    fn revocation(&self) {
        let victim = self.client("victim");
        let others: Vec<_> = (0..8).map(|number| self.client(&format!("other-{number}"))).collect();
        let going = others.into_iter().map(|client| {
            self.runtime.spawn(async move {
                loop {
                    assert_eq!(read(&client).await, 200);
                }
            })
        });
        let going: Vec<_> = going.collect();
        let program = victim.clone();
        let program = self.runtime.spawn(async move {
            let code = json!({ "code": "import time; time.sleep(9)" });
            let arguments = code.as_object().unwrap().clone();
            let answer = program.call(ToolCall { name: "run_python".into(), arguments }).await.unwrap();
            (answer.result().unwrap()["structuredContent"]["ended"].clone(), Clock::now())
        });
        let path = self.project.path();
        let mut run = Value::Null;
        until("the run of the victim", || {
            let listed = ringfence(&["runs", "list", path, "--user", "victim", "--live", "--json"]).stdout;
            let line = listed.lines().next().and_then(|line| serde_json::from_str::<Value>(line).ok());
            run = line.map(|line| line["id"].clone()).unwrap_or_default();
            run.is_string()
        });
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(self.runtime.block_on(read(&victim)), 200, "the control");
        let refused = self.runtime.spawn(async move {
            while read(&victim).await == 200 {}
            Clock::now()
        });
        let began = Clock::now();
        let revoke = ["runs", "revoke", "--run", run.as_str().unwrap(), "--reason", "a bench", "--project"];
        let revoked = ringfence(&[&revoke[..], &[path, "--json"]].concat());
        let command = began.elapsed();
        assert_eq!(revoked.json()["revoked"], json!([run]));
        let refused = self.runtime.block_on(refused).unwrap() - began;
        let (ended, dead) = self.runtime.block_on(program).unwrap();
        assert_eq!(ended, json!({ "how": "cancelled" }));
        let still = going.iter().filter(|going| !going.is_finished()).count();
        assert_eq!(still, 8, "the others go on");
        going.iter().for_each(tokio::task::JoinHandle::abort);
        println!(
            "  one of {PRINCIPALS} runs is revoked by the command line while 8 others call without pause (promised: under 1 s):"
        );
        println!("    the command itself           {command:>9.1?}");
        println!("    its calls are refused after  {refused:>9.1?}");
        println!("    its program has ended after  {:>9.1?}", dead - began);
    }
}

/// When a token ends that outlives the bench.
fn ends() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_secs() + 3_000
}

fn call_body() -> String {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let arguments = json!({ "user_id": "u-1", "month": "2026-10" });
    let params = json!({ "name": READ, "arguments": arguments, "_meta": meta });
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string()
}

async fn read(client: &Client) -> u16 {
    let arguments = json!({ "user_id": "u-1", "month": "2026-10" }).as_object().unwrap().clone();
    client.call(ToolCall { name: READ.into(), arguments }).await.unwrap().status
}
