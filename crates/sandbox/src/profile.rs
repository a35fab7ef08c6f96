//! What a sandbox is: named by the operator, never by the program that runs in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::egress::{NoAuthority, Resolver, Rules, SystemResolver, Trust};
use crate::jail::filter;

/// What the program is written in.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Python 3, isolated from the environment (`-I`) and without byte code files (`-B`).
    Python,
    /// Bash without start-up files.
    Bash,
    /// Node.js.
    Node,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Python, Self::Bash, Self::Node];

    /// The word for it in projects and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Bash => "bash",
            Self::Node => "node",
        }
    }

    /// Where its interpreter may be in the sandbox's root, the first that is there being taken.
    #[must_use]
    pub fn interpreters(self) -> &'static [&'static str] {
        match self {
            Self::Python => &["/usr/bin/python3", "/usr/local/bin/python3"],
            Self::Bash => &["/usr/bin/bash", "/bin/bash"],
            Self::Node => &["/usr/bin/node", "/usr/local/bin/node"],
        }
    }

    pub(crate) fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Python => &["-I", "-B", "-u"],
            Self::Bash => &["--norc", "--noprofile"],
            Self::Node => &[],
        }
    }

    /// What a program in it is called, in `/program`.
    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Self::Python => "main.py",
            Self::Bash => "main.sh",
            Self::Node => "main.js",
        }
    }
}

/// How much a run may use.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Limits {
    /// From the start of the program to its end.
    pub wall: Duration,
    /// Memory of all its processes together, files in tmpfs included, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads at the same time.
    pub processes: u64,
    /// Thousandths of a processor core.
    pub cpu_millicores: u64,
    /// Bytes kept of standard output and of standard error, each; the middle of what is longer is left out.
    pub output_bytes: u64,
    /// Bytes written to either after which the program is stopped.
    pub output_bytes_max: u64,
    /// Bytes in `/work`.
    pub work_bytes: u64,
    /// Bytes in `/tmp`.
    pub temporary_bytes: u64,
    /// Bytes in `/artifacts`, and so in all that is handed back from there.
    pub artifact_bytes: u64,
    /// Files that are handed back from `/artifacts`; more are named, and left out.
    pub artifact_files: u64,
    /// Files in each of these folders.
    pub files: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(30),
            memory_bytes: 512 << 20,
            processes: 128,
            cpu_millicores: 1000,
            output_bytes: 1 << 20,
            output_bytes_max: 64 << 20,
            work_bytes: 256 << 20,
            temporary_bytes: 64 << 20,
            artifact_bytes: 64 << 20,
            artifact_files: 32,
            files: 10_000,
        }
    }
}

/// What the root of the file system is made of.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Root {
    /// An empty root with the host's `/usr`, read-only, and nothing else of the host.
    HostUsr,
    /// A folder with a root file system in it, read-only: a rootfs, or an image that was unpacked as an OCI bundle
    /// (`config.json` beside `rootfs/`).
    Folder(PathBuf),
}

/// How an interpreter comes to be in a sandbox.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// Forked from a process that has loaded the interpreter and its modules once, and never runs a program itself. For Python.
    Fork,
    /// Started anew: an address layout and a hash secret of its own.
    Exec,
}

/// Who counts memory, processes and processor time.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resources {
    /// A cgroup: all processes together.
    Cgroup,
    /// Resource limits of each process (`setrlimit(2)`): weaker, since they are counted one by one; for machines that give no cgroup.
    RlimitsOnly,
}

/// One layer of the sandbox. All are in force unless a test takes some away.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// A user namespace, in which the program is nobody's user.
    UserNamespace,
    /// A process table of its own.
    PidNamespace,
    /// IPC, host name and cgroup namespaces.
    OtherNamespaces,
    /// A network of its own: nothing but a loopback.
    NetworkNamespace,
    /// A root that was built for this run.
    OwnRoot,
    /// Landlock.
    Landlock,
    /// A system call filter.
    Seccomp,
    /// No capabilities, no new privileges.
    NoPrivileges,
    /// No user namespaces within.
    NoNestedNamespaces,
    /// Memory, processes and processor time.
    Limits,
}

impl Layer {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::UserNamespace,
        Self::PidNamespace,
        Self::OtherNamespaces,
        Self::NetworkNamespace,
        Self::OwnRoot,
        Self::Landlock,
        Self::Seccomp,
        Self::NoPrivileges,
        Self::NoNestedNamespaces,
        Self::Limits,
    ];

    /// The word for it in refusals and receipts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserNamespace => "user_namespace",
            Self::PidNamespace => "pid_namespace",
            Self::OtherNamespaces => "other_namespaces",
            Self::NetworkNamespace => "network_namespace",
            Self::OwnRoot => "own_root",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::NoPrivileges => "no_privileges",
            Self::NoNestedNamespaces => "no_nested_namespaces",
            Self::Limits => "limits",
        }
    }
}

