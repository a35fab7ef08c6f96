//! What the end-to-end tests share: the real binary, a project of its own for each test, and a gateway that runs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

pub mod clients;
mod desk;
pub mod issuer;
mod person;
pub mod postgres;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringfence_mcp::Revision;
use ringfence_mcp::client::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

pub use desk::Desk;
pub use person::log_in;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The `ringfence` executable of this build.
///
/// # Panics
/// Where it was not built.
#[must_use]
pub fn binary() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let found = own.parent().and_then(Path::parent).unwrap().join("ringfence");
    assert!(found.is_file(), "`{}` is missing: run `cargo build --workspace` first", found.display());
    found
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Standard output as JSON.
    ///
    /// # Panics
    /// Where it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs the binary to its end.
///
/// # Panics
/// Where it cannot be started.
#[must_use]
pub fn ringfence(arguments: &[&str]) -> Ran {
    run(Command::new(binary()).args(arguments))
}

/// Runs a command to its end.
///
/// # Panics
/// Where it cannot be started.
#[must_use]
pub fn run(command: &mut Command) -> Ran {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

/// A fresh project with ports of its own.
pub struct Project {
    folder: TempDir,
}

impl Default for Project {
    fn default() -> Self {
        Self::new()
    }
}

impl Project {
    /// What `ringfence init` writes, on free ports.
    ///
    /// # Panics
    /// Where it cannot be written.
    #[must_use]
    pub fn new() -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap() };
        let made = ringfence(&["init", project.path()]);
        assert_eq!(made.code, 0, "{made:?}");
        let [agents, people, issuer] = free_ports();
        project.edit("ringfence.toml", |text| {
            let text = text.replace("127.0.0.1:8787", &agents).replace("127.0.0.1:8788", &people);
            text.replace("users = ", &format!("development-listen = \"{issuer}\"\nusers = "))
        });
        project
    }

    /// Its folder.
    ///
    /// # Panics
    /// Where its name is not UTF-8.
    #[must_use]
    pub fn path(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    /// One of its files.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).unwrap();
    }

    /// Changes a file.
    ///
    /// # Panics
    /// Where it cannot be read or written, or nothing changes.
    pub fn edit(&self, name: &str, change: impl FnOnce(String) -> String) {
        let before = fs::read_to_string(self.file(name)).unwrap();
        let after = change(before.clone());
        assert_ne!(before, after, "the edit of `{name}` changes nothing");
        self.write(name, &after);
    }

    /// Adds to a file's end.
    ///
    /// # Panics
    /// Where it cannot be read or written.
    pub fn append(&self, name: &str, text: &str) {
        self.edit(name, |before| before + text);
    }

    /// `ringfence call`, as JSON: `{"done": …}` or `{"refusal": …}`.
    #[must_use]
    pub fn call(&self, user: &str, tool: &str, arguments: &[&str]) -> Value {
        let fixed = ["call", tool, "--json", "--as", user, "--project", self.path()];
        ringfence(&[&fixed, arguments].concat()).json()
    }

    /// A token of the development issuer.
    #[must_use]
    pub fn token(&self, user: &str, further: &[&str]) -> String {
        let fixed = ["token", "--as", user, "--project", self.path()];
        ringfence(&[&fixed, further].concat()).stdout.trim().to_owned()
    }

    /// The journal's entries.
    ///
    /// # Panics
    /// Where a line is not JSON.
    #[must_use]
    pub fn journal(&self) -> Vec<Value> {
        let shown = ringfence(&["journal", "show", self.path(), "--json", "--last", "1000"]);
        shown.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A connection to one of its databases, past the gateway.
    ///
    /// # Panics
    /// Where it cannot be opened.
    #[must_use]
    pub fn database(&self, name: &str) -> rusqlite::Connection {
        rusqlite::Connection::open(self.file(name)).unwrap()
    }

    /// Edits the journal as someone who can write its file would, and puts back the triggers that stood in the way.
    ///
    /// # Panics
    /// Where the edit is no SQL.
    pub fn edit_journal(&self, sql: &str) {
        let connection = self.database("state/journal.db");
        let mut triggers =
            connection.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").unwrap();
        let triggers: Vec<(String, String)> =
            triggers.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().flatten().collect();
        for (name, _) in &triggers {
            connection.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
        }
        connection.execute_batch(sql).unwrap();
        for (_, trigger) in &triggers {
            connection.execute_batch(trigger).unwrap();
        }
    }

    /// Appends an entry to the journal as someone would who knows its form and has no key.
    ///
    /// # Panics
    /// Where there is no journal.
    pub fn append_forged(&self) {
        let connection = self.database("state/journal.db");
        let (number, hash, tag): (i64, [u8; 32], [u8; 32]) = connection
            .query_row("SELECT number, hash, tag FROM entries ORDER BY number DESC", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .unwrap();
        let number = number + 1;
        let leaf = format!(r#"{{"number":{number},"kind":"closed","at":1}}"#);
        let parts: [&[u8]; 4] =
            [b"ringfence journal entry v1\n", &number.to_be_bytes(), &hash, leaf.as_bytes()];
        let hash = ringfence_core::Digest::of(&parts);
        let written = connection.execute(
            "INSERT INTO entries (number, leaf, hash, tag) VALUES (?1, ?2, ?3, ?4)",
            rusqlite::params![number, leaf, hash.as_bytes(), tag],
        );
        assert_eq!(written.unwrap(), 1);
    }

    /// Starts the gateway and waits until it serves.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn serve(&self, further: &[&str]) -> Serving {
        Serving::start(
            Command::new(binary()).args(["serve", self.path()]).args(further).stdout(Stdio::null()),
        )
    }

    /// The same with these variables in its environment; its standard output goes to the file `stdout`.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn serve_in(&self, environment: &[(&str, &str)]) -> Serving {
        let stdout = fs::File::create(self.file("stdout")).unwrap();
        let mut command = Command::new(binary());
        Serving::start(command.args(["serve", self.path()]).envs(environment.iter().copied()).stdout(stdout))
    }

    /// What `ringfence.toml` says under this key.
    ///
    /// # Panics
    /// Where it says nothing.
    #[must_use]
    pub fn setting(&self, key: &str) -> String {
        let text = fs::read_to_string(self.file("ringfence.toml")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")).map(str::to_owned));
        line.unwrap().split('"').next().unwrap().to_owned()
    }
}

/// Addresses of loopback that nobody has.
fn free_ports() -> [String; 3] {
    // All three at once, so that they differ.
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().to_string())
}

