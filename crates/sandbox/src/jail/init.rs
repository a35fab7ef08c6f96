//! Init: the first process inside. It confines itself step by step, starts the program, and reaps until the program ends;
//! when it exits, the kernel kills whatever else is still in its pid namespace.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::process::{Command, Stdio};

use rustix::process::{
    DumpableBehavior, Signal, WaitOptions, set_dumpable_behavior, set_parent_process_death_signal, wait,
};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};

use super::orders::Orders;
use super::{confine, filter, root};
use crate::sys;
use crate::{Ended, Layer, Refused};

/// The user inside: never 0.
pub(super) const UID: u32 = 1000;

/// What init tells the launcher.
#[derive(Deserialize, Serialize)]
pub(super) enum Word {
    Refused(Refused),
    Ready { landlock_abi: u32 },
    Ended(Ended),
}

pub(super) fn main(orders: &Orders, go: io::PipeReader, mut words: io::PipeWriter) -> ! {
    let confined = confine(orders, go);
    let word = match &confined {
        Ok(landlock_abi) => Word::Ready { landlock_abi: *landlock_abi },
        Err(refused) => Word::Refused(refused.clone()),
    };
    say(&mut words, &word);
    if confined.is_ok() {
        let ended = run(orders).unwrap_or(Ended::Exit(127));
        say(&mut words, &Word::Ended(ended));
    }
    std::process::exit(0)
}

fn say(words: &mut io::PipeWriter, word: &Word) {
    let json = serde_json::to_vec(word).unwrap_or_default();
    let mut bytes = u32::try_from(json.len()).unwrap_or(0).to_be_bytes().to_vec();
    bytes.extend(json);
    // If nobody listens any more, we are about to be killed.
    let _nobody_listens = words.write_all(&bytes);
}

/// Every layer, in the one order that works: what needs rights first, then the rights go, the system call filter last.
fn confine(orders: &Orders, go: io::PipeReader) -> Result<u32, Refused> {
    become_nobody(go)?;
    if orders.has(Layer::NoNestedNamespaces) {
        // This kernel table belongs to the user namespace of whoever opens it (`kernel/ucount.c`).
        let none = fs::write("/proc/sys/user/max_user_namespaces", "0");
        none.map_err(|error| Refused::new("no_nested_namespaces", error))?;
    }
    let host_name = rustix::system::sethostname(b"sandbox");
    host_name.map_err(|error| Refused::new("other_namespaces", error))?;
    let place = root::build(orders)?;
    sys::join_new_session_keyring().map_err(|error| Refused::new("no_privileges", error))?;
    if orders.has(Layer::Limits) {
        confine::limit(orders)?;
    }
    if orders.has(Layer::NoPrivileges) {
        confine::give_up_privileges()?;
    }
    let landlock_abi =
        if orders.has(Layer::Landlock) { confine::landlock(orders.landlock_abi_min, &place)? } else { 0 };
    if orders.has(Layer::Seccomp) {
        filter::install(orders.resources)?;
    }
    Ok(landlock_abi)
}

/// Waits until the launcher has given us an identity, takes it on, and binds our life to the launcher's.
fn become_nobody(mut go: io::PipeReader) -> Result<(), Refused> {
    let user = |error: rustix::io::Errno| Refused::new("user_namespace", error);
    go.read_exact(&mut [0]).map_err(|error| Refused::new("jail", error))?;
    let (uid, gid) = (rustix::process::Uid::from_raw(UID), rustix::process::Gid::from_raw(UID));
    set_thread_res_gid(gid, gid, gid).map_err(user)?;
    set_thread_res_uid(uid, uid, uid).map_err(user)?;
    // After the change of user, which would clear both.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(user)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(user)?;
    // A launcher that died before it could be bound has closed its end.
    let mut fds = [rustix::event::PollFd::new(&go, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let is_alone = || rustix::process::getppid().is_some();
    match rustix::event::poll(&mut fds, Some(&now)) {
        Ok(_) if !is_alone() => {}
        _ => return Err(Refused::new("jail", "the launcher is gone")),
    }
    rustix::process::setsid().map_err(user)?;
    Ok(())
}

/// Starts the program and reaps until it ends.
fn run(orders: &Orders) -> io::Result<Ended> {
    let inside = root::program_folder(orders);
    let program = Command::new(orders.language.interpreter())
        .args(orders.language.flags())
        .arg(format!("{inside}/{}", orders.language.file_name()))
        .env_clear()
        .envs([
            ("PATH", "/usr/bin:/bin"),
            ("HOME", "/work"),
            ("TMPDIR", "/tmp"),
            ("LANG", "C.UTF-8"),
            ("LC_ALL", "C.UTF-8"),
        ])
        .envs(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"].map(|name| (name, "1")))
        .env("PYTHONUNBUFFERED", "1")
        .current_dir(root::work_folder(orders))
        .stdin(Stdio::null())
        .spawn();
    let program = match program {
        Ok(program) => i32::try_from(program.id()).unwrap_or(0),
        Err(error) => {
            let _nobody_reads = writeln!(io::stderr(), "the interpreter could not be started: {error}");
            return Ok(Ended::Exit(127));
        }
    };
    loop {
        let Some((pid, status)) = wait(WaitOptions::empty())? else { continue };
        if pid.as_raw_nonzero().get() == program {
            let signal = status.terminating_signal().map(Ended::Signal);
            return Ok(signal.unwrap_or_else(|| Ended::Exit(status.exit_status().unwrap_or(0))));
        }
    }
}
