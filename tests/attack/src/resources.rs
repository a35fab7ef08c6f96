//! How much it may take, how it ends when it takes more, and whether its neighbours notice.

use std::time::{Duration, Instant};

use ringfence_sandbox::{Ended, Sandbox};

use crate::lifecycle::{LATE_MAX, ensure, verdict};
use crate::probe::Verdict;
use crate::run::{Stage, Target, counts_together, run, run_once};

pub(crate) const LIST: &[(&str, &str, bool)] = &[
    ("R01", "memory bombs", false),
    ("R02", "all processors", false),
    ("R03", "output without end", false),
    ("R05", "how it ended", true),
    ("R08", "time", false),
    ("R09", "stress-ng's worst classes", false),
];

pub(crate) async fn play(_: &mut Stage, target: &Target, id: &str) -> Verdict {
    if id == "R09" {
        return stress(target).await;
    }
    verdict(match id {
        "R01" => memory(target).await,
        "R02" => processors(target).await,
        "R03" => output(target).await,
        "R05" => ends(target).await,
        "R08" => time(target).await,
        _ => Err("nobody plays it".to_owned()),
    })
}

/// Each takes memory in a way of its own, as long as it gets some, and says how much.
const BOMBS: &[(&str, &str)] = &[
    ("heap", "kept = []\nwhile True: kept.append(bytearray(4 << 20)); tell(4)"),
    (
        "mmap",
        "import mmap\nkept = []\nwhile True:\n    m = mmap.mmap(-1, 4 << 20); m.write(b'x' * (4 << 20)); kept.append(m); tell(4)",
    ),
    (
        "tmpfs",
        "for folder in ('/work', '/tmp', '/dev/shm', '/artifacts'):\n    try:\n        f = open(folder + '/x', 'wb')\n        while True: f.write(b'x' * (1 << 20)); f.flush(); tell(1)\n    except OSError: pass",
    ),
    (
        "memfd",
        "import os\nkept = []\nwhile True:\n    fd = os.memfd_create('x'); kept.append(fd); os.write(fd, b'x' * (4 << 20)); tell(4)",
    ),
    (
        "segments",
        "import ctypes\nlibc = ctypes.CDLL(None); libc.shmat.restype = ctypes.c_void_p\nwhile True:\n    s = libc.shmget(0, 4 << 20, 0o1600)\n    if s < 0: break\n    ctypes.memset(libc.shmat(s, None, 0), 1, 4 << 20); tell(4)",
    ),
    (
        "pipes",
        "import fcntl, os\nkept = []\nwhile True:\n    r, w = os.pipe(); kept += [r, w]\n    try: fcntl.fcntl(w, 1031, 1 << 20)\n    except OSError: pass\n    os.set_blocking(w, False)\n    try:\n        while True: os.write(w, b'x' * 65536); tell(1 / 16)\n    except BlockingIOError: pass",
    ),
    (
        "sockets",
        "import socket\nkept = []\nwhile True:\n    a, b = socket.socketpair(); kept += [a, b]; a.setblocking(False)\n    try:\n        while True: a.send(b'x' * 65536); tell(1 / 16)\n    except BlockingIOError: pass",
    ),
    (
        "page tables",
        "import ctypes, mmap\nm = mmap.mmap(-1, 200 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)\nfor at in range(0, 200 << 30, 2 << 20):\n    m[at]; tell(4 / 1024)",
    ),
    (
        "children",
        "import os\nfor _ in range(40):\n    if os.fork() == 0:\n        kept = []\n        while True: kept.append(bytearray(4 << 20)); tell(4)\nos.wait()\nimport time; time.sleep(3)",
    ),
];

