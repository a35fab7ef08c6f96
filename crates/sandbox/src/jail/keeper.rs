//! The keeper: on the host's side, with the gateway's own rights and nothing of its memory. It gives the nursery its
//! namespaces and its users, ends it when the gateway no longer wants it or is gone, and removes what is left of cgroups then.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::confine::raise_open_files;
use super::nursery;
use super::orders::{News, Settings, receive, send};
use crate::process::cgroup;
use crate::sys::{self, Side};
use crate::{Refused, Resources};

pub(crate) fn main() -> i32 {
    let Ok(control) = take_control() else { return 1 };
    let Ok(Some((settings, descriptors))) = receive::<Settings>(&control) else { return 1 };
    match keep(&settings, &control, descriptors) {
        Ok(()) => 0,
        Err(refused) => {
            let _nobody_listens = send(&control, &News::Down(refused), &[]);
            1
        }
    }
}

/// The control socket comes as standard input. Whatever else was inherited is closed.
pub(crate) fn take_control() -> io::Result<OwnedFd> {
    // What is meant for the gateway's group, as from a terminal, is not meant for who tidies up after it.
    rustix::process::setsid()?;
    sys::close_from(3)?;
    raise_open_files();
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(control)
}

fn keep(settings: &Settings, control: &OwnedFd, descriptors: Vec<OwnedFd>) -> Result<(), Refused> {
    let user = |error: io::Error| Refused::new("user_namespace", error);
    if rustix::process::getuid().is_root() {
        // The host's groups give rights to the host's files: none goes in.
        rustix::thread::set_thread_groups(&[]).map_err(|error| user(error.into()))?;
    }
    let (go, to_nursery) = io::pipe().map_err(Refused::jail)?;
    let namespaces = libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNS;
    let (pid, pidfd) = match sys::clone(u64::from(namespaces.unsigned_abs())).map_err(user)? {
        Side::Child => {
            drop(to_nursery);
            nursery::main(settings, control, go, descriptors)
        }
        Side::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((go, descriptors));
    let admitted = give_users(settings, pid).map_err(user).and_then(|()| {
        let mut to_nursery = to_nursery;
        io::Write::write_all(&mut to_nursery, b"g").map_err(Refused::jail)
    });
    if admitted.is_ok() {
        wait_for_end(control, &pidfd);
    }
    let _gone_already = pidfd_send_signal(&pidfd, Signal::KILL);
    while let Err(Errno::INTR) = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {}
    if settings.resources == Resources::Cgroup {
        cgroup::remove_all_of(&settings.name);
    }
    admitted
}

/// As root the nursery gets users of the host that nobody else is, and gives each sandbox one of them; otherwise there is but
/// one that may be given, the service's own.
fn give_users(settings: &Settings, pid: u32) -> io::Result<()> {
    let write = |name: &str, text: String| fs::write(format!("/proc/{pid}/{name}"), text);
    let (first, count) = settings.host_uids;
    let gid = if rustix::process::getuid().is_root() { first } else { rustix::process::getgid().as_raw() };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("0 {first} {count}"))?;
    write("gid_map", format!("0 {gid} {count}"))
}

/// Until the gateway's side of the socket is closed, or the nursery has ended.
pub(crate) fn wait_for_end(control: &OwnedFd, nursery: &OwnedFd) {
    loop {
        // Nothing is asked of the socket but whether it is closed; the nursery reads it.
        let mut fds = [PollFd::new(control, PollFlags::empty()), PollFd::new(nursery, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => {}
            Err(_) => return,
            Ok(_) if fds.iter().any(|fd| !fd.revents().is_empty()) => return,
            Ok(_) => {}
        }
    }
}
