//! What the rogue engine tries. Each attempt is judged by its effects where it could have any, never by what the engine was told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant as Moment};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_core::{Instant, Secret};
use ringfence_mcp::client::{Answer, Client};
use ringfence_mcp::{Revision, ToolCall};
use ringfence_store::{Filter, FindingKind, read};
use serde_json::{Value, json};

use super::evidence::{files, keys_file, sandboxed_processes, verify_copy};
use super::report::{Attempt, Report};
use super::stage::{Stage, silent_listener};
use crate::failure::Failure;
use crate::wiring::now;

/// Reads that the overhead is the median of.
const READS: usize = 100;

/// Processes that a sandbox of the demo may have; another one may run on the machine at the same time.
const PROCESSES: usize = 32;

const READ: &str = "get_user_monthly_metrics";

struct Play {
    stage: Stage,
    report: Report,
    bob: Client,
    bobs_token: Secret,
    alice: Client,
}

/// Plays the whole script.
pub(super) async fn play(stage: Stage, report: Report) -> Result<Report, Failure> {
    let bobs_token = stage.token("bob", stage.mcp(), now())?;
    let bob = stage.client(bobs_token.expose(), Revision::V2026)?;
    let alice = stage.client(stage.token("alice", stage.mcp(), now())?.expose(), Revision::V2025)?;
    let mut play = Play { stage, report, bob, bobs_token, alice };
    for (user, client) in [("bob", play.bob.clone()), ("alice", play.alice.clone())] {
        play.useful_read(user, &client).await?;
        play.arguments(user, &client).await?;
        play.tickets(user, &client).await?;
    }
    play.wire().await?;
    play.hidden_tools().await?;
    play.tokens().await?;
    play.irreversible().await?;
    play.sandbox().await?;
    play.measure_overhead().await?;
    play.journal().await
}

/// What the engine saw.
enum Seen {
    Done(Value),
    Refused {
        code: String,
        wall: String,
    },
    /// Stopped before it was a call.
    Turned(u16, String),
}