async fn memory(target: &Target) -> Result<String, String> {
    if !counts_together(&target.profile) {
        return weaker_memory(target).await;
    }
    let mut profile = target.profile.clone();
    profile.ready = 0;
    profile.limits.memory_bytes = 64 << 20;
    profile.limits.wall = Duration::from_secs(6);
    let sandbox = Sandbox::new(profile);
    let mut endings = Vec::new();
    for (name, bomb) in BOMBS {
        let source = format!("total = 0\ndef tell(more):\n    global total\n    total += more\n{bomb}");
        let (outcome, beside) = tokio::join!(run(&sandbox, source), run(&target.sandbox, "print('lives')"));
        let outcome = outcome.map_err(|refused| format!("{name}: {refused}"))?;
        let beside = beside.map_err(|refused| format!("{name}: the neighbour: {refused}"))?;
        ensure(beside.stdout.text == "lives\n", || {
            format!("{name}: the neighbour ended with {:?}", beside.ended)
        })?;
        let peak = outcome.receipt.used.memory_peak_bytes;
        ensure(peak <= 64 << 20, || format!("{name}: {} MiB", peak >> 20))?;
        ensure(outcome.receipt.nothing_left, || format!("{name}: something is left"))?;
        if *name == "heap" {
            ensure(outcome.ended == Ended::OutOfMemory, || {
                format!("{name}: ended with {:?}", outcome.ended)
            })?;
        }
        endings.push(format!("{name}: {}", word(outcome.ended)));
    }
    sandbox.close().await;
    let roomy = run_once(&target.profile, "x = bytearray(128 << 20)\nprint(len(x))").await;
    let roomy = roomy.map_err(|refused| refused.to_string())?;
    ensure(roomy.stdout.text == "134217728\n", || "control: with room it gets none".to_owned())?;
    Ok(endings.join(", "))
}

/// By limits of each process: what one process takes is held, and no more is promised.
async fn weaker_memory(target: &Target) -> Result<String, String> {
    let mut profile = target.profile.clone();
    profile.ready = 0;
    profile.limits.memory_bytes = 128 << 20;
    let outcome =
        run_once(&profile, "x = bytearray(256 << 20)").await.map_err(|refused| refused.to_string())?;
    ensure(outcome.stderr.text.contains("MemoryError"), || format!("{:?}", outcome.ended))?;
    let roomy = run_once(&target.profile, "x = bytearray(64 << 20)\nprint(1)").await;
    ensure(roomy.is_ok_and(|outcome| outcome.stdout.text == "1\n"), || {
        "control: with room it gets none".to_owned()
    })?;
    Ok("one process alone: the profile names limits of processes, which count neither files nor all together"
        .to_owned())
}

fn word(ended: Ended) -> String {
    match ended {
        Ended::Exit(code) => format!("exit {code}"),
        Ended::Signal(signal) => format!("signal {signal}"),
        Ended::Timeout => "timeout".to_owned(),
        Ended::OutOfMemory => "out of memory".to_owned(),
        Ended::OutputLimit => "output limit".to_owned(),
        Ended::Cancelled => "cancelled".to_owned(),
    }
}

async fn processors(target: &Target) -> Result<String, String> {
    if !counts_together(&target.profile) {
        return Ok("no control: the profile names limits of processes, which share nothing out".to_owned());
    }
    let mut profile = target.profile.clone();
    profile.ready = 0;
    profile.limits.wall = Duration::from_secs(3);
    let spin = "import os\nfor _ in range(8):\n    if os.fork() == 0: break\nwhile True: pass";
    let took = async |cpu: u64| {
        let mut profile = profile.clone();
        profile.limits.cpu_millicores = cpu;
        let began = Instant::now();
        let outcome = run_once(&profile, spin).await.map_err(|refused| refused.to_string())?;
        ensure(began.elapsed() < Duration::from_secs(3) + LATE_MAX * 2, || {
            format!("it took {:?}", began.elapsed())
        })?;
        Ok::<_, String>(Duration::from_micros(outcome.receipt.used.cpu_us))
    };
    let (little, more) = (took(300).await?, took(900).await?);
    ensure(little < Duration::from_millis(1300), || format!("{little:?} of a grant of 0.9 s"))?;
    ensure(more > little, || format!("control: {more:?} of a grant of 2.7 s"))?;
    Ok(format!("{little:?} of 0.9 s, {more:?} of 2.7 s"))
}

