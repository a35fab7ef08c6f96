//! What one program leaves to another, and how a run ends.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringfence_sandbox::{Ended, InputFile, Layer, Outcome, Program, Start, Unwatched};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::canary::random;
use crate::leftovers::Census;
use crate::probe::Verdict;
use crate::run::{Stage, Target, counts_together, outcome_text, run, run_once, without};

/// How much later than its time a run may be over, on a machine that does other things too.
pub(crate) const LATE_MAX: Duration = Duration::from_millis(1500);

pub(crate) const LIST: &[(&str, &str, bool)] = &[
    ("F01", "delete everything, then fill the disk", false),
    ("F07", "names of input files", true),
    ("F08", "artifacts that lead elsewhere (and F10)", false),
    ("F18", "fill every folder", true),
    ("F20", "files for the next program", true),
    ("K21", "Landlock, alone", true),
    ("K24", "writable and executable memory", true),
    ("P02k", "kill everything", true),
    ("P05", "fork bombs", false),
    ("P07", "a grandchild that keeps the output open", false),
    ("P08", "whoever does not want to end", false),
    ("N09", "a neighbour's sockets and memory", true),
    ("L02", "changes to the interpreter", true),
    ("L05", "cancelled, and hung up on", true),
    ("L06", "many at a time, each with its own token", true),
];

pub(crate) async fn play(stage: &mut Stage, target: &Target, id: &str) -> Verdict {
    let played = match id {
        "F01" => delete_everything(stage, target).await,
        "F07" => input_names(target).await,
        "F08" => artifacts(stage, target).await,
        "F18" => fill(target).await,
        "F20" => files_for_the_next(stage, target).await,
        "K21" => landlock_alone(stage, target).await,
        "K24" => executable_memory(target).await,
        "P02k" => kill_everything(stage, target).await,
        "P05" => fork_bombs(target).await,
        "P07" => open_output(target).await,
        "P08" => unwilling(target).await,
        "N09" => neighbour(stage, target).await,
        "L02" => changed_interpreter(target).await,
        "L05" => hung_up_on(stage, target).await,
        "L06" => many(stage, target).await,
        _ => Err("nobody plays it".to_owned()),
    };
    verdict(played)
}

/// `Err` is a hole, but where it says that a control failed.
pub(crate) fn verdict(played: Result<String, String>) -> Verdict {
    match played {
        Ok(note) => Verdict::Held(note),
        Err(why) => match why.strip_prefix("control: ") {
            Some(why) => Verdict::ControlFailed(why.to_owned()),
            None => Verdict::Hole(why),
        },
    }
}

/// A run that has to come to an outcome.
pub(crate) async fn must(target: &Target, source: &str) -> Result<Outcome, String> {
    run(&target.sandbox, source).await.map_err(|refused| format!("nothing ran: {refused}"))
}

pub(crate) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

async fn delete_everything(stage: &Stage, target: &Target) -> Result<String, String> {
    let manifest = || {
        let names = |folder: &str| -> BTreeSet<_> {
            fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name()).collect()
        };
        let folders = ["/", "/usr", "/usr/bin", "/usr/lib", "/etc", "/var/tmp"];
        (
            folders.map(names),
            fs::read(&stage.places.file).unwrap(),
            fs::metadata("/usr/bin/env").unwrap().len(),
        )
    };
    let before = manifest();
    let attack = "import os, subprocess\nopen('/work/own', 'w').close()\n\
        subprocess.run('rm -rf --no-preserve-root / 2>/dev/null; dd if=/dev/zero of=/work/x bs=1M count=64 2>/dev/null', shell=True)\n\
        print('own is gone', not os.path.exists('/work/own'))";
    let outcome = must(target, attack).await?;
    ensure(manifest() == before, || "the host's folders changed".to_owned())?;
    ensure(outcome.stdout.text.contains("own is gone True"), || {
        format!("control: it does not delete its own: {}{}", outcome.stdout.text, outcome.stderr.text)
    })?;
    let next = must(target, "import os\nprint(os.path.exists('/usr/bin/env'), os.listdir('/work'))").await?;
    ensure(next.stdout.text == "True ['in']\n", || format!("the next program finds {}", next.stdout.text))?;
    Ok("its own folders it does delete".to_owned())
}

