//! A user at a desk: where their logins are, and how they log in.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Ran, binary, log_in, run};

/// A user of this machine with no login yet.
pub struct Desk {
    state: TempDir,
}

impl Default for Desk {
    fn default() -> Self {
        Self::new()
    }
}

impl Desk {
    /// A new user.
    ///
    /// # Panics
    /// Where no folder can be made.
    #[must_use]
    pub fn new() -> Self {
        Self { state: tempfile::tempdir().unwrap() }
    }

    /// What stands in `XDG_STATE_HOME`.
    ///
    /// # Panics
    /// Where its name is not UTF-8.
    #[must_use]
    pub fn state(&self) -> &str {
        self.state.path().to_str().unwrap()
    }

    /// A command of theirs, with a log that says all it can.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).env("XDG_STATE_HOME", self.state()).env("RINGFENCE_LOG", "trace");
        command
    }

    /// Runs it to its end.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments))
    }

    /// Logs in at a gateway as this user of its development issuer, with a browser that the test is, and further arguments.
    ///
    /// # Panics
    /// Where nobody is asked to log in, or the browser gets no page.
    #[must_use]
    pub fn log_in(&self, gateway: &str, user: &str, further: &[&str]) -> Ran {
        let mut command = self.command(&["login", gateway, "--no-browser", "--json"]);
        command.args(further).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut stderr = String::new();
        let address = loop {
            let before = stderr.len();
            assert!(said.read_line(&mut stderr).unwrap() > 0, "nobody was asked to log in: {stderr}");
            let line = stderr[before..].trim();
            if line.starts_with("http") {
                break line.to_owned();
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let back = log_in(&address, user).await;
            // Somebody else who comes first changes nothing.
            let mut other = back.clone();
            other.set_query(Some("code=stolen&state=guessed"));
            let page = reqwest::get(other).await.unwrap();
            assert_eq!(page.status(), 400);
            let page = reqwest::get(back).await.unwrap();
            assert_eq!(page.status(), 200);
            assert!(page.text().await.unwrap().contains("You can close this page"));
        });
        said.read_to_string(&mut stderr).unwrap();
        let output = child.wait_with_output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        Ran { code: output.status.code().unwrap_or(-1), stdout, stderr }
    }

    /// The file of the one login.
    ///
    /// # Panics
    /// Where there is none, or more than one.
    #[must_use]
    pub fn login_file(&self) -> PathBuf {
        let files = fs::read_dir(self.state.path().join("ringfence/logins")).unwrap();
        let files = files.map(|file| file.unwrap().path());
        let mut files: Vec<PathBuf> =
            files.filter(|file| file.extension().is_some_and(|extension| extension == "json")).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files.remove(0)
    }

    /// What stands in it.
    ///
    /// # Panics
    /// Where it is not JSON.
    #[must_use]
    pub fn login(&self) -> Value {
        serde_json::from_slice(&fs::read(self.login_file()).unwrap()).unwrap()
    }

    /// Puts another value into it.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn set(&self, name: &str, value: impl Into<Value>) {
        let mut login = self.login();
        login[name] = value.into();
        // Whole, as the program itself does it: a bridge may be reading.
        let mut draft = tempfile::NamedTempFile::new_in(self.state()).unwrap();
        draft.write_all(login.to_string().as_bytes()).unwrap();
        draft.persist(self.login_file()).unwrap();
    }
}