async fn output(target: &Target) -> Result<String, String> {
    let mut profile = target.profile.clone();
    profile.ready = 0;
    profile.limits.output_bytes = 4096;
    profile.limits.output_bytes_max = 8 << 20;
    let sandbox = Sandbox::new(profile);
    let before = resident();
    for (name, source) in [
        ("yes", "import os\nwhile True: os.write(1, b'y\\n' * 8192)"),
        ("zeros", "import os\nwhile True: os.write(2, bytes(65536))"),
        ("one line", "print('x' * (100 << 20))"),
        (
            "both",
            "import os\nwhile True:\n    os.write(1, b'x' * 60000)\n    os.write(2, b'\\xff\\xfe\\x1b[2J' * 10000)",
        ),
    ] {
        let outcome = run(&sandbox, source).await.map_err(|refused| format!("{name}: {refused}"))?;
        ensure(outcome.ended == Ended::OutputLimit, || format!("{name}: {:?}", outcome.ended))?;
        ensure(outcome.stdout.text.len() + outcome.stderr.text.len() < 40_000, || {
            format!("{name}: too much is kept")
        })?;
        ensure(outcome.stdout.cut || outcome.stderr.cut, || format!("{name}: no marker"))?;
        serde_json::to_string(&outcome).map_err(|error| format!("{name}: {error}"))?;
    }
    let odd =
        run(&sandbox, "import os\nos.write(1, b'\\xff\\x00\\x1b[31m\\xf0\\x9f')\nos.write(1, b'\\n')").await;
    let odd = odd.map_err(|refused| refused.to_string())?;
    let again: serde_json::Value = serde_json::from_str(&serde_json::to_string(&odd).unwrap()).unwrap();
    ensure(again["stdout"]["text"].as_str().is_some_and(|text| text.contains('\u{fffd}')), || {
        format!("{again}")
    })?;
    sandbox.close().await;
    let grown = resident().saturating_sub(before);
    ensure(grown < 64 << 10, || format!("the gateway grew by {grown} kB"))?;
    Ok(format!("the gateway grew by {grown} kB"))
}

/// This process's own memory, in kB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse().ok());
    line.unwrap_or(0)
}

async fn ends(target: &Target) -> Result<String, String> {
    let mut told = Vec::new();
    for (source, expected) in [
        ("raise SystemExit(0)", Ended::Exit(0)),
        ("raise SystemExit(255)", Ended::Exit(255)),
        ("raise SystemExit('words')", Ended::Exit(1)),
        ("1 / 0", Ended::Exit(1)),
        ("import os; os._exit(42)", Ended::Exit(42)),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", Ended::Signal(11)),
        ("import ctypes; ctypes.string_at(0)", Ended::Signal(11)),
        ("import os; os.abort()", Ended::Signal(6)),
        ("import os; os.kill(os.getpid(), 9)", Ended::Signal(9)),
        ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", Ended::Signal(24)),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", Ended::Signal(15)),
        ("import os; os.execv('/usr/bin/false', ['false'])", Ended::Exit(1)),
        ("import os; os.execv('/nowhere', ['x'])", Ended::Exit(1)),
        ("import os; os.close(3); os.close(1); os.close(2)", Ended::Exit(0)),
        (
            "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\nf = open('/work/x', 'wb'); f.seek(1 << 40); f.write(b'x'); f.flush()",
            Ended::Signal(25),
        ),
    ] {
        let outcome = run(&target.sandbox, source).await.map_err(|refused| format!("{source}: {refused}"))?;
        if outcome.ended != expected {
            told.push(format!("{source:?}: {}, not {}", word(outcome.ended), word(expected)));
        }
    }
    ensure(told.is_empty(), || told.join("; "))?;
    Ok("no control: each is another ending".to_owned())
}

