//! The numbers of PROMISES.md, measured side by side in one run: what the whole pipeline costs against a bare handler, how
//! long a decision takes among many tools and policies, and what an idle gateway needs.
//!
//! `cargo xtask bench` runs it on release builds. Traffic goes to loopback alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use ringfence_actions::{ActionSpace, File, SystemKind};
use ringfence_core::{AgentId, Authorities, Call, CallId, GroupName, Principal, Run, RunId, SystemName};
use ringfence_mcp::client::Client;
use ringfence_mcp::{Revision, ToolCall};
use ringfence_policy::{Policies, PolicyFile};
use ringfence_tests::{Project, ringfence};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

/// Connections that ask at the same time.
const CONNECTIONS: usize = 8;
/// Rounds of each side, by turns.
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
const SQL: &str = "SELECT metric_name, value FROM user_metrics \
     WHERE user_id = ?1 AND reporting_month = ?2 AND tenant = ?3 ORDER BY metric_name";

fn main() {
    if let Some(database) = std::env::var_os("BARE_DATABASE") {
        return serve_bare(PathBuf::from(database));
    }
    pipeline();
    neighbours();
    decision();
    start();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// The same statement behind a bare axum handler: no token, no policy, no journal.
fn serve_bare(database: PathBuf) {
    runtime().block_on(async {
        let router = Router::new().route("/mcp", post(bare)).with_state(Arc::new(database));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        axum::serve(listener, router).await.unwrap();
    });
}

async fn bare(State(database): State<Arc<PathBuf>>, Json(request): Json<Value>) -> Json<Value> {
    thread_local! {
        static CONNECTION: std::cell::RefCell<Option<Connection>> = const { std::cell::RefCell::new(None) };
    }
    let rows = tokio::task::spawn_blocking(move || {
        CONNECTION.with_borrow_mut(|connection| {
            let connection = connection.get_or_insert_with(|| {
                Connection::open_with_flags(database.as_ref(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
            });
            let text = |name: &str| {
                request
                    .pointer(&format!("/params/arguments/{name}"))
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            let mut statement = connection.prepare_cached(SQL).unwrap();
            let rows = statement.query_map([text("user_id"), text("month"), "acme"], |row| {
                Ok(json!({ "metric_name": row.get::<_, String>(0)?, "value": row.get::<_, f64>(1)? }))
            });
            rows.unwrap().collect::<rusqlite::Result<Vec<Value>>>().unwrap()
        })
    });
    let rows = rows.await.unwrap();
    Json(
        json!({ "jsonrpc": "2.0", "id": 1, "result": { "structuredContent": { "rows": rows, "truncated": false } } }),
    )
}

struct Bare(Child);

impl Drop for Bare {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn pipeline() {
    let project = Project::new();
    let serving = project.serve(&[]);
    let ours = serving.client(&project.token("bob", &[]), Revision::V2026);
    let mut bare = Command::new(std::env::current_exe().unwrap());
    bare.env("BARE_DATABASE", project.file("metrics.db")).stdout(Stdio::piped());
    let mut bare = Bare(bare.spawn().unwrap());
    let mut address = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(bare.0.stdout.take().unwrap()), &mut address)
        .unwrap();
    let theirs = Client::new(format!("http://{}/mcp", address.trim()), None, Revision::V2026).unwrap();
    let runtime = runtime();
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        with.extend(runtime.block_on(round(&ours)));
        without.extend(runtime.block_on(round(&theirs)));
    }
    println!(
        "A SQLite read over HTTP, {CONNECTIONS} connections, {ROUNDS} rounds of {} s a side, by turns:",
        ROUND.as_secs()
    );
    let (with, without) = (Summary::of(with, ROUNDS), Summary::of(without, ROUNDS));
    println!("  whole pipeline (token, policy, journal)  {with}");
    println!("  the same statement, bare axum            {without}");
    println!(
        "  ratio                                    throughput {:.2}, p50 {:.2}, p99 {:.2}\n",
        with.per_second / without.per_second,
        with.p50_us / without.p50_us,
        with.p99_us / without.p99_us
    );
}

/// What a call of Bob's takes while Alice's programs do their worst, each in its sandbox.
fn neighbours() {
    const BOMBS: [(&str, &str); 3] = [
        ("a fork bomb", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"),
        ("a memory bomb", "held = []\nwhile True: held.append(bytearray(1 << 20))"),
        (
            "a full disk",
            "with open('/work/x', 'wb') as file:\n    while True:\n        try: file.write(bytes(1 << 20))\n        except OSError: file.seek(0)",
        ),
    ];
    let project = Project::new();
    let serving = project.serve(&[]);
    let bob = serving.client(&project.token("bob", &[]), Revision::V2026);
    let alice = serving.client(&project.token("alice", &[]), Revision::V2026);
    let runtime = runtime();
    println!(
        "A SQLite read of Bob's, {CONNECTIONS} connections, while a program of Alice's does its worst in a sandbox:"
    );
    let alone = Summary::of(runtime.block_on(round(&bob)), 1);
    println!("  nothing runs                             {alone}");
    for (what, code) in BOMBS {
        let alice = alice.clone();
        let bombs = runtime.spawn(async move {
            loop {
                let arguments = json!({ "code": code }).as_object().unwrap().clone();
                let _ended_somehow = alice.call(ToolCall { name: "run_python".into(), arguments }).await;
            }
        });
        std::thread::sleep(Duration::from_millis(300));
        let beside = Summary::of(runtime.block_on(round(&bob)), 1);
        bombs.abort();
        println!("  {what:<41}{beside}, p99 × {:.2} (promised: at most 2)", beside.p99_us / alone.p99_us);
        std::thread::sleep(Duration::from_millis(500));
    }
    println!();
}

/// How long each call of one round took, in microseconds.
async fn round(client: &Client) -> Vec<f64> {
    let until = Instant::now() + ROUND;
    let asking = (0..CONNECTIONS).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut took = Vec::new();
            while Instant::now() < until {
                let arguments = json!({ "user_id": "u-1", "month": "2026-10" });
                let arguments = arguments.as_object().unwrap().clone();
                let began = Instant::now();
                let answer = client
                    .call(ToolCall { name: "get_user_monthly_metrics".into(), arguments })
                    .await
                    .unwrap();
                took.push(began.elapsed().as_secs_f64() * 1e6);
                let rows = answer.body.pointer("/result/structuredContent/rows").and_then(Value::as_array);
                assert_eq!(rows.map(Vec::len), Some(2), "{}", answer.body);
            }
            took
        })
    });
    let mut all = Vec::new();
    for asking in asking.collect::<Vec<_>>() {
        all.extend(asking.await.unwrap());
    }
    all
}