async fn input_names(target: &Target) -> Result<String, String> {
    let with = |name: &str| Program {
        files: vec![InputFile { name: name.to_owned(), bytes: b"x".to_vec() }],
        ..Program::new("import os\nprint(os.listdir('/work/in'))")
    };
    let run = |program| target.sandbox.run(program, Arc::new(Unwatched), CancellationToken::new());
    let control = run(with("plain.csv")).await.map_err(|refused| format!("control: {refused}"))?;
    ensure(control.stdout.text == "['plain.csv']\n", || format!("control: {}", control.stdout.text))?;
    let long = "a".repeat(256);
    for name in [
        "../x",
        "/etc/x",
        "a/b",
        "..",
        ".",
        "",
        ".hidden",
        "a\0b",
        "a\nb",
        "x\u{202e}",
        "\u{ff0e}\u{ff0e}",
        "a\\b",
        &long,
    ] {
        match run(with(name)).await {
            Err(refused) if refused.layer == "input" => {}
            other => return Err(format!("{name:?}: {:?}", other.map(|outcome| outcome.ended))),
        }
    }
    let mut twice = with("plain.csv");
    twice.files.push(twice.files[0].clone());
    let twice = run(twice).await;
    ensure(twice.as_ref().is_err_and(|refused| refused.layer == "input"), || {
        format!("one name twice: {:?}", twice.map(|outcome| outcome.ended))
    })?;
    Ok("13 names and a double one refused; archives are not taken".to_owned())
}

const ARTIFACTS: &str = r"
import os, socket
os.chdir('/artifacts')
open('good.txt', 'w').write('good')
open('closed', 'w').close()
os.chmod('closed', 0)
for name, to in (('shadow', '/etc/shadow'), ('root', '/proc/1/root'), ('environ', '/proc/self/environ'), ('up', '../../../../etc/passwd'), ('in', '/work/in'), ('loop', 'loop'), ('canary', GIVEN['file'])):
    os.symlink(to, name)
try:
    os.mkfifo('pipe')
except OSError:
    pass
socket.socket(socket.AF_UNIX).bind('socket')
with open('sparse', 'wb') as file:
    try:
        file.truncate(1 << 40)
    except OSError:
        file.truncate(60 << 20)
os.makedirs('linked')
os.symlink('/usr', 'linked/usr')
for name in (b'new\nline', b'bad\xff\xfe', b'esc\x1b[2J', '\u202egnp.exe'.encode(), b'-rf', b' '):
    open(name, 'w').write('x')
top = os.getcwd()
try:
    for _ in range(5000):
        os.mkdir('d')
        os.chdir('d')
except OSError:
    pass
os.chdir(top)
os.mkdir('many')
try:
    for number in range(100000):
        open('many/%d' % number, 'x').close()
except OSError:
    pass
";

async fn artifacts(stage: &mut Stage, target: &Target) -> Result<String, String> {
    let began = Instant::now();
    let outcome = must(target, &stage.program(ARTIFACTS, &json!({}))).await?;
    let took = began.elapsed();
    ensure(outcome.stdout.text.contains("tried"), || format!("control: {}", outcome.stderr.text))?;
    ensure(stage.token_in(&outcome_text(&outcome)).is_none(), || "a file of the host's came out".to_owned())?;
    let names: Vec<&str> = outcome.artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    ensure(names.contains(&"good.txt"), || format!("control: a plain file does not come out: {names:?}"))?;
    let bad = ["shadow", "root", "environ", "up", "in", "loop", "canary", "pipe", "socket", "sparse"];
    ensure(!names.iter().any(|name| bad.contains(name) || name.starts_with("linked/")), || {
        format!("{names:?}")
    })?;
    ensure(outcome.artifacts.len() as u64 <= target.profile.limits.artifact_files, || "too many".to_owned())?;
    let all = outcome.left_out.iter().map(|left| left.name.as_str()).chain(names);
    let odd: Vec<_> = all.filter(|name| name.chars().any(char::is_control)).collect();
    ensure(odd.is_empty(), || format!("names with control characters: {odd:?}"))?;
    ensure(took < Duration::from_secs(15), || format!("it took {took:?}"))?;
    Ok(format!("{} handed back, {} named as left out", outcome.artifacts.len(), outcome.left_out.len()))
}