/// What isolates the program. The operator's choice; a request never changes it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Isolation {
    /// The built-in backend: Linux's own walls.
    #[default]
    Process,
    /// gVisor: a kernel of its own, written in Go, between the program and the host's. What of the profile's layers it has is always
    /// in force, and none can be taken away; it has no Landlock, and a sentry in its place. Nothing waits ready, and nothing is
    /// loaded first.
    Gvisor(GvisorSettings),
    /// A sandbox host on another machine, whose own profile says what isolates it there; nothing of it runs here.
    Remote(crate::remote::RemoteSettings),
}

/// How gVisor is run.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GvisorSettings {
    /// Where `runsc` is, an absolute path.
    pub runtime: PathBuf,
    /// How the sentry gets hold of the program's system calls: a platform that this `runsc` has, as `ptrace`, `systrap`, `kvm`.
    pub platform: String,
}

impl Default for GvisorSettings {
    fn default() -> Self {
        Self { runtime: PathBuf::from("/usr/bin/runsc"), platform: "ptrace".to_owned() }
    }
}

/// A layer that a test makes fail, to see that nothing runs without it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Fault {
    /// The kernel refuses to put it up.
    Refused,
    /// It is not put up, and nobody says so: what is in force has to be looked at from outside.
    Skipped,
}

/// Where programs may connect to, and what the gateway needs for that.
#[derive(Clone)]
pub struct WayOut {
    /// The operator's rules.
    pub rules: Arc<Rules>,
    /// Finds addresses, once the rules have said yes.
    pub resolver: Arc<dyn Resolver>,
    /// Vouches for servers whose connections are inspected.
    pub trust: Trust,
}

impl WayOut {
    /// By this machine's own resolver, to servers that this machine trusts.
    pub fn new(rules: Rules) -> Result<Self, NoAuthority> {
        Ok(Self { rules: Arc::new(rules), resolver: Arc::new(SystemResolver), trust: Trust::native()? })
    }
}

impl std::fmt::Debug for WayOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("WayOut").field(&self.rules.texts()).finish()
    }
}

/// What a sandbox is.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What it runs.
    pub language: Language,
    /// What isolates it.
    pub isolation: Isolation,
    /// What its root is made of.
    pub root: Root,
    /// How much it may use.
    pub limits: Limits,
    /// Who counts that.
    pub resources: Resources,
    /// The oldest Landlock that will do, by its ABI version.
    pub landlock_abi_min: u32,
    /// How the interpreter comes to be in it.
    pub start: Start,
    /// Python modules that are loaded before any program comes.
    pub preload: Vec<String>,
    /// What is in the environment of programs besides what every one finds there. Never a secret.
    pub environment: BTreeMap<String, String>,
    /// Where programs may connect to, through the gateway; none means that there is no network at all.
    pub egress: Option<WayOut>,
    /// Sandboxes that wait, built and confined, for a program; each is used once.
    pub ready: usize,
    layers: BTreeSet<Layer>,
    pub(crate) fault: Option<(Layer, Fault)>,
}

impl Profile {
    /// A profile with every layer, the default limits and a cgroup; nothing waits ready.
    #[must_use]
    pub fn new(language: Language) -> Self {
        Self {
            language,
            isolation: Isolation::default(),
            root: Root::HostUsr,
            limits: Limits::default(),
            resources: Resources::Cgroup,
            landlock_abi_min: 2,
            start: Start::Exec,
            preload: Vec::new(),
            environment: BTreeMap::new(),
            egress: None,
            ready: 0,
            layers: Layer::ALL.into(),
            fault: None,
        }
    }

    /// The same without some layers: for tests, which have to see an attack work where its wall is missing. Its interpreter is
    /// started anew, since one that is forked never was in the host's own namespaces.
    #[must_use]
    pub fn dangerously_without(mut self, layers: &[Layer]) -> Self {
        self.start = Start::Exec;
        self.layers.retain(|layer| !layers.contains(layer));
        self
    }

    /// The same with a layer that fails, or is left out without a word: for tests, which have to see that nothing runs then.
    #[must_use]
    pub fn dangerously_with_fault(mut self, layer: Layer, fault: Fault) -> Self {
        self.fault = Some((layer, fault));
        self
    }

    /// The layers that must be in force.
    #[must_use]
    pub fn layers(&self) -> &BTreeSet<Layer> {
        &self.layers
    }

    pub(crate) fn filter(&self) -> filter::Kind {
        filter::Kind { resources: self.resources, egress: self.egress.is_some() }
    }

    pub(crate) fn has(&self, layer: Layer) -> bool {
        self.layers.contains(&layer)
    }
}
