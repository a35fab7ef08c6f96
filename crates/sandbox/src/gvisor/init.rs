//! Init: first process of a pid namespace, root of a user namespace that is one user of the host. It builds the bundle, starts
//! `runsc`, and writes files into what the sandbox sees; when it ends, the kernel kills everything.

use std::fs;
use std::io::{self, PipeReader, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, getrlimit, pidfd_open,
    set_dumpable_behavior, set_parent_process_death_signal, setrlimit, wait,
};
use rustix::thread::{Gid, Uid, set_thread_res_gid, set_thread_res_uid};

use super::bundle::{self, Place};
use super::launcher::{News, Order, ToInit};
use crate::jail::orders::{receive, send};
use crate::profile::GvisorSettings;
use crate::{Refused, Resources};

/// Threads of `runsc` itself: the sentry's, the gofer's, and of the one that waits for both.
const THREADS: u64 = 160;

/// What the cgroup counts, or the user namespace: for one process inside some five of the host's, the one that is traced and
/// threads of the sentry's. The sentry itself refuses a process too many; this is for one that no longer does, and it ends it.
pub(super) fn threads(processes: u64) -> u64 {
    processes.saturating_mul(6).saturating_add(THREADS)
}

pub(super) fn main(order: &Order, words: &OwnedFd, go: PipeReader, descriptors: Vec<OwnedFd>) -> ! {
    let lived = settle(go)
        .and_then(|()| start(order, descriptors))
        .and_then(|(place, runsc)| live(words, &place, runsc));
    if let Err(refused) = lived {
        let _nobody_listens = send(words, &News::Refused(refused), &[]);
    }
    std::process::exit(0)
}

/// Takes on its identity, and sees its own processes in place of the host's.
fn settle(mut go: PipeReader) -> Result<(), Refused> {
    let user = |error: Errno| Refused::new("user_namespace", error);
    go.read_exact(&mut [0]).map_err(|_| Refused::jail("the launcher is gone"))?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).map_err(user)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).map_err(user)?;
    // After the change of user, which clears both.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(user)?;
    set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(user)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    let layer = |error: Errno| Refused::new("pid_namespace", error);
    mount_change("/", private).map_err(layer)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None).map_err(layer)
}

fn start(order: &Order, descriptors: Vec<OwnedFd>) -> Result<(Place, Child), Refused> {
    // Before the bundle covers the folder that it may be in.
    let runtime = runtime(&order.gvisor)?;
    let place = bundle::build(order)?;
    limit(order)?;
    let mut descriptors = descriptors.into_iter();
    let (Some(control), Some(out), Some(err)) = (descriptors.next(), descriptors.next(), descriptors.next())
    else {
        return Err(Refused::jail("an order lacks its descriptors"));
    };
    let mut spawn = Command::new(format!("/proc/self/fd/{}", runtime.as_raw_fd()));
    spawn.env_clear().current_dir("/");
    spawn.args(["--rootless", "--network=none", "--ignore-cgroups"]);
    spawn.arg(format!("--platform={}", order.gvisor.platform));
    spawn.args(["--root", bundle::STATE, "run", "--bundle", bundle::BUNDLE, "sandbox"]);
    let runsc = spawn.stdin(Stdio::from(control)).stdout(Stdio::from(out)).stderr(Stdio::from(err)).spawn();
    let shown = order.gvisor.runtime.display();
    Ok((place, runsc.map_err(|error| refused(&format!("`{shown}` could not be started: {error}")))?))
}

fn runtime(settings: &GvisorSettings) -> Result<OwnedFd, Refused> {
    let shown = settings.runtime.display();
    if !settings.runtime.is_absolute() {
        return Err(refused(&format!("`{shown}` is not an absolute path")));
    }
    open(&settings.runtime, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| refused(&format!("`{shown}`: {error}")))
}

/// What is in the way, and what to do about it.
pub(super) fn refused(reason: &str) -> Refused {
    let advice = "install runsc (Debian: `apt-get install runsc`) or name where it is, and a platform that it has here";
    Refused::new("gvisor", format!("{reason}; {advice}"))
}

/// What each process of `runsc` may have; the program's own limits are the sentry's to keep.
fn limit(order: &Order) -> Result<(), Refused> {
    // 1 and not 0: a pipe in `core_pattern` runs as root on the host, and only 1 keeps it from running (fs/coredump.c).
    let mut wanted = vec![(Resource::Core, 1)];
    if order.resources == Resources::RlimitsOnly {
        wanted.push((Resource::Nproc, threads(order.limits.processes)));
    }
    wanted.into_iter().try_for_each(|(resource, most)| {
        let most = getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(|error| Refused::new("limits", format!("{resource:?}: {error}")))
    })
}

/// Writes files that come in, until `runsc` or the gateway's interest ends.
fn live(words: &OwnedFd, place: &Place, mut runsc: Child) -> Result<(), Refused> {
    let pid = i32::try_from(runsc.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Refused::jail("`runsc` has no id"))?;
    let ended = pidfd_open(pid, PidfdFlags::empty()).map_err(Refused::jail)?;
    loop {
        let mut fds = [PollFd::new(words, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            Err(error) => return Err(Refused::jail(error)),
            Ok(_) => {}
        }
        let [told, has_ended] = fds.map(|fd| !fd.revents().is_empty());
        if told {
            let Some((command, descriptors)) = receive(words).map_err(Refused::jail)? else { return Ok(()) };
            let ToInit::Write { files } = command else {
                end(&mut runsc);
                return Ok(());
            };
            let memory =
                descriptors.into_iter().next().ok_or_else(|| Refused::jail("files without bytes"))?;
            write_files(place, &files, memory).map_err(|error| Refused::new("input", error))?;
            send(words, &News::Written, &[]).map_err(Refused::jail)?;
        } else if has_ended {
            let status = runsc.wait().ok().and_then(|status| status.code()).unwrap_or(-1);
            return send(words, &News::RunscEnded { status }, &[]).map_err(Refused::jail);
        }
    }
}

/// With `runsc run` go those that it started.
fn end(runsc: &mut Child) {
    let _gone_already = runsc.kill();
    while let Ok(_) | Err(Errno::INTR) = wait(WaitOptions::empty()) {}
}

/// Copies files out of the memory that the gateway has filled, to where the sandbox sees them and cannot write.
fn write_files(place: &Place, files: &[(String, u64)], memory: OwnedFd) -> io::Result<()> {
    let memory = fs::File::from(memory);
    let mut at = 0;
    for (name, length) in files {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o444);
        let file = rustix::fs::openat(&place.given, name.as_str(), flags, mode)?;
        let mut bytes = vec![0; usize::try_from(*length).map_err(io::Error::other)?];
        memory.read_exact_at(&mut bytes, at)?;
        io::Write::write_all(&mut fs::File::from(file), &bytes)?;
        at += length;
    }
    Ok(())
}