const FILL: &str = r"
import os
for folder in ('/work', '/tmp', '/dev/shm', '/artifacts'):
    written = 0
    try:
        for number in range(64):
            with open('%s/fill%d' % (folder, number), 'wb') as file:
                for _ in range(4):
                    written += file.write(bytes(1 << 20))
                    file.flush()
    except OSError:
        pass
    for number in range(64):
        if os.path.exists('%s/fill%d' % (folder, number)):
            os.unlink('%s/fill%d' % (folder, number))
    made = 0
    try:
        for made in range(30000):
            open('%s/i%d' % (folder, made), 'x').close()
    except OSError:
        pass
    for number in range(made):
        os.unlink('%s/i%d' % (folder, number))
    print(folder, written >> 20, made)
";

async fn fill(target: &Target) -> Result<String, String> {
    let mut profile = target.profile.clone();
    profile.ready = 0;
    profile.limits.work_bytes = 8 << 20;
    profile.limits.temporary_bytes = 8 << 20;
    profile.limits.artifact_bytes = 8 << 20;
    profile.limits.files = 1000;
    let outcome = run_once(&profile, FILL).await.map_err(|refused| refused.to_string())?;
    let rows = rows(&outcome.stdout.text);
    ensure(rows.len() == 4, || format!("control: {} {}", outcome.stdout.text, outcome.stderr.text))?;
    let over = rows.iter().any(|row| row[0] > 8 || row[1] > 1000);
    ensure(!over, || format!("more than may be: {}", outcome.stdout.text))?;
    profile.limits.work_bytes = 16 << 20;
    profile.limits.files = 2000;
    let control = run_once(&profile, FILL).await.map_err(|refused| refused.to_string())?;
    let wider = rows_of(&control);
    ensure(wider.first().is_some_and(|row| row[0] > 8 && row[1] > 1000), || {
        format!("control: with room there is no more: {}", control.stdout.text)
    })?;
    Ok(String::new())
}

fn rows_of(outcome: &Outcome) -> Vec<Vec<u64>> {
    rows(&outcome.stdout.text)
}

fn rows(text: &str) -> Vec<Vec<u64>> {
    text.lines().map(|line| line.split(' ').skip(1).filter_map(|word| word.parse().ok()).collect()).collect()
}

async fn files_for_the_next(stage: &Stage, target: &Target) -> Result<String, String> {
    let paths = "('/tmp/x', '/work/x', '/work/.bashrc', '/work/sitecustomize.py', '/work/usercustomize.py', '/work/json.py', '/work/.config/pip/pip.conf', '/dev/shm/x', '/artifacts/x', '/work/.local/lib/python3.11/site-packages/evil.pth')";
    let leave = format!(
        "import os\nfor path in {paths}:\n    os.makedirs(os.path.dirname(path), exist_ok=True)\n    open(path, 'w').write('print(\"{}\")')\nprint('left')",
        stage.places.prefix
    );
    let look = format!("import os, json\nprint([path for path in {paths} if os.path.exists(path)])");
    let left = must(target, &leave).await?;
    ensure(left.stdout.text == "left\n", || format!("control: {}", left.stderr.text))?;
    for _ in 0..3 {
        let found = must(target, &look).await?;
        ensure(found.stdout.text == "[]\n", || format!("the next program finds {}", found.stdout.text))?;
    }
    let both = must(target, &format!("{leave}\n{look}")).await?;
    ensure(both.stdout.text.contains("/tmp/x"), || format!("control: {}", both.stdout.text))?;
    Ok(String::new())
}