async fn time(target: &Target) -> Result<String, String> {
    let mut profile = target.profile.clone();
    profile.ready = 0;
    profile.limits.wall = Duration::from_millis(400);
    let sandbox = Sandbox::new(profile);
    sandbox.warm().await.map_err(|refused| refused.to_string())?;
    let control = run(&sandbox, "import time; time.sleep(0.05); print(1)")
        .await
        .map_err(|refused| refused.to_string())?;
    ensure(control.ended == Ended::Exit(0), || format!("control: {:?}", control.ended))?;
    let mut slowest = Duration::ZERO;
    for source in [
        "import time; time.sleep(4)",
        "import signal, time\nsignal.alarm(1)\nsignal.signal(14, lambda *_: None)\nwhile True: time.sleep(1)",
        "import os\nwhile True: os.write(1, b'')",
        "import os\nos.close(3)\nwhile True: pass",
    ] {
        let began = Instant::now();
        let outcome = run(&sandbox, source).await.map_err(|refused| refused.to_string())?;
        let took = began.elapsed();
        ensure(outcome.ended == Ended::Timeout, || format!("{source}: {:?}", outcome.ended))?;
        ensure(took < Duration::from_millis(400) + LATE_MAX, || format!("{source}: {took:?}"))?;
        slowest = slowest.max(took);
    }
    sandbox.close().await;
    Ok(format!("the slowest was over {} ms after its time", slowest.as_millis().saturating_sub(400)))
}

/// Classes of stressors that are known to bring machines down, each for a moment.
const STRESSORS: &[&str] = &[
    "fork",
    "vm",
    "mmap",
    "pipe",
    "sock",
    "shm",
    "msg",
    "sem",
    "futex",
    "switch",
    "kill",
    "sigq",
    "timer",
    "memfd",
    "dentry",
    "mremap",
    "hdd",
    "fallocate",
    "clone",
    "pthread",
    "vfork",
    "zombie",
    "epoll",
    "eventfd",
    "splice",
];

async fn stress(target: &Target) -> Verdict {
    if !std::path::Path::new("/usr/bin/stress-ng").exists() {
        return Verdict::NotApplicable("stress-ng is not installed (Debian: stress-ng)".to_owned());
    }
    let mut profile = target.profile.clone();
    profile.ready = 0;
    profile.limits.wall = Duration::from_secs(4);
    let sandbox = Sandbox::new(profile);
    let mut slowest = Duration::ZERO;
    let mut stressed = Vec::new();
    for stressor in STRESSORS {
        let source = format!(
            "import subprocess\nprint(subprocess.run(['/usr/bin/stress-ng', '--{stressor}', '4', '--timeout', '1', '--temp-path', '/tmp'], capture_output=True, text=True).stderr[-300:])"
        );
        let beside = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let began = Instant::now();
            (run(&target.sandbox, "print('lives')").await, began.elapsed())
        };
        let (outcome, (beside, took)) = tokio::join!(run(&sandbox, source), beside);
        slowest = slowest.max(took);
        match (outcome, beside) {
            (Ok(outcome), Ok(beside)) if outcome.receipt.nothing_left && beside.stdout.text == "lives\n" => {
                // One that was stopped for taking too much has stressed; one that could not begin has not.
                let by_itself = outcome.stdout.text.contains("successful run");
                if by_itself || outcome.ended != Ended::Exit(0) {
                    stressed.push(*stressor);
                }
            }
            (outcome, beside) => {
                return Verdict::Hole(format!(
                    "{stressor}: {:?}, beside it {:?}",
                    outcome.map(|outcome| outcome.receipt),
                    beside.map(|beside| beside.ended)
                ));
            }
        }
        if took > Duration::from_secs(5) {
            return Verdict::Hole(format!("{stressor}: its neighbour took {took:?}"));
        }
    }
    sandbox.close().await;
    if stressed.is_empty() {
        return Verdict::ControlFailed("no class of stressors ran".to_owned());
    }
    Verdict::Held(format!(
        "{} of {} classes ran ({}); the slowest neighbour took {} ms",
        stressed.len(),
        STRESSORS.len(),
        stressed.join(" "),
        slowest.as_millis()
    ))
}
