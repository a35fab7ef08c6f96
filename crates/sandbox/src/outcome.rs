//! What came of a run.

use serde::{Deserialize, Serialize};

/// What came of a run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Outcome {
    /// How it ended.
    pub ended: Ended,
    /// Standard output.
    pub stdout: Captured,
    /// Standard error.
    pub stderr: Captured,
    /// The value of the last expression, as a notebook shows it. Python alone; none where there is none.
    pub value: Option<String>,
    /// What it left in `/artifacts`.
    pub artifacts: Vec<Artifact>,
    /// What else was there, and why it was left out.
    pub left_out: Vec<LeftOut>,
    /// What was in force and what was used.
    pub receipt: Receipt,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "how", content = "code")]
pub enum Ended {
    /// On its own, with this status.
    Exit(i32),
    /// By a signal.
    Signal(i32),
    /// Its time was up.
    Timeout,
    /// It wanted more memory than it may have.
    OutOfMemory,
    /// It wrote more than it may.
    OutputLimit,
    /// Whoever asked for it no longer wanted it.
    Cancelled,
}

/// What a program wrote to one stream.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Captured {
    /// The text; bytes that are not UTF-8 are replaced, and the middle of what is too long is left out.
    pub text: String,
    /// All that was written, in bytes.
    pub bytes_total: u64,
    /// Whether something was left out.
    pub cut: bool,
}

/// A file that a program left in `/artifacts`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Artifact {
    /// Its name, folders and all, below `/artifacts`.
    pub name: String,
    /// What it is, judged by its first bytes and never by its name.
    pub mime_type: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// Something in `/artifacts` that is not handed back.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LeftOut {
    /// Its name; bytes that are not UTF-8, and control characters, are replaced.
    pub name: String,
    /// Why.
    pub why: String,
}

/// What was in force, what was used, and what is left.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Receipt {
    /// What built the sandbox: `process`, `gvisor`.
    pub backend: String,
    /// What of it the program ran on: for `gvisor` its platform; empty for `process`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// The layers that were in force.
    pub layers: Vec<String>,
    /// The Landlock ABI in use; 0 where the layer is off.
    pub landlock_abi: u32,
    /// Who counted resources: `cgroup-v2`, `cgroup-v1` or `rlimits`.
    pub resources: String,
    /// The user that the host sees; inside it is user 1000.
    pub host_uid: u32,
    /// SHA-256 of the system call filter, in hexadecimal; empty where that layer is off.
    pub filter: String,
    /// Where it could connect to; empty means nowhere.
    pub egress: Vec<String>,
    /// What it used.
    pub used: Used,
    /// Whether its processes and its cgroup are gone, and with its last process its namespaces and all in them.
    pub nothing_left: bool,
}

/// What a run used.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Used {
    /// From the start of the program to its end, in microseconds.
    pub wall_us: u64,
    /// Processor time, in microseconds.
    pub cpu_us: u64,
    /// The most memory at one time, in bytes: of all processes by cgroup, of the largest one by rlimits.
    pub memory_peak_bytes: u64,
    /// The most processes and threads at one time; none where nobody counted.
    pub processes_peak: Option<u64>,
    /// Bytes written to both outputs.
    pub output_bytes: u64,
    /// Bytes sent out of the sandbox's network.
    pub egress_bytes_up: u64,
    /// Bytes that came in.
    pub egress_bytes_down: u64,
}

/// A sandbox could not be built as its profile says, so nothing ran. For the operator: the reason names paths of the host.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[error("sandbox layer `{layer}` is not in force: {reason}")]
pub struct Refused {
    /// The layer, or the step, that failed.
    pub layer: String,
    /// Why.
    pub reason: String,
}

impl Refused {
    pub(crate) fn new(layer: &str, reason: impl std::fmt::Display) -> Self {
        Self { layer: layer.to_owned(), reason: reason.to_string() }
    }

    /// Something failed that belongs to no layer.
    pub(crate) fn jail(reason: impl std::fmt::Display) -> Self {
        Self::new("jail", reason)
    }
}