async fn landlock_alone(stage: &mut Stage, target: &Target) -> Result<String, String> {
    let source = r"
attempt('a file of the host', reads(GIVEN['file']))
attempt('a link to it', lambda: os.link(GIVEN['file'], '/tmp/link') or reads('/tmp/link')())
attempt('by its folder', lambda: open(os.open(os.path.dirname(GIVEN['file']), os.O_PATH) and '/tmp/../' + GIVEN['file']).read())
attempt('tighter only', lambda: call(446, 99, 0) >= 0)
";
    let source = stage.program(source, &json!({}));
    let alone = without(&target.profile, &[Layer::OwnRoot]);
    let held = run_once(&alone, source.clone()).await.map_err(|refused| refused.to_string())?;
    ensure(stage.token_in(&held.stdout.text).is_none(), || "Landlock, alone, does not hold".to_owned())?;
    let neither = without(&target.profile, &[Layer::OwnRoot, Layer::Landlock]);
    let control = run_once(&neither, source).await.map_err(|refused| refused.to_string())?;
    ensure(stage.token_in(&control.stdout.text).is_some(), || format!("control: {}", control.stdout.text))?;
    Ok(String::new())
}

async fn executable_memory(target: &Target) -> Result<String, String> {
    let source = "import mmap\nmemory = mmap.mmap(-1, 4096, prot=7)\nprint('works')";
    let outcome = must(target, source).await?;
    ensure(outcome.stdout.text == "works\n", || format!("control: {}", outcome.stderr.text))?;
    Ok("works, as just-in-time compilers need; no profile forbids it".to_owned())
}

async fn kill_everything(stage: &mut Stage, target: &Target) -> Result<String, String> {
    let beside = run(&target.sandbox, "import time\ntime.sleep(0.8)\nprint('lives')");
    let attack = stage.program(include_str!("../programs/p02_kill_all.py"), &json!({}));
    let attack = run(&target.sandbox, attack);
    let (beside, attack) = tokio::join!(beside, attack);
    let beside = beside.map_err(|refused| format!("the neighbour: {refused}"))?;
    ensure(beside.stdout.text == "lives\n", || format!("the neighbour ended with {:?}", beside.ended))?;
    stage.contacts()?;
    let attack = attack.map_err(|refused| format!("the attacker: {refused}"))?;
    ensure(attack.receipt.nothing_left, || "something is left".to_owned())?;
    must(target, "pass").await?;
    Ok("no control: nothing that it could kill is safe to lose".to_owned())
}

const BOMB: &str = "
import os, threading, time
count = 0
try:
    while count < 3000:
        if KIND == 'fork':
            if os.fork() == 0:
                time.sleep(60)
        else:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        count += 1
except (OSError, RuntimeError):
    pass
print(count, flush=True)
os._exit(0)
";

async fn fork_bombs(target: &Target) -> Result<String, String> {
    let mut profile = target.profile.clone();
    profile.ready = 0;
    profile.limits.processes = 32;
    // Counted by process and with the room that a thread only sets aside, it would be memory that holds them.
    profile.limits.memory_bytes = if counts_together(&profile) { 256 << 20 } else { 16 << 30 };
    for kind in ["fork", "thread"] {
        let source = format!("KIND = '{kind}'{BOMB}");
        let bomb = run_once(&profile, source.clone());
        let host = async {
            let began = Instant::now();
            let forked = tokio::process::Command::new("/usr/bin/true").status().await;
            (forked.is_ok_and(|status| status.success()), began.elapsed())
        };
        let (outcome, (forks, _)) = tokio::join!(bomb, host);
        let outcome = outcome.map_err(|refused| refused.to_string())?;
        ensure(forks, || "the host could not fork beside it".to_owned())?;
        let count: u64 =
            outcome.stdout.text.trim().parse().map_err(|_| format!("control: {kind}: {outcome:?}"))?;
        ensure(count <= 33, || format!("{count} of kind {kind} with a limit of 32"))?;
        let mut wider = profile.clone();
        wider.limits.processes = 100;
        let control = run_once(&wider, source).await.map_err(|refused| refused.to_string())?;
        let more: u64 = control.stdout.text.trim().parse().unwrap_or(0);
        ensure(more > 33, || format!("control: with a wider limit there are {more}"))?;
    }
    // One that nothing but its time ends.
    profile.limits.wall = Duration::from_secs(1);
    let began = Instant::now();
    let endless = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass";
    let outcome = run_once(&profile, endless).await.map_err(|refused| refused.to_string())?;
    let ended = matches!(outcome.ended, Ended::Timeout | Ended::OutOfMemory);
    ensure(ended && outcome.receipt.nothing_left, || format!("{:?}, {:?}", outcome.ended, outcome.receipt))?;
    ensure(began.elapsed() < Duration::from_secs(6), || format!("it took {:?}", began.elapsed()))?;
    Ok(String::new())
}

