//! What is left on the host: after many runs, and after the gateway was killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use ringfence_sandbox::{Sandbox, Start};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::canary::random;
use crate::lifecycle::{ensure, verdict};
use crate::probe::Verdict;
use crate::run::{Stage, Target, python, run};

pub(crate) const LIST: &[(&str, &str, bool)] = &[
    ("L01", "growth over many runs", true),
    ("L04", "the gateway is killed", true),
    ("L04g", "the gateway and all of its group are killed", true),
];

pub(crate) async fn play(stage: &mut Stage, target: &Target, id: &str) -> Verdict {
    verdict(match id {
        "L01" => growth(stage, target).await,
        "L04" => killed(target, false).await,
        "L04g" => killed(target, true).await,
        _ => Err("nobody plays it".to_owned()),
    })
}

/// Everything of ours that the host has, by name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Census {
    processes: BTreeMap<String, usize>,
    cgroups: BTreeSet<String>,
    mounts: usize,
    descriptors: BTreeMap<String, usize>,
    networks: usize,
    segments: usize,
}

impl Census {
    pub(crate) fn take() -> Self {
        let own = std::process::id();
        let parents = parents();
        let is_ours = |pid: &u32| {
            let mut at = *pid;
            while let Some(parent) = parents.get(&at) {
                if *parent == own {
                    return true;
                }
                at = *parent;
            }
            false
        };
        let ours: Vec<u32> = parents.keys().copied().filter(is_ours).collect();
        let mut processes = BTreeMap::new();
        let mut networks = BTreeSet::new();
        for pid in ours {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            *processes.entry(name.trim().to_owned()).or_default() += 1;
            networks.extend(fs::read_link(format!("/proc/{pid}/ns/net")).ok());
        }
        let mut descriptors = BTreeMap::new();
        for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default().display().to_string();
            let kind: String = target.chars().take_while(|char| !char.is_ascii_digit()).collect();
            *descriptors.entry(kind).or_default() += 1;
        }
        let lines = |path: &str| fs::read_to_string(path).unwrap_or_default().lines().count();
        Self {
            processes,
            cgroups: cgroups(&format!("ringfence-{own}-")),
            mounts: lines("/proc/self/mountinfo"),
            descriptors,
            networks: networks.len(),
            segments: lines("/proc/sysvipc/shm"),
        }
    }

    /// Whether things become again what they were.
    pub(crate) async fn settles(&self, when: &str) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let now = Self::take();
            if self.has_grown_to(&now) {
                if Instant::now() > deadline {
                    return Err(format!("{when}: {}", self.difference(&now)));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            return Ok(());
        }
    }

    fn has_grown_to(&self, now: &Self) -> bool {
        // A pool and its nursery may be there now that were not, which is at most what waits.
        let extra = 6;
        let total = |counts: &BTreeMap<String, usize>| counts.values().sum::<usize>();
        total(&now.processes) > total(&self.processes) + extra
            || now.cgroups.len() > self.cgroups.len() + 2 * 4
            || now.mounts > self.mounts
            || total(&now.descriptors) > total(&self.descriptors) + 40
            || now.networks > self.networks + 4
            || now.segments > self.segments + 2
    }

    fn difference(&self, now: &Self) -> String {
        let changed = |before: &BTreeMap<String, usize>, now: &BTreeMap<String, usize>| {
            let changed = now.iter().filter(|(name, count)| before.get(*name) != Some(count));
            changed
                .map(|(name, count)| format!("{name} {} -> {count}", before.get(name).unwrap_or(&0)))
                .collect::<Vec<_>>()
                .join(", ")
        };
        format!(
            "processes [{}], descriptors [{}], cgroups {} -> {}, mounts {} -> {}, networks {} -> {}, segments {} -> {}",
            changed(&self.processes, &now.processes),
            changed(&self.descriptors, &now.descriptors),
            self.cgroups.len(),
            now.cgroups.len(),
            self.mounts,
            now.mounts,
            self.networks,
            now.networks,
            self.segments,
            now.segments
        )
    }
}

/// Each process and its parent.
fn parents() -> BTreeMap<u32, u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?))
    })
    .collect()
}

/// Cgroups whose name begins so, in every hierarchy.
fn cgroups(prefix: &str) -> BTreeSet<String> {
    fn look(folder: &Path, prefix: &str, depth: usize, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                found.insert(entry.path().display().to_string());
            } else if depth > 0 {
                look(&entry.path(), prefix, depth - 1, found);
            }
        }
    }
    let mut found = BTreeSet::new();
    look(Path::new("/sys/fs/cgroup"), prefix, 4, &mut found);
    found
}