/// A gateway that runs; killed when it is dropped.
pub struct Serving {
    child: Child,
    /// Its MCP endpoint.
    pub mcp: String,
    log: std::thread::JoinHandle<String>,
}

impl Serving {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut before = String::new();
        let mcp = loop {
            let mut line = String::new();
            let read = log.read_line(&mut line).unwrap();
            assert!(read > 0, "the gateway did not start: {before}");
            before.push_str(&line);
            if let Some(rest) = line.split("mcp=").nth(1) {
                break rest.split_whitespace().next().unwrap_or_default().to_owned();
            }
        };
        let log = std::thread::spawn(move || {
            let _until_it_ends = log.read_to_string(&mut before);
            before
        });
        Self { child, mcp, log }
    }

    /// The origin of its agents' door.
    #[must_use]
    pub fn origin(&self) -> String {
        self.mcp.trim_end_matches("/mcp").to_owned()
    }

    /// A client of it.
    ///
    /// # Panics
    /// Where none can be made.
    #[must_use]
    pub fn client(&self, token: &str, revision: Revision) -> Client {
        Client::new(self.mcp.clone(), Some(token.to_owned()), revision).unwrap()
    }

    /// Its process.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn process(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal and waits for the end: exit code, log, and how long it took.
    ///
    /// # Panics
    /// Where it does not end.
    #[must_use]
    pub fn stop(mut self, signal: Signal) -> (Option<i32>, String, Duration) {
        let began = Instant::now();
        kill_process(self.process(), signal).unwrap();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "the gateway did not stop");
            std::thread::sleep(Duration::from_millis(10));
        };
        let took = began.elapsed();
        let log = std::mem::replace(&mut self.log, std::thread::spawn(String::new));
        (status.code(), log.join().unwrap(), took)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

/// Everything that the demo must at least try.
const TRIED: &[&str] = &[
    "DROP TABLE",
    "execute_sql",
    "bound to the identity",
    "extra key",
    "duplicated key",
    "Carol's ticket",
    "expired token",
    "subject changed",
    "people's door",
    "rm -rf",
    "host's environment",
    "gateway's memory",
    "token and the journal's key",
    "interface or a route",
    "metadata, a private address",
    "fork bomb",
    "memory bomb",
    "without approval",
    "journal",
];

/// That a demo tried everything, that nothing got through, and that the useful work was done.
///
/// # Panics
/// Where it is not so.
pub fn nothing_got_through(ran: &Ran) {
    let report = ran.json();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(report["attacks_through"], 0);
    let attempts = report["attempts"].as_array().unwrap();
    let attacks: Vec<&Value> = attempts.iter().filter(|attempt| attempt["attack"] == true).collect();
    assert_eq!(report["attacks_tried"], attacks.len());
    for tried in TRIED {
        let found = attacks.iter().find(|attempt| attempt["tried"].as_str().unwrap().contains(tried));
        assert!(found.is_some_and(|attempt| attempt["wall"].is_string()), "{tried}: {found:?}");
    }
    for number in ["calls", "effects_allowed", "overhead_median_us"] {
        assert!(report[number].as_u64().unwrap() > 0, "{number}");
    }
    for user in ["bob", "alice"] {
        let useful = attempts.iter().filter(|attempt| attempt["as"] == user && attempt["wall"].is_null());
        assert!(useful.count() >= 2, "{user}");
    }
}

/// Waits until something is so.
///
/// # Panics
/// Where it never is.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "this never came: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