async fn open_output(target: &Target) -> Result<String, String> {
    let began = Instant::now();
    let name = random();
    let source = format!(
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        os.execv('/usr/bin/sleep', ['{name}', '3600'])\n    os._exit(0)\nos.wait()\nprint('done')"
    );
    let outcome = must(target, &source).await?;
    let took = began.elapsed();
    ensure(outcome.ended == Ended::Exit(0) && outcome.stdout.text == "done\n", || format!("{outcome:?}"))?;
    ensure(took < LATE_MAX * 2, || format!("it held the call for {took:?}"))?;
    ensure(!crate::leftovers::is_running(&name), || "the grandchild lives".to_owned())?;
    Ok(String::new())
}

async fn unwilling(target: &Target) -> Result<String, String> {
    let mut profile = target.profile.clone();
    profile.ready = 0;
    profile.limits.wall = Duration::from_millis(500);
    let sandbox = ringfence_sandbox::Sandbox::new(profile);
    sandbox.warm().await.map_err(|refused| refused.to_string())?;
    let everything = "import os, signal, time\nfor number in range(1, 65):\n    try: signal.signal(number, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n";
    let mut slowest = Duration::ZERO;
    for unwilling in [
        "while True: pass",
        "os.kill(os.getpid(), signal.SIGSTOP)\nwhile True: pass",
        "while True:\n    try: time.sleep(100)\n    except BaseException: pass",
        "import ctypes\nctypes.CDLL(None).vfork()\ntime.sleep(100)",
        "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\nsignal.signal(signal.SIGALRM, lambda *_: None)\nwhile True: pass",
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nsignal.sigwait({50})",
        "r, w = os.pipe()\nos.read(r, 1)",
        "import fcntl\nf = open('/work/x', 'w')\nif os.fork() == 0:\n    fcntl.flock(f, fcntl.LOCK_EX)\n    time.sleep(100)\ntime.sleep(0.1)\ng = open('/work/x')\nfcntl.flock(g, fcntl.LOCK_EX)",
        "try:\n    while True: pass\nfinally:\n    while True: pass",
    ] {
        let began = Instant::now();
        let outcome =
            run(&sandbox, format!("{everything}{unwilling}")).await.map_err(|refused| refused.to_string())?;
        let took = began.elapsed();
        slowest = slowest.max(took);
        ensure(outcome.ended == Ended::Timeout, || format!("control: {unwilling}: {outcome:?}"))?;
        ensure(outcome.receipt.nothing_left, || format!("{unwilling}: something is left"))?;
        ensure(took < Duration::from_millis(500) + LATE_MAX, || format!("{unwilling}: {took:?}"))?;
    }
    sandbox.close().await;
    Ok(format!("the slowest of 9 was over {} ms after its time", slowest.as_millis().saturating_sub(500)))
}

