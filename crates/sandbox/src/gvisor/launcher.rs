//! The launcher: on the host's side, with the gateway's own rights and nothing of its memory. It gives init its namespaces and
//! its user, waits for its end or the gateway's, and says what was used. The gateway puts init into its cgroup before init is
//! let go.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::init;
use crate::jail::orders::{receive, receive_bytes, send};
use crate::jail::{take_control, wait_for_end};
use crate::process::cgroup;
use crate::profile::GvisorSettings;
use crate::sys::{self, Side};
use crate::{Language, Limits, Profile, Refused, Resources, Root};

/// The first of the users that sandboxes get where the service is root, beyond those of the built-in backend.
const HOST_UID_FIRST: u32 = 2_110_000_000;
const HOST_UIDS: u32 = 32_000_000;

/// What a sandbox is. Along come the guest's control, standard output and standard error.
#[derive(Deserialize, Serialize)]
pub(super) struct Order {
    pub(super) language: Language,
    pub(super) root: Root,
    pub(super) limits: Limits,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) resources: Resources,
    pub(super) gvisor: GvisorSettings,
    /// Names the sandbox on this machine, and its cgroup.
    pub(super) name: String,
    pub(super) host_uid: u32,
}

impl Order {
    pub(super) fn new(profile: &Profile, gvisor: GvisorSettings, name: String) -> Self {
        Self {
            language: profile.language,
            root: profile.root.clone(),
            limits: profile.limits.clone(),
            environment: profile.environment.clone(),
            resources: profile.resources,
            gvisor,
            name,
            host_uid: host_uid(),
        }
    }
}

/// A user of the host that nobody else is, where the service is root; otherwise the service's own.
fn host_uid() -> u32 {
    static SANDBOXES: AtomicU32 = AtomicU32::new(0);
    let own = rustix::process::getuid();
    if !own.is_root() {
        return own.as_raw();
    }
    // Apart by process, so that two gateways on one machine do not meet soon.
    let begun = SANDBOXES.fetch_add(1, Ordering::Relaxed);
    HOST_UID_FIRST + std::process::id().wrapping_mul(4096).wrapping_add(begun) % HOST_UIDS
}

/// From the launcher to the gateway.
#[derive(Deserialize, Serialize)]
pub(super) enum News {
    /// Init is there, and waits. With it: a handle on it.
    Born,
    Refused(Refused),
    /// `runsc` has ended, with this status.
    RunscEnded {
        status: i32,
    },
    /// Files are written.
    Written,
    /// All of it has ended.
    Gone {
        cpu_us: u64,
        memory_peak_bytes: u64,
    },
}

/// From the gateway to init.
#[derive(Deserialize, Serialize)]
pub(super) enum ToInit {
    /// Write these files, which stand in the memory that comes along, one after the other.
    Write { files: Vec<(String, u64)> },
    /// End `runsc` and reap all of it, so that what it used is counted where no cgroup does.
    End,
}

/// From the gateway to the launcher; between the two it talks to init alone.
#[derive(Deserialize, Eq, PartialEq, Serialize)]
pub(super) enum Told {
    /// Init may begin.
    Go,
    /// What was used is read, and the cgroup removed.
    Counted,
}

pub(super) fn main() -> i32 {
    let Ok(control) = take_control() else { return 1 };
    let Ok(Some((order, descriptors))) = receive::<Order>(&control) else { return 1 };
    match keep(&order, &control, descriptors) {
        Ok(()) => 0,
        Err(refused) => {
            let _nobody_listens = send(&control, &News::Refused(refused), &[]);
            1
        }
    }
}

fn keep(order: &Order, control: &OwnedFd, descriptors: Vec<OwnedFd>) -> Result<(), Refused> {
    let user = |error: io::Error| Refused::new("user_namespace", error);
    if rustix::process::getuid().is_root() {
        // The host's groups give rights to the host's files: none goes in.
        rustix::thread::set_thread_groups(&[]).map_err(|error| user(error.into()))?;
    }
    let (go, to_init) = io::pipe().map_err(Refused::jail)?;
    let namespaces = libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    let (pid, pidfd) = match sys::clone(u64::from(namespaces.unsigned_abs())).map_err(user)? {
        Side::Child => {
            drop(to_init);
            init::main(order, control, go, descriptors)
        }
        Side::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((go, descriptors));
    let admitted = give_user(order, pid).map_err(user).and_then(|()| let_go(control, &pidfd, to_init));
    if admitted.is_ok() {
        wait_for_end(control, &pidfd);
    }
    let _gone_already = pidfd_send_signal(&pidfd, Signal::KILL);
    bury(control, pid, &pidfd);
    if order.resources == Resources::Cgroup && !is_counted(control) {
        cgroup::remove_all_of(&order.name);
    }
    admitted
}

/// Whether the gateway has done it all; otherwise it is gone. What it still had to say to init is nobody's.
fn is_counted(control: &OwnedFd) -> bool {
    while let Ok(Some((bytes, _))) = receive_bytes(control) {
        if serde_json::from_slice(&bytes).is_ok_and(|told: Told| told == Told::Counted) {
            return true;
        }
    }
    false
}

/// Root inside is one user of the host, and there is no other.
fn give_user(order: &Order, pid: u32) -> io::Result<()> {
    let write = |name: &str, text: String| fs::write(format!("/proc/{pid}/{name}"), text);
    let is_root = rustix::process::getuid().is_root();
    let gid = if is_root { order.host_uid } else { rustix::process::getgid().as_raw() };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("0 {} 1", order.host_uid))?;
    write("gid_map", format!("0 {gid} 1"))
}

/// The gateway hears of init, does what it has to do before anything runs, and says so.
fn let_go(control: &OwnedFd, init: &OwnedFd, mut to_init: io::PipeWriter) -> Result<(), Refused> {
    send(control, &News::Born, &[init.as_fd()]).map_err(Refused::jail)?;
    let Some((Told::Go, _)) = receive(control).map_err(Refused::jail)? else {
        return Err(Refused::jail("the gateway is gone"));
    };
    to_init.write_all(b"g").map_err(Refused::jail)
}

/// Waits until init has ended, which it does when all others in its pid namespace have.
fn bury(control: &OwnedFd, pid: u32, pidfd: &OwnedFd) {
    while let Err(Errno::INTR) = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], None) {}
    while let Ok(Some(dead)) = sys::reap() {
        if dead.pid == pid {
            let cpu_us = u64::try_from(dead.cpu.as_micros()).unwrap_or(u64::MAX);
            let news = News::Gone { cpu_us, memory_peak_bytes: dead.memory_peak_bytes };
            let _nobody_listens = send(control, &news, &[]);
        }
    }
}
