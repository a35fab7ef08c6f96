//! What a sandbox costs: from request to result of `print(1)`, side by side in one run with what others take for the same.
//!
//! `cargo xtask bench sandbox` runs it. Rounds go through all ways by turns, so that a busy moment of the machine meets each.
//! A peer that the machine does not have is named and left out.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    reason = "a bench"
)]

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use ringfence_sandbox::{
    Ended, Language, Outcome, Profile, Program, Sandbox, Start, Stream, Watch, egress, strongest,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 40;
const PRINT: &str = "print(1)";
const HEAVY: &str = "import numpy, pandas\nprint(1)";

fn main() {
    ringfence_sandbox::enter_if_jail();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // One part alone, while something is being looked for.
        if std::env::args().any(|word| word == "callers") {
            return many_callers().await;
        }
        one_program(PRINT, &[], &["-I", "-S"]).await;
        let has_pandas = Command::new("/usr/bin/python3").args(["-c", "import numpy, pandas"]).output();
        if has_pandas.is_ok_and(|ran| ran.status.success()) {
            one_program(HEAVY, &["numpy", "pandas"], &["-I"]).await;
        } else {
            println!("numpy and pandas: not installed (Debian: python3-pandas), so not measured\n");
        }
        many_callers().await;
    });
}

/// When the first byte came.
#[derive(Default)]
struct First(OnceLock<Instant>);

impl Watch for First {
    fn wrote(&self, _: Stream, _: &[u8]) {
        let _first_alone = self.0.set(Instant::now());
    }
}

#[async_trait::async_trait]
impl egress::Watch for First {
    async fn decided(&self, _: &egress::Decision) -> Result<(), egress::Unrecorded> {
        Err(egress::Unrecorded)
    }
}

/// Milliseconds to the first byte and to the result, and the receipt's peak of memory.
async fn run(sandbox: &Sandbox, source: &str) -> (f64, f64, Outcome) {
    let first = Arc::new(First::default());
    let began = Instant::now();
    let outcome = sandbox.run(Program::new(source), first.clone(), CancellationToken::new()).await.unwrap();
    let took = began.elapsed();
    assert_eq!((outcome.ended, outcome.stdout.text.as_str()), (Ended::Exit(0), "1\n"));
    assert!(outcome.receipt.nothing_left);
    let first = first.0.get().unwrap().duration_since(began);
    (first.as_secs_f64() * 1e3, took.as_secs_f64() * 1e3, outcome)
}

fn python(preload: &[&str], ready: usize) -> Profile {
    let mut profile = strongest(Language::Python).unwrap();
    profile.preload = preload.iter().map(ToString::to_string).collect();
    profile.ready = ready;
    profile
}

/// A bundle for `crun` with what `bwrap` is given (OCI runtime specification, bundle), and the command that runs it.
fn crun(bundle: &Path, command: &[String]) -> Vec<String> {
    let bound = |path: &str| json!({ "destination": path, "source": path, "type": "bind", "options": ["bind", "ro"] });
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({ "type": kind }));
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 }, "args": command, "env": ["PATH=/usr/bin"], "cwd": "/",
            "noNewPrivileges": true, "capabilities": {},
        },
        "root": { "path": "rootfs", "readonly": true },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
            { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" },
            bound("/usr"), bound("/etc/alternatives"), bound("/etc/ld.so.cache"),
        ],
        "linux": { "namespaces": namespaces },
    });
    let root = bundle.join("rootfs");
    std::fs::create_dir_all(root.join("usr")).unwrap();
    for name in ["bin", "lib", "lib64"] {
        let _there_already = std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name));
    }
    std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    let run = format!("exec crun --cgroup-manager=disabled run --bundle {} x$$", bundle.display());
    // It does not run beside the hybrid of both versions of cgroups, so one is hidden from it: a millisecond or two of its time.
    let unified = Path::new("/sys/fs/cgroup/unified");
    if unified.exists() {
        let hide = format!("umount --lazy {} && {run}", unified.display());
        return ["unshare", "--mount", "sh", "-c", &hide].map(str::to_owned).into();
    }
    ["sh", "-c", &run].map(str::to_owned).into()
}