async fn neighbour(stage: &mut Stage, target: &Target) -> Result<String, String> {
    let (name, key) = (random(), u32::from_str_radix(&random()[..7], 16).unwrap() | 1);
    let token = format!("{}-host-neighbour-{}", stage.places.prefix, random());
    let serve = format!(
        r"
import ctypes, os, socket, sys, threading, time
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
token = b'{token}'
server = socket.socket(socket.AF_UNIX)
server.bind('\0{name}')
server.listen()
def answer():
    while True:
        connection, _ = server.accept()
        connection.sendall(token)
        connection.close()
threading.Thread(target=answer, daemon=True).start()
segment = libc.shmget({key}, 4096, 0o1666)
if segment >= 0:
    ctypes.memmove(libc.shmat(segment, None, 0), token, len(token))
for path in ('/dev/shm/{name}', '/tmp/{name}', '/work/{name}'):
    open(path, 'wb').write(token)
print('up', flush=True)
SELF
time.sleep(3)
"
    );
    let reach = format!(
        r"
import ctypes, os, socket
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
try:
    client = socket.socket(socket.AF_UNIX)
    client.connect('\0{name}')
    print('socket', client.recv(400))
except OSError as error:
    print(error)
segment = libc.shmget({key}, 0, 0)
if segment >= 0:
    print('segment', ctypes.string_at(libc.shmat(segment, None, 0o10000), 100))
for path in ('/dev/shm/{name}', '/tmp/{name}', '/work/{name}'):
    if os.path.exists(path):
        print(path, open(path).read())
"
    );
    // Without a cgroup there are no segments: nobody could count them.
    let expected = if counts_together(&target.profile) { 5 } else { 4 };
    let both =
        must(target, &serve.replace("SELF", &format!("exec({reach:?})\nsys.stdout.flush()\nos._exit(0)")))
            .await?;
    ensure(both.stdout.text.matches(&token).count() >= expected, || {
        format!("control: {} {}", both.stdout.text, both.stderr.text)
    })?;
    let cancelled = CancellationToken::new();
    let serving =
        target.sandbox.run(Program::new(serve.replace("SELF", "")), Arc::new(Unwatched), cancelled.clone());
    let reaching = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let reached = run(&target.sandbox, reach).await;
        cancelled.cancel();
        reached
    };
    let (served, reached) = tokio::join!(serving, reaching);
    let served = served.map_err(|refused| refused.to_string())?;
    ensure(served.stdout.text == "up\n", || format!("control: {}", served.stderr.text))?;
    let reached = outcome_text(&reached.map_err(|refused| refused.to_string())?);
    ensure(!reached.contains(&token), || format!("a neighbour was reached: {reached}"))?;
    Ok(String::new())
}

const CHANGES: &str = r"
import atexit, builtins, gc, json, os, sys, threading, time
builtins.print_ = print
builtins.open = None
builtins.len = lambda _: 7
json.dumps = lambda _: 'changed'
sys.modules['os'].getcwd = lambda: 'changed'
sys.modules['evil'] = json
sys.path.insert(0, '/changed')
os.environ['CHANGED'] = '1'
sys.setrecursionlimit(77)
gc.disable()
atexit.register(time.sleep, 0)
threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
sys.settrace(lambda *_: None)
os.umask(0)
os.write(1, b'changed\n')
os._exit(0)
";
const PRISTINE: &str = r"
import builtins, gc, json, os, sys, threading
print(hasattr(builtins, 'print_'), callable(open), len([1]), json.dumps([1]), os.getcwd(), 'evil' in sys.modules, '/changed' in sys.path, 'CHANGED' in os.environ, sys.getrecursionlimit(), gc.isenabled(), threading.active_count(), sys.gettrace(), os.umask(0o77) == 0)
";

async fn changed_interpreter(target: &Target) -> Result<String, String> {
    let expected = must(target, PRISTINE).await?.stdout.text;
    ensure(expected.starts_with("False True 1 [1] /work False False False"), || {
        format!("control: {expected}")
    })?;
    for _ in 0..6 {
        let changed = must(target, CHANGES).await?;
        ensure(changed.stdout.text == "changed\n", || format!("control: {}", changed.stderr.text))?;
        let found = must(target, PRISTINE).await?.stdout.text;
        ensure(found == expected, || format!("the next program finds {found}, not {expected}"))?;
    }
    Ok(String::new())
}