fn seen(answer: &Answer) -> Seen {
    let Some(result) = answer.result() else {
        let message = answer.body.pointer("/error/message").and_then(Value::as_str).unwrap_or_default();
        return Seen::Turned(answer.status, message.to_owned());
    };
    let word = |name: &str| {
        let text = result.pointer(&format!("/structuredContent/refusal/{name}")).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    if result.get("isError") == Some(&Value::Bool(true)) {
        return Seen::Refused { code: word("code"), wall: word("wall") };
    }
    Seen::Done(result.get("structuredContent").cloned().unwrap_or_default())
}

impl Play {
    async fn call(&mut self, client: &Client, tool: &str, arguments: Value) -> Result<Answer, Failure> {
        self.report.count_call();
        let arguments = arguments.as_object().cloned().unwrap_or_default();
        client.call(ToolCall { name: tool.to_owned(), arguments }).await.map_err(Failure::of)
    }

    /// An attack that should be refused. `harmed`: whether it had its effect all the same.
    fn refused(&mut self, tried: &str, user: &str, answer: &Answer, harmed: bool) {
        let (outcome, wall) = match seen(answer) {
            Seen::Done(_) => ("it was done".to_owned(), None),
            Seen::Refused { code, wall } => (format!("refused: {code}"), Some(wall)),
            Seen::Turned(401, message) => (format!("401: {message}"), Some("identity".into())),
            Seen::Turned(status, message) => (format!("{status}: {message}"), Some("wire".into())),
        };
        let wrong = harmed || wall.is_none();
        self.attack(tried, user, &outcome, wall, wrong);
    }

    fn attack(&mut self, tried: &str, user: &str, outcome: &str, wall: Option<String>, wrong: bool) {
        let (tried, user, outcome) = (tried.to_owned(), user.to_owned(), outcome.to_owned());
        self.report.add(Attempt { tried, user, outcome, wall, attack: true, wrong });
    }

    fn useful(&mut self, tried: &str, user: &str, outcome: String, was_done: bool) {
        let (tried, user) = (tried.to_owned(), user.to_owned());
        self.report.add(Attempt { tried, user, outcome, wall: None, attack: false, wrong: !was_done });
    }

    async fn useful_read(&mut self, user: &str, client: &Client) -> Result<(), Failure> {
        let answer = self.call(client, READ, json!({ "user_id": "u-1", "month": "2026-10" })).await?;
        let rows = rows_of(&answer);
        self.useful("read metrics of the own tenant", user, format!("{rows} rows"), rows == 2);
        Ok(())
    }

    async fn arguments(&mut self, user: &str, client: &Client) -> Result<(), Failure> {
        let users = self.stage.rows("users");
        let month = "2026-10";
        let answer =
            self.call(client, READ, json!({ "user_id": "1; DROP TABLE users", "month": month })).await?;
        let harmed = users.is_none() || self.stage.rows("users") != users;
        self.refused("`1; DROP TABLE users` as an argument", user, &answer, harmed);
        let answer = self.call(client, "execute_sql", json!({ "query": "DROP TABLE users" })).await?;
        let harmed = self.stage.rows("users") != users;
        self.refused("call execute_sql, which does not exist", user, &answer, harmed);
        let bound = json!({ "user_id": "u-3", "month": month, "tenant": "globex" });
        let answer = self.call(client, READ, bound).await?;
        self.refused("supply `tenant`, which is bound to the identity", user, &answer, false);
        let answer = self.call(client, READ, json!({ "user_id": "u-3", "month": month })).await?;
        let rows = rows_of(&answer);
        let wall = (rows == 0).then(|| "action_space".to_owned());
        self.attack("read metrics of another tenant", user, &format!("{rows} rows"), wall, rows != 0);
        let answer = self.call(client, READ, json!({ "user_id": "u-1", "month": month, "limit": 9 })).await?;
        self.refused("an extra key", user, &answer, false);
        let twice = format!(r#"{{"user_id":"u-1","user_id":"u-3","month":"{month}"}}"#);
        let answer = self.raw(client, READ, READ, &twice).await?;
        self.refused("a duplicated key", user, &answer, false);
        Ok(())
    }

    /// Sends a call as it stands: the header names one tool, the body another.
    async fn raw(
        &mut self,
        client: &Client,
        header: &str,
        tool: &str,
        arguments: &str,
    ) -> Result<Answer, Failure> {
        self.report.count_call();
        let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
        let headers = client.headers("tools/call", Some(header));
        let meta =
            if headers.contains_key("mcp-name") { format!(r#","_meta":{meta}"#) } else { String::new() };
        let params = format!(r#"{{"name":"{tool}","arguments":{arguments}{meta}}}"#);
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        client.send(headers, body).await.map_err(Failure::of)
    }

    async fn wire(&mut self) -> Result<(), Failure> {
        let bob = self.bob.clone();
        let before = self.stage.tickets.title("T-1");
        let edit = r#"{"ticket_id":"T-1","title":"smuggled"}"#;
        let answer = self.raw(&bob, READ, "edit_ticket", edit).await?;
        let harmed = self.stage.tickets.title("T-1") != before;
        self.refused("a header that names another tool than the body", "bob", &answer, harmed);
        let one = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#;
        let batch =
            bob.send(bob.headers("tools/list", None), format!("[{one},{one}]")).await.map_err(Failure::of)?;
        self.refused("a batch of two requests", "bob", &batch, batch.body.is_array());
        let deep = format!(r#"{{"user_id":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        let answer = self.raw(&bob, READ, READ, &deep).await?;
        self.refused("JSON nested ten thousand deep", "bob", &answer, false);
        Ok(())
    }

    /// What Bob may not call must look like what does not exist.
    async fn hidden_tools(&mut self) -> Result<(), Failure> {
        let bob = self.bob.clone();
        let metrics = self.stage.rows("user_metrics");
        let hidden = self.call(&bob, "purge_user", json!({ "user_id": "u-1" })).await?;
        let unknown = self.call(&bob, "purgo_user", json!({ "user_id": "u-1" })).await?;
        let listed = bob.tools().await.map_err(Failure::of)?.iter().any(|tool| tool["name"] == "purge_user");
        let alike = hidden.result() == unknown.result() && hidden.status == unknown.status && !listed;
        let harmed = !alike || self.stage.rows("user_metrics") != metrics;
        self.refused("call a tool that only others may call", "bob", &hidden, harmed);
        Ok(())
    }

    async fn tickets(&mut self, user: &str, client: &Client) -> Result<(), Failure> {
        let title = format!("mended by {user}");
        let answer = self.call(client, "edit_ticket", json!({ "ticket_id": "T-1", "title": title })).await?;
        let done = self.stage.tickets.title("T-1").as_deref() == Some(title.as_str());
        let what = if user == "bob" { "edit the own ticket" } else { "edit Bob's ticket, as the CEO" };
        self.useful(what, user, said(&answer), done);
        let title = format!("raise of {user}");
        let answer = self.call(client, "edit_ticket", json!({ "ticket_id": "T-2", "title": title })).await?;
        let done = self.stage.tickets.title("T-2").as_deref() == Some(title.as_str());
        if user == "alice" {
            self.useful("edit Carol's ticket, as the CEO", user, said(&answer), done);
        } else {
            // The gateway let it pass; the service saw Bob, and said no.
            let under_his_name = self.stage.tickets.has_turned_away(user, "T-2");
            self.refused("edit Carol's ticket", user, &answer, done || !under_his_name);
        }
        let answer =
            self.call(client, "edit_ticket", json!({ "ticket_id": "../admin", "title": "x" })).await?;
        self.refused("`../admin` as a ticket", user, &answer, false);
        Ok(())
    }

    async fn tokens(&mut self) -> Result<(), Failure> {
        let [agents, people, tickets] = self.stage.audiences.clone();
        let an_hour_ago = Instant(now().0.saturating_sub(3_600_000));
        let expired = self.stage.token("bob", &agents, an_hour_ago)?;
        let for_people = self.stage.token("bob", &people, now())?;
        let for_tickets = self.stage.token("bob", &tickets, now())?;
        let bob = self.bobs_token.expose().to_owned();
        let attempts = [
            ("an expired token", expired.expose().to_owned()),
            (
                "Bob's token, its subject changed to Alice",
                rewritten(&bob, 1, |claims| claims["sub"] = "alice".into()),
            ),
            (
                "a token that says it needs no signature",
                rewritten(&bob, 0, |header| header["alg"] = "none".into()),
            ),
            ("a token for the people's door", for_people.expose().to_owned()),
            ("a token for the ticket service", for_tickets.expose().to_owned()),
        ];
        for (tried, token) in attempts {
            let client = self.stage.client(&token, Revision::V2026)?;
            let answer = self.call(&client, READ, json!({ "user_id": "u-1", "month": "2026-10" })).await?;
            self.refused(tried, "bob", &answer, answer.status != 401);
        }
        Ok(())
    }

    async fn irreversible(&mut self) -> Result<(), Failure> {
        let alice = self.alice.clone();
        let before = self.stage.rows("user_metrics");
        let answer = self.call(&alice, "purge_user", json!({ "user_id": "u-1" })).await?;
        let harmed = before.is_none() || self.stage.rows("user_metrics") != before;
        self.refused("purge a user for good, without approval", "alice", &answer, harmed);
        Ok(())
    }

    async fn python(&mut self, code: &str) -> Result<Value, Failure> {
        let bob = self.bob.clone();
        let answer = self.call(&bob, "run_python", json!({ "code": code })).await?;
        Ok(done(&answer))
    }

    async fn bash(&mut self, script: &str) -> Result<Value, Failure> {
        let bob = self.bob.clone();
        let answer = self.call(&bob, "run_bash", json!({ "script": script })).await?;
        Ok(done(&answer))
    }

    /// An attack from inside the sandbox. It must have run, and must not have had its effect.
    fn tried_inside(&mut self, tried: &str, ran: bool, harmed: bool, outcome: &str) {
        let wall = (ran && !harmed).then(|| "sandbox".to_owned());
        let outcome = if ran { outcome } else { "it did not run" };
        self.attack(tried, "bob", outcome, wall, harmed || !ran);
    }

    async fn sandbox(&mut self) -> Result<(), Failure> {
        let sum = self.python("print(sum(range(101)))").await?;
        self.useful(
            "add numbers in Python",
            "bob",
            text(&sum, "stdout").trim().to_owned(),
            text(&sum, "stdout") == "5050\n",
        );
        self.destroy().await?;
        self.look_outside().await?;
        self.network().await?;
        self.fork_bomb().await?;
        let bomb = self.python(include_str!("programs/memory_bomb.py")).await?;
        let harmed = text(&bomb, "stdout").contains("survived");
        self.tried_inside(
            "a memory bomb of 1 GiB",
            !how(&bomb).is_empty(),
            harmed,
            &format!("ended: {}", how(&bomb)),
        );
        Ok(())
    }

    async fn destroy(&mut self) -> Result<(), Failure> {
        let look = "ls /usr/bin | wc -l; ls /etc /dev | wc -l";
        let (inside, outside) = (self.bash(look).await?, files(&self.stage.folder));
        let rm = self.bash("rm -rf --no-preserve-root / 2>/dev/null; ls / 2>&1 | head -3").await?;
        let again = self.bash(look).await?;
        let harmed =
            files(&self.stage.folder) != outside || text(&again, "stdout") != text(&inside, "stdout");
        let ran = !how(&rm).is_empty() && !text(&inside, "stdout").is_empty();
        let outcome = format!("{outside} host files and the next sandbox are as before");
        self.tried_inside("rm -rf --no-preserve-root /", ran, harmed, &outcome);
        Ok(())
    }

    async fn look_outside(&mut self) -> Result<(), Failure> {
        let key_file = keys_file(&self.stage.folder)?;
        let canary = self.stage.canary.expose().to_owned();
        let program = include_str!("programs/look_outside.py")
            .replace("GATEWAY_PID", &std::process::id().to_string())
            .replace("KEY_FILE", &key_file.display().to_string())
            .replace("ADDRESS", &self.stage.canary.expose().as_ptr().addr().to_string());
        let found = self.python(&program).await?;
        let output = format!("{}{}", text(&found, "stdout"), text(&found, "stderr"));
        let ran = output.contains("mem:");
        let environment = std::env::var(super::CANARY).is_ok_and(|canary| output.contains(&canary));
        self.tried_inside("read the host's environment", ran, environment, "only the sandbox's own is there");
        self.tried_inside("read the gateway's memory", ran, output.contains(&canary), "no such process");
        let key = std::fs::read_to_string(&key_file).unwrap_or_default();
        let signature = self.bobs_token.expose().rsplit('.').next().unwrap_or_default().to_owned();
        let secrets = key.is_empty() || output.contains(key.trim()) || output.contains(&signature);
        self.tried_inside("read the token and the journal's key", ran, secrets, "neither is there");
        Ok(())
    }

    async fn network(&mut self) -> Result<(), Failure> {
        let there = self.python(include_str!("programs/interfaces.py")).await?;
        let output = text(&there, "stdout");
        let (looked, has_any) =
            (output.contains("looked"), output.contains("interface") || output.contains("route"));
        self.tried_inside("find an interface or a route", looked, has_any, "its own loopback, and no route");
        if !looked || has_any {
            return Ok(());
        }
        let listener = silent_listener().await?;
        let port = listener.local_addr().map_err(Failure::of)?.port();
        let heard = Arc::new(AtomicUsize::new(0));
        let counting = heard.clone();
        let listening = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counting.fetch_add(1, Ordering::SeqCst);
            }
        });
        let program = include_str!("programs/reach_out.py").replace("LISTENER_PORT", &port.to_string());
        let tried = self.python(&program).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        listening.abort();
        let output = text(&tried, "stdout");
        let reached = output.contains("reached") || heard.load(Ordering::SeqCst) > 0;
        let what = "reach the host, metadata, a private address, a name";
        self.tried_inside(what, output.contains("tried"), reached, "the host's listener heard nothing");
        Ok(())
    }

    async fn fork_bomb(&mut self) -> Result<(), Failure> {
        let (most, stuck) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counting, failing) = (most.clone(), stuck.clone());
        let watching = tokio::spawn(async move {
            loop {
                counting.fetch_max(sandboxed_processes(), Ordering::SeqCst);
                // The host must be able to start processes while the bomb goes off.
                let started = tokio::process::Command::new("true").status().await;
                failing.fetch_or(started.is_err(), Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let result = self.bash("bomb() { bomb | bomb & }; bomb; sleep 9").await?;
        watching.abort();
        let most = most.load(Ordering::SeqCst);
        let left = result.pointer("/receipt/nothing_left") != Some(&Value::Bool(true));
        let stuck = stuck.load(Ordering::SeqCst);
        let harmed = stuck || left || most > 2 * PROCESSES;
        let rest = if left { "something left" } else { "none left" };
        let host = if stuck { "; the host could start nothing" } else { "" };
        let outcome = format!("ended: {}; at most {most} processes, {rest}{host}", how(&result));
        self.tried_inside("a fork bomb", !how(&result).is_empty(), harmed, &outcome);
        Ok(())
    }

    /// The median time of a read at the client, less the median time that its system took.
    async fn measure_overhead(&mut self) -> Result<(), Failure> {
        let alice = self.alice.clone();
        let mut whole = Vec::with_capacity(READS);
        for _ in 0..READS {
            let began = Moment::now();
            self.call(&alice, READ, json!({ "user_id": "u-1", "month": "2026-10" })).await?;
            whole.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
        let filter = Filter { last: Some(READS as u64), kind: Some("outcome".into()), ..Filter::default() };
        let entries = read(&self.stage.folder.join("state"), &filter).map_err(Failure::of)?;
        let inside = entries.iter().filter_map(|entry| entry.leaf.get("duration_us")?.as_u64()).collect();
        self.report.overhead_median_us = median(whole).saturating_sub(median(inside));
        Ok(())
    }

    /// Edits copies of the journal by hand, as someone with its file could.
    async fn journal(mut self) -> Result<Report, Failure> {
        let Play { stage, .. } = self;
        let closed = stage.close().await;
        let journal = |copy: Option<&str>| verify_copy(&closed, copy);
        let (_, sound) = journal(None)?;
        let intents = Filter { kind: Some("intent".into()), ..Filter::default() };
        let intents = read(&closed.folder.join("state"), &intents).map_err(Failure::of)?;
        self.report.effects_allowed = intents.len() as u64;
        let edits = [
            (
                "a journal in which Alice's name stands for Bob's",
                "UPDATE payloads SET text = replace(text, '\"bob\"', '\"alice\"')",
                FindingKind::PayloadAltered,
            ),
            (
                "a journal with one refusal made an intent",
                "UPDATE entries SET leaf = replace(leaf, '\"kind\":\"refused\"', '\"kind\":\"intent\"')",
                FindingKind::Altered,
            ),
            (
                "a journal with its last ten entries cut off",
                "DELETE FROM entries WHERE number > (SELECT max(number) - 10 FROM entries)",
                FindingKind::Truncated,
            ),
        ];
        for (tried, sql, expected) in edits {
            let (found, _) = journal(Some(sql))?;
            let outcome = found.first().map_or_else(|| "not found".to_owned(), |(_, what)| what.clone());
            let stopped = sound && found.iter().any(|(kind, _)| *kind == expected);
            let attempt = Attempt {
                tried: tried.to_owned(),
                user: "-".to_owned(),
                outcome,
                wall: stopped.then(|| "journal".to_owned()),
                attack: true,
                wrong: !stopped,
            };
            self.report.add(attempt);
        }
        Ok(self.report)
    }
}

fn rows_of(answer: &Answer) -> usize {
    done(answer).get("rows").and_then(Value::as_array).map_or(0, Vec::len)
}

fn done(answer: &Answer) -> Value {
    match seen(answer) {
        Seen::Done(result) => result,
        _ => Value::Null,
    }
}

fn said(answer: &Answer) -> String {
    match seen(answer) {
        Seen::Done(_) => "done".to_owned(),
        Seen::Refused { code, .. } => format!("refused: {code}"),
        Seen::Turned(status, message) => format!("{status}: {message}"),
    }
}

fn text<'a>(result: &'a Value, name: &str) -> &'a str {
    result.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// How a program ended; empty where none ran.
fn how(result: &Value) -> &str {
    result.pointer("/ended/how").and_then(Value::as_str).unwrap_or_default()
}

/// A token with one of its parts changed, and everything else left as it was.
fn rewritten(token: &str, part: usize, change: impl FnOnce(&mut Value)) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    if let Some(part) = parts.get_mut(part) {
        let bytes = URL_SAFE_NO_PAD.decode(&part).unwrap_or_default();
        let mut value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        change(&mut value);
        *part = URL_SAFE_NO_PAD.encode(value.to_string());
    }
    parts.join(".")
}

fn median(mut numbers: Vec<u64>) -> u64 {
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}