struct Summary {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

impl Summary {
    fn of(mut took: Vec<f64>, rounds: usize) -> Self {
        took.sort_by(f64::total_cmp);
        let per_second = took.len() as f64 / (ROUND.as_secs_f64() * rounds as f64);
        Self { per_second, p50_us: quantile(&took, 50), p99_us: quantile(&took, 99) }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>6.0} calls/s, p50 {:>5.0} µs, p99 {:>5.0} µs",
            self.per_second, self.p50_us, self.p99_us
        )
    }
}

fn quantile(sorted: &[f64], percent: usize) -> f64 {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

const MANY: usize = 1000;
const DECISIONS: usize = 20_000;

/// A thousand tools, each with a policy of its own, and a forbid on some effect.
fn decision() {
    let (mut tools, mut policies) = (String::new(), String::new());
    for number in 0..MANY {
        writeln!(
            tools,
            "[tool_{number}]\nsystem = \"db\"\neffect = \"read\"\ndescribe = \"Reads.\"\nsql = \"SELECT :id\"\nparams.id = {{ type = \"string\" }}\n"
        )
        .unwrap();
        writeln!(
            policies,
            "permit (principal in Group::\"g{number}\", action == Action::\"tool_{number}\", resource) when {{ context.arguments.id != \"x\" }};"
        )
        .unwrap();
    }
    let systems = BTreeMap::from([(SystemName::new("db".to_owned()).unwrap(), SystemKind::Sqlite)]);
    let mut problems = Vec::new();
    let space = ActionSpace::read(&[File { name: "tools/t.toml", text: &tools }], &systems, &mut problems);
    let authorities = Authorities::establish();
    let files = [PolicyFile { name: "p.cedar", text: &policies }];
    let began = Instant::now();
    let loaded = Policies::load(&files, &space, authorities.decider, &mut problems).expect("policies");
    assert!(problems.is_empty(), "{problems:?}");
    let load = began.elapsed();
    let all = (0..MANY).map(|number| GroupName::new(format!("g{number}")).unwrap());
    let groups: BTreeSet<GroupName> = all.step_by(50).collect();
    let claims = serde_json::Map::new();
    let principal = Principal::verified(&authorities.verifier, "i".into(), "bob".into(), groups, claims);
    let (id, agent) = (RunId::new(uuid::Uuid::nil()), AgentId::new("a".to_owned()).unwrap());
    let expires = ringfence_core::Instant(u64::MAX);
    let run = Run::new(id, principal, agent, expires, std::sync::Arc::default(), BTreeSet::new());
    let at = ringfence_core::Instant(1_800_000_000_000);
    let given = json!({ "id": "u-1" }).as_object().unwrap().clone();
    let (mut times, mut visible, mut allowed) =
        (Vec::with_capacity(DECISIONS), Vec::with_capacity(DECISIONS), 0);
    for number in 0..DECISIONS {
        let tool = space.tool(&format!("tool_{}", number * 7919 % MANY)).unwrap();
        let arguments = tool.check(&given, run.principal()).ok().unwrap();
        let (name, system) = (tool.name().clone(), tool.system().clone());
        let call = Call::new(CallId(uuid::Uuid::now_v7()), at, run.clone(), name, system, arguments);
        let began = Instant::now();
        std::hint::black_box(loaded.visible(tool, &run, at));
        visible.push(began.elapsed().as_secs_f64() * 1e6);
        let began = Instant::now();
        let decided = loaded.decide(tool, call, &BTreeSet::new());
        times.push(began.elapsed().as_secs_f64() * 1e6);
        allowed += usize::from(matches!(decided, ringfence_core::Decision::Allow(_)));
    }
    times.sort_by(f64::total_cmp);
    visible.sort_by(f64::total_cmp);
    println!("A decision among {MANY} tools and {MANY} policies, {DECISIONS} times ({allowed} allowed):");
    println!(
        "  p50 {:.0} µs, p99 {:.0} µs (promised: p99 under 200 µs); loading took {:.0} ms\n",
        quantile(&times, 50),
        quantile(&times, 99),
        load.as_secs_f64() * 1e3
    );
    let began = Instant::now();
    let names: Vec<_> = space
        .tools()
        .filter(|tool| loaded.visible(tool, &run, at))
        .map(ringfence_actions::Tool::name)
        .collect();
    let view = began.elapsed();
    let all: Vec<_> = space.tools().map(ringfence_actions::Tool::name).collect();
    let began = Instant::now();
    std::hint::black_box(ringfence_actions::unknown_tool("execute_sql", &all));
    println!("Whether the tool of a call is visible, the step before its decision:");
    println!("  p50 {:.0} µs, p99 {:.0} µs", quantile(&visible, 50), quantile(&visible, 99));
    println!(
        "  of all {MANY} tools, once a minute for each caller ({} visible): {:.1} ms; a refusal that names the nearest of {MANY}: {:.1} ms\n",
        names.len(),
        view.as_secs_f64() * 1e3,
        began.elapsed().as_secs_f64() * 1e3
    );
}

/// From the start of the process to its first answer, and what it holds in memory when it idles.
fn start() {
    let project = Project::new();
    assert_eq!(ringfence(&["check", project.path()]).code, 0);
    let token = project.token("bob", &[]);
    let runtime = runtime();
    let (mut took, mut memory_mib) = (Vec::new(), 0.0);
    for _ in 0..10 {
        let began = Instant::now();
        let serving = project.serve(&[]);
        let client = serving.client(&token, Revision::V2026);
        assert_eq!(runtime.block_on(client.tools()).unwrap().len(), 2);
        took.push(began.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(200));
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", serving.process().as_raw_nonzero())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        memory_mib = resident.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap() / 1024.0;
        let _stopped = serving.stop(rustix::process::Signal::TERM);
    }
    took.sort_by(f64::total_cmp);
    println!("A gateway with the project of `ringfence init`:");
    println!(
        "  start to first answer: median {:.0} ms, worst of ten {:.0} ms (promised: under 200 ms)",
        quantile(&took, 50),
        quantile(&took, 99)
    );
    println!("  memory when idle: {memory_mib:.1} MiB resident (promised: under 40 MiB)");
}
