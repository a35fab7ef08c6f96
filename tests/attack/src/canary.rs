//! What nothing in a sandbox may reach: secrets of the host's that say so when they are seen or touched.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Everything that is told to a stage, and to the programs of its probes.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Places {
    /// What every token begins with.
    pub(crate) prefix: String,
    /// A file that everyone may read.
    pub(crate) file: PathBuf,
    /// A file that root alone may read, below a folder that a sandbox shows.
    pub(crate) root_file: Option<PathBuf>,
    /// A folder for the stage's own things.
    pub(crate) folder: PathBuf,
    /// The tables that findings are compared with.
    pub(crate) golden: PathBuf,
    /// Whether the network is ours alone.
    pub(crate) network: bool,
}

/// A process of the host's that holds secrets and listens wherever somebody could call.
pub(crate) struct Canary {
    child: Child,
    input: Option<ChildStdin>,
    contacts: Arc<Mutex<Vec<String>>>,
    answers: mpsc::Receiver<()>,
    found: Value,
    sockets: Vec<PathBuf>,
    abstract_name: String,
    shm_key: u32,
}

/// Sixteen hexadecimal digits that nobody can guess.
pub(crate) fn random() -> String {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap();
    format!("{:016x}", u64::from_ne_bytes(bytes))
}

/// Writes a file that everyone may read, or its owner alone.
pub(crate) fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

impl Canary {
    pub(crate) fn start(places: &Places) -> Self {
        let shm_key = u32::from_str_radix(&random()[..7], 16).unwrap() | 1;
        let abstract_name = format!("ringfence-attack-{}", random());
        let socket = places.folder.join("service.sock");
        let mut sockets = vec![socket];
        if let Some(root_file) = places.root_file.as_ref().filter(|_| rustix::process::getuid().is_root()) {
            sockets.push(root_file.with_file_name("service.sock"));
        }
        let token = |name: &str| format!("{}-{name}-{}", places.prefix, random());
        let told = json!({
            "shm_key": shm_key,
            "shm_token": token("host-segment"),
            "abstract": abstract_name,
            "sockets": sockets,
            "network": places.network,
        });
        let mut child = Command::new("/usr/bin/python3")
            .args(["-I", "-c", include_str!("../programs/canary.py"), &told.to_string()])
            .env("RINGFENCE_CANARY", token("host-environment"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let found = serde_json::from_str(first.strip_prefix("ready ").unwrap()).unwrap();
        let contacts = Arc::new(Mutex::new(Vec::new()));
        let (answered, answers) = mpsc::channel();
        let heard = contacts.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                match line.strip_prefix("contact ") {
                    Some(who) => heard.lock().unwrap().push(who.to_owned()),
                    None => {
                        let _nobody_asks = answered.send(());
                    }
                }
            }
        });
        Self { child, input, contacts, answers, found, sockets, abstract_name, shm_key }
    }

    /// Whether it lives, and its contacts since the last time that somebody asked.
    pub(crate) fn contacts(&mut self) -> Result<Vec<String>, String> {
        let asked = self.input.as_mut().is_some_and(|input| input.write_all(b"?\n").is_ok());
        if !asked || self.answers.recv_timeout(Duration::from_secs(10)).is_err() {
            return Err("the host's canary process no longer answers".to_owned());
        }
        Ok(std::mem::take(&mut *self.contacts.lock().unwrap()))
    }

    /// What programs are told of it.
    pub(crate) fn given(&self) -> Value {
        json!({
            "pid": self.found["pid"],
            "shm_id": self.found["shm_id"],
            "shm_key": self.shm_key,
            "port": self.found["port"],
            "abstract": self.abstract_name,
            "sockets": self.sockets,
        })
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        drop(self.input.take());
        // It ends when its input does, and takes its segment with it.
        let deadline = std::time::Instant::now() + Duration::from_secs(3);
        while std::time::Instant::now() < deadline {
            if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}