async fn hung_up_on(stage: &mut Stage, target: &Target) -> Result<String, String> {
    let before = Census::take();
    let endless = || {
        let name = random();
        (
            format!(
                "import os, subprocess\nsubprocess.Popen(['{name}', '3600'], executable='/usr/bin/sleep')\nwhile True: pass"
            ),
            name,
        )
    };
    let (source, name) = endless();
    let cancelled = CancellationToken::new();
    let running = target.sandbox.run(Program::new(source), Arc::new(Unwatched), cancelled.clone());
    let cancelling = async {
        crate::leftovers::wait_until(|| crate::leftovers::is_running(&name)).await;
        let began = Instant::now();
        cancelled.cancel();
        began
    };
    let (outcome, began) = tokio::join!(running, cancelling);
    let outcome = outcome.map_err(|refused| refused.to_string())?;
    ensure(outcome.ended == Ended::Cancelled && outcome.receipt.nothing_left, || format!("{outcome:?}"))?;
    ensure(began.elapsed() < LATE_MAX, || format!("cancelling took {:?}", began.elapsed()))?;
    ensure(!crate::leftovers::is_running(&name), || "its child lives".to_owned())?;
    // Whoever waits gives up, at whatever moment: while it is built, while it runs, while it ends.
    let times = if stage.fast { 30 } else { 300 };
    for time in 0..times {
        let (source, _) = endless();
        let after = Duration::from_micros(time * 1_000_000 / 60 % 60_000);
        let _given_up = tokio::time::timeout(after, run(&target.sandbox, source)).await;
    }
    before.settles("after giving up").await?;
    Ok(format!("{times} given up"))
}

async fn many(stage: &mut Stage, target: &Target) -> Result<String, String> {
    let (total, together) = if stage.fast { (64, 8) } else { (500, 16) };
    let tokens: Vec<String> = (0..total).map(|_| random()).collect();
    let gate = Arc::new(tokio::sync::Semaphore::new(together));
    let mut tasks = tokio::task::JoinSet::new();
    for own in tokens.clone() {
        let (sandbox, gate) = (target.sandbox.clone(), gate.clone());
        tasks.spawn(async move {
            let _turn = gate.acquire_owned().await;
            let source = format!(
                "import glob, os, socket, sys\nown = '{own}'\nprint(own)\nprint(own, file=sys.stderr)\n\
                 for folder in ('/work', '/tmp', '/dev/shm', '/artifacts'):\n    open(folder + '/token', 'x').write(own)\n\
                 s = socket.socket(socket.AF_UNIX); s.bind('\\0token')\n\
                 for path in glob.glob('/tmp/*') + glob.glob('/work/*') + glob.glob('/dev/shm/*'):\n    if os.path.isfile(path): print(open(path).read())\nown"
            );
            (own, run(&sandbox, source).await)
        });
    }
    let mut identities = BTreeSet::new();
    while let Some(done) = tasks.join_next().await {
        let (own, outcome) = done.map_err(|error| error.to_string())?;
        let outcome = outcome.map_err(|refused| refused.to_string())?;
        let text = outcome_text(&outcome);
        let others = tokens.iter().filter(|token| **token != own && text.contains(token.as_str())).count();
        ensure(others == 0, || "a program has another's token".to_owned())?;
        ensure(text.matches(&own).count() == 7, || {
            format!("a program's own token is lost: {:?}, {:?}, {text}", outcome.ended, outcome.value)
        })?;
        ensure(outcome.receipt.nothing_left, || "something is left".to_owned())?;
        identities.insert(outcome.receipt.host_uid);
    }
    let is_root = rustix::process::getuid().is_root();
    ensure(!is_root || identities.len() > together, || format!("{} users of the host", identities.len()))?;
    let way = if target.profile.start == Start::Fork { "forked" } else { "started" };
    Ok(format!("{total} {way}, {together} at a time, {} users of the host", identities.len()))
}