/// The commands of others, those that are here.
fn peers(source: &str, flags: &[&str], bundle: &Path) -> Vec<(String, Vec<String>)> {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let with = |prefix: Vec<String>, flags: &[&str]| {
        let mut command = prefix;
        command.push("/usr/bin/python3".to_owned());
        command.extend(flags.iter().map(ToString::to_string));
        command.extend(["-c".to_owned(), source.to_owned()]);
        command
    };
    let bwrap = "bwrap --unshare-all --die-with-parent --new-session --ro-bind /usr /usr --symlink usr/bin /bin \
                 --symlink usr/lib /lib --symlink usr/lib64 /lib64 --ro-bind /etc/alternatives /etc/alternatives \
                 --ro-bind /etc/ld.so.cache /etc/ld.so.cache --tmpfs /tmp --proc /proc --dev /dev";
    let bwrap: Vec<String> = bwrap.split_whitespace().map(str::to_owned).collect();
    let nsjail = words(
        "nsjail -Mo --really_quiet -R /usr -s usr/bin:/bin -s usr/lib:/lib -s usr/lib64:/lib64 \
         -R /etc/alternatives -R /etc/ld.so.cache -R /dev/null -R /dev/urandom -T /tmp --",
    );
    let runsc = words("runsc --rootless --network=none --platform=ptrace --ignore-cgroups do");
    let peers = vec![
        (format!("python3 {} -c, no sandbox", flags.join(" ")), with(Vec::new(), flags)),
        ("python3 -c, no sandbox".to_owned(), with(Vec::new(), &[])),
        ("bwrap python3 -c".to_owned(), with(bwrap.clone(), &[])),
        (format!("bwrap python3 {} -c", flags.join(" ")), with(bwrap, flags)),
        ("nsjail python3 -c".to_owned(), with(nsjail, &[])),
        ("crun python3 -c".to_owned(), crun(bundle, &with(Vec::new(), &[]))),
        ("runsc do python3 -c".to_owned(), with(runsc, &[])),
    ];
    peers
        .into_iter()
        .filter(|(name, command)| {
            let output = Command::new(&command[0]).args(&command[1..]).output();
            let is_fine = output.is_ok_and(|output| output.stdout == b"1\n");
            if !is_fine {
                println!("  {name}: not here, or does not run here");
            }
            is_fine
        })
        .collect()
}

async fn one_program(source: &str, preload: &[&str], flags: &[&str]) {
    println!("`{}`, {ROUNDS} rounds by turns, milliseconds:", source.replace('\n', "; "));
    let pool = Sandbox::new(python(preload, 4));
    pool.warm().await.unwrap();
    let fork = Sandbox::new(python(preload, 0));
    fork.warm().await.unwrap();
    let mut exec = python(&[], 4);
    exec.start = Start::Exec;
    let exec = Sandbox::new(exec);
    exec.warm().await.unwrap();
    let bundle = tempfile::tempdir().unwrap();
    let peers = peers(source, flags, bundle.path());
    let mut rows: Vec<(String, Vec<f64>, Vec<f64>)> =
        peers.iter().map(|(name, _)| (name.clone(), Vec::new(), Vec::new())).collect();
    for name in [
        "cold: nothing is there yet",
        "a sandbox built and forked into now",
        "from the pool, started anew",
        "from the pool",
    ] {
        rows.push((name.to_owned(), Vec::new(), Vec::new()));
    }
    let mut memory = Vec::new();
    for _ in 0..ROUNDS {
        for (row, (_, command)) in rows.iter_mut().zip(&peers) {
            pause().await;
            let began = Instant::now();
            let output = Command::new(&command[0]).args(&command[1..]).output().unwrap();
            row.2.push(began.elapsed().as_secs_f64() * 1e3);
            assert_eq!(output.stdout, b"1\n");
        }
        let mut cold = python(&[], 0);
        cold.start = Start::Exec;
        let cold = Sandbox::new(cold);
        for (at, sandbox) in [&cold, &fork, &exec, &pool].into_iter().enumerate() {
            pause().await;
            let (first, all, outcome) = run(sandbox, source).await;
            let row = &mut rows[peers.len() + at];
            row.1.push(first);
            row.2.push(all);
            memory.push(outcome.receipt.used.memory_peak_bytes as f64 / f64::from(1 << 20));
        }
        cold.close().await;
    }
    let of_bwrap = rows.iter().find(|row| row.0 == "bwrap python3 -c").map(|row| median(&row.2));
    for (name, first, all) in &rows {
        let ratio =
            of_bwrap.map_or(String::new(), |bwrap| format!("  bwrap's time × {:.3}", median(all) / bwrap));
        let first =
            if first.is_empty() { String::new() } else { format!("  first byte {:.2}", median(first)) };
        println!("  {name:<38} {:>8.2}{ratio}{first}", median(all));
    }
    println!("  peak memory of a sandbox, by its cgroup: {:.1} MiB\n", median(&memory));
    for sandbox in [pool, fork, exec] {
        sandbox.close().await;
    }
}

/// Lets the pool fill up and the machine settle.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(25)).await;
}

async fn many_callers() {
    const CALLERS: usize = 8;
    const FOR: Duration = Duration::from_secs(4);
    let pool = Sandbox::new(python(&[], 8));
    pool.warm().await.unwrap();
    let took = Arc::new(Mutex::new(Vec::new()));
    let began = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (pool, took) = (pool.clone(), took.clone());
            tokio::spawn(async move {
                while began.elapsed() < FOR {
                    let (_, all, _) = run(&pool, PRINT).await;
                    took.lock().unwrap().push(all);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let seconds = began.elapsed().as_secs_f64();
    let took = took.lock().unwrap().clone();
    println!("{CALLERS} callers at once for {} s, each run in a sandbox of its own:", FOR.as_secs());
    println!("  {:.0} runs a second, median {:.2} ms", took.len() as f64 / seconds, median(&took));
    println!("  refill: {:.2} ms of two cores for each", seconds * 2e3 / took.len() as f64);
    pool.close().await;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("  cores: {cores}, cgroups: {}", Path::new("/sys/fs/cgroup").exists());
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