/// Whether a process of the host has this in its command line.
pub(crate) fn is_running(word: &str) -> bool {
    parents().keys().any(|pid| {
        *pid != std::process::id()
            && fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|text| {
                text.split(|byte| *byte == 0).next().is_some_and(|first| first == word.as_bytes())
            })
    })
}

/// Waits a moment for something to become true. Whether it did.
pub(crate) async fn wait_until(is_so: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    true
}

async fn growth(stage: &Stage, target: &Target) -> Result<String, String> {
    for _ in 0..10 {
        run(&target.sandbox, "pass").await.map_err(|refused| refused.to_string())?;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = Census::take();
    let began = Instant::now();
    for number in 0..stage.runs {
        let source = match number % 4 {
            0 => "print(1)",
            1 => "import os\nif os.fork() == 0:\n    os.setsid()\n    import time; time.sleep(60)",
            2 => {
                "import os, socket\na, b = socket.socketpair()\nfor fd in (0, 1, 2, 3, a.fileno(), os.open('/proc/self/ns/net', 0), os.open('/work', 0)):\n    for s in (a, socket.socket(fileno=os.dup(3))):\n        socket.send_fds(s, [b'x'], [fd])\nos.kill(os.getpid(), 9)"
            }
            _ => {
                "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.shmget(0, 4096, 0o1600)\nlibc.msgget(0, 0o1600)\nlibc.semget(0, 1, 0o1600)\nraise SystemExit(3)"
            }
        };
        let outcome =
            run(&target.sandbox, source).await.map_err(|refused| format!("run {number}: {refused}"))?;
        ensure(outcome.receipt.nothing_left, || format!("run {number}: something is left"))?;
    }
    let took = began.elapsed();
    before.settles(&format!("after {} runs", stage.runs)).await?;
    Ok(format!("{} runs in {:.1} s", stage.runs, took.as_secs_f32()))
}

/// A gateway of its own with programs that run, told apart by the name of their sleepers.
async fn killed(target: &Target, with_group: bool) -> Result<String, String> {
    let way = if target.profile.start == Start::Fork { "fork" } else { "exec" };
    let name = random();
    let mut gateway = Command::new("/proc/self/exe")
        .args(["--role=gateway", &format!("--told={way} {name}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| error.to_string())?;
    let pid = Pid::from_raw(i32::try_from(gateway.id()).unwrap_or(0)).ok_or("it has no number")?;
    let mut lines = BufReader::new(gateway.stdout.take().ok_or("it has no output")?).lines();
    let up = lines.next().and_then(Result::ok);
    if up.as_deref() != Some("up") {
        let _gone_already = gateway.kill();
        let _reaped = gateway.wait();
        return Err("control: the gateway did not come up".to_owned());
    }
    let is_there = wait_until(|| is_running(&name)).await;
    let prefix = format!("ringfence-{}-", gateway.id());
    let had = cgroups(&prefix).len();
    let killed =
        if with_group { kill_process_group(pid, Signal::KILL) } else { kill_process(pid, Signal::KILL) };
    let _reaped = gateway.wait();
    killed.map_err(|error| error.to_string())?;
    ensure(is_there, || "control: its program did not run".to_owned())?;
    let began = Instant::now();
    ensure(wait_until(|| !is_running(&name)).await, || "a program outlives its gateway".to_owned())?;
    let took = began.elapsed();
    let is_gone = wait_until(|| cgroups(&prefix).is_empty()).await;
    let mut left = cgroups(&prefix);
    if !is_gone {
        // Whoever comes next may have to tidy up.
        let sandbox = Sandbox::new(target.profile.clone());
        sandbox.warm().await.map_err(|refused| refused.to_string())?;
        run(&sandbox, "pass").await.map_err(|refused| refused.to_string())?;
        sandbox.close().await;
        left = cgroups(&prefix);
        left.iter().rev().for_each(|folder| {
            let _tidied = fs::remove_dir(folder);
        });
    }
    ensure(left.is_empty(), || {
        format!(
            "{} cgroups are left, of {had}, and no later gateway removes them: {:?}",
            left.len(),
            left.first()
        )
    })?;
    Ok(format!("dead after {} ms", took.as_millis()))
}

/// Runs programs until it is killed.
pub(crate) fn be_a_gateway(told: &str) -> ExitCode {
    let (way, name) = told.split_once(' ').unwrap();
    let mut profile = python();
    profile.start = if way == "fork" { Start::Fork } else { Start::Exec };
    profile.ready = 2;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let sandbox = Sandbox::new(profile);
        sandbox.warm().await.unwrap();
        println!("up");
        let source = format!(
            "import os\nos.setsid() if os.fork() == 0 else None\nos.execv('/usr/bin/sleep', ['{name}', '60'])"
        );
        let (one, other) = tokio::join!(run(&sandbox, source.clone()), run(&sandbox, source));
        drop((one, other));
    });
    ExitCode::SUCCESS
}
