//! The guest: first process inside the sandbox, with the program's own rights. It puts up the system call filter, starts the
//! interpreter, passes on what that says, and hands out the artifacts. Nothing that must hold depends on it but the filter, which
//! is up before the program is known.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{DumpableBehavior, Pid, Signal, kill_process, set_dumpable_behavior};
use serde::{Deserialize, Serialize};

use super::talk;
use crate::jail::{DRIVER, environment, filter};
use crate::process::artifacts::{self, Collected};
use crate::{Language, Limits, Refused, Resources};

/// How much of an artifact goes out at once.
const CHUNK: usize = 64 << 10;

/// What the guest is there for. Its one argument.
#[derive(Deserialize, Serialize)]
pub(super) struct Task {
    pub(super) language: Language,
    pub(super) resources: Resources,
    pub(super) limits: Limits,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) interpreter: String,
}

/// Where it is written to, by several threads.
#[derive(Clone)]
struct Gateway(Arc<Mutex<UnixStream>>);

impl Gateway {
    fn say(&self, kind: u8, status: i32, bytes: &[u8]) -> io::Result<()> {
        talk::write(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), kind, status, bytes)
    }
}

pub(super) fn main() -> i32 {
    let Some(task) = std::env::args().nth(1).and_then(|text| serde_json::from_str::<Task>(&text).ok()) else {
        return 1;
    };
    let Ok((gateway, orders)) = take_control() else { return 1 };
    match serve(&task, &gateway, orders) {
        Ok(()) => 0,
        Err(refused) => {
            let said = format!("{}\0{}", refused.layer, refused.reason);
            let _nobody_listens = gateway.say(talk::REFUSED, 0, said.as_bytes());
            1
        }
    }
}

/// The control socket comes as standard input, the one way in that `runsc` has.
fn take_control() -> io::Result<(Gateway, UnixStream)> {
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    let orders = UnixStream::from(control);
    Ok((Gateway(Arc::new(Mutex::new(orders.try_clone()?))), orders))
}

fn serve(task: &Task, gateway: &Gateway, mut orders: UnixStream) -> Result<(), Refused> {
    // Nobody inside looks into this process.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(Refused::jail)?;
    filter::install(filter::Kind { resources: task.resources, egress: false })?;
    let mut driver = match task.language {
        Language::Python => Some(start_driver(task, gateway)?),
        Language::Bash | Language::Node => {
            gateway.say(talk::READY, 0, b"").map_err(Refused::jail)?;
            None
        }
    };
    while let Ok(told) = talk::read(&mut orders) {
        match (told.kind, &mut driver) {
            (talk::PROGRAM, Some(driver)) => driver.write_all(&told.bytes).map_err(Refused::jail)?,
            (talk::PROGRAM, None) => {
                let file = format!("/program/{}", task.language.file_name());
                let child = start(task, &[&file])?;
                let gateway = gateway.clone();
                std::thread::spawn(move || say_end(&gateway, child, || ()));
            }
            (talk::COLLECT, _) => {
                if told.status == 1 {
                    kill_others();
                }
                hand_out(task, gateway).map_err(Refused::jail)?;
            }
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// Starts the interpreter with the driver in it, whose words are passed on.
fn start_driver(task: &Task, gateway: &Gateway) -> Result<UnixStream, Refused> {
    let (ours, theirs) = UnixStream::pair().map_err(Refused::jail)?;
    let theirs = OwnedFd::from(theirs);
    // Without CLOEXEC, so that it comes along.
    let handed_on = rustix::io::dup(&theirs).map_err(Refused::jail)?;
    let (source, number) = (format!("{DRIVER}\nmain()\n"), handed_on.as_raw_fd().to_string());
    let child = start(task, &["-S", "-c", &source, &number])?;
    let mut driver = ours.try_clone().map_err(Refused::jail)?;
    let to_end = ours.try_clone().map_err(Refused::jail)?;
    let (of_driver, of_end) = (gateway.clone(), gateway.clone());
    let passing = std::thread::spawn(move || pass_on(&of_driver, &mut driver));
    // A child of the interpreter may hold the driver's end open; what the driver itself has said is there by now.
    let all_is_said = move || {
        let _gone_already = to_end.shutdown(Shutdown::Read);
        let _it_panicked = passing.join();
    };
    std::thread::spawn(move || say_end(&of_end, child, all_is_said));
    Ok(ours)
}

fn pass_on(gateway: &Gateway, driver: &mut UnixStream) {
    while let Ok(said) = talk::read(driver) {
        let is_known = [talk::READY, talk::DONE, talk::VALUE].contains(&said.kind);
        if !is_known || gateway.say(said.kind, said.status, &said.bytes).is_err() {
            return;
        }
    }
}

fn start(task: &Task, arguments: &[&str]) -> Result<Child, Refused> {
    let mut spawn = Command::new(&task.interpreter);
    spawn.args(task.language.flags()).args(arguments);
    environment(&mut spawn, task.language, &task.environment, false);
    let started = spawn.current_dir("/work").stdin(Stdio::null()).spawn();
    let interpreter = &task.interpreter;
    started.map_err(|error| {
        Refused::new("interpreter", format!("`{interpreter}` could not be started: {error}"))
    })
}

fn say_end(gateway: &Gateway, mut child: Child, all_is_said: impl FnOnce()) {
    let Ok(status) = child.wait() else { return };
    all_is_said();
    let status = status.signal().map_or_else(|| status.code().unwrap_or(1), |signal| -signal);
    let _nobody_listens = gateway.say(talk::ENDED, status, b"");
}

/// Whoever forks while this goes on is met again on the next round; whoever goes on forking is stopped with the sandbox.
fn kill_others() {
    let own = std::process::id();
    for _ in 0..8 {
        let Ok(entries) = std::fs::read_dir("/proc") else { return };
        let others = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let others: Vec<u32> = others.filter(|pid| *pid != own).collect();
        let killed = others.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?));
        let killed = killed.filter(|pid| kill_process(*pid, Signal::KILL).is_ok()).count();
        if killed == 0 {
            return;
        }
    }
}

fn hand_out(task: &Task, gateway: &Gateway) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let collected = open("/artifacts", flags, Mode::empty())
        .map(|folder| artifacts::collect(&folder, &task.limits))
        .unwrap_or_default();
    let Collected { artifacts, left_out } = collected;
    for artifact in artifacts {
        gateway.say(talk::ARTIFACT, 0, artifact.name.as_bytes())?;
        let mut rest = artifact.bytes.as_slice();
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = rest.read(&mut chunk)?;
            let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            gateway.say(talk::BYTES, 0, bytes)?;
        }
    }
    for left_out in left_out {
        gateway.say(talk::LEFT_OUT, 0, format!("{}\0{}", left_out.name, left_out.why).as_bytes())?;
    }
    gateway.say(talk::COLLECTED, 0, b"")
}
