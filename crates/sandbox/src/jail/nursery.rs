//! The nursery: begins sandboxes. Root of a user namespace of its own, which is nobody on the host, and first process of a pid
//! namespace in which every sandbox of it lives.

use std::collections::HashMap;
use std::fs;
use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal};
use rustix::thread::{Gid, Uid, set_thread_res_gid, set_thread_res_uid};

use super::UID;
use super::init::{self, Outside};
use super::orders::{News, Order, Settings, receive, send};
use crate::sys::{self, Side};
use crate::{Layer, Refused};

pub(super) fn main(settings: &Settings, control: &OwnedFd, go: PipeReader, descriptors: Vec<OwnedFd>) -> ! {
    let served = settle(go).and_then(|()| {
        let zygote = descriptors.into_iter().next();
        if let Some(socket) = zygote {
            start_zygote(settings, &socket)?;
        }
        send(control, &News::Up, &[]).map_err(Refused::jail)?;
        serve(settings, control)
    });
    if let Err(refused) = served {
        let _nobody_listens = send(control, &News::Down(refused), &[]);
    }
    std::process::exit(0)
}

/// Takes on its identity, and sees its own processes in place of the host's.
fn settle(mut go: PipeReader) -> Result<(), Refused> {
    let user = |error: Errno| Refused::new("user_namespace", error);
    go.read_exact(&mut [0]).map_err(|_| Refused::jail("the keeper is gone"))?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).map_err(user)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).map_err(user)?;
    // After the change of user, which clears both. Its children's identity is written through `/proc`, and the kernel gives
    // the files there to the host's root where their process may not be looked into.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(user)?;
    set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(user)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    let layer = |error: Errno| Refused::new("pid_namespace", error);
    mount_change("/", private).map_err(layer)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None).map_err(layer)
}

/// One sandbox that was begun.
struct Child {
    number: u64,
    pidfd: OwnedFd,
}

/// Begins sandboxes and buries them, until the gateway is gone.
fn serve(settings: &Settings, control: &OwnedFd) -> Result<(), Refused> {
    let mut children: HashMap<u32, Child> = HashMap::new();
    loop {
        let mut fds = vec![PollFd::new(control, PollFlags::IN)];
        fds.extend(children.values().map(|child| PollFd::new(&child.pidfd, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Refused::jail(error)),
        }
        let has_order = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        bury(&mut children, control)?;
        if !has_order {
            continue;
        }
        let Some((Order::Build { number }, descriptors)) = receive(control).map_err(Refused::jail)? else {
            return Ok(());
        };
        match begin(settings, number, descriptors) {
            Ok((pid, pidfd)) => {
                let news = News::Born { number, host_uid: host_uid(settings, number) };
                send(control, &news, &[pidfd.as_fd()]).map_err(Refused::jail)?;
                children.insert(pid, Child { number, pidfd });
            }
            Err(refused) => {
                send(control, &News::NotBorn { number, refused }, &[]).map_err(Refused::jail)?;
            }
        }
    }
}

/// Reaps whatever has ended, and says which sandbox it was.
fn bury(children: &mut HashMap<u32, Child>, control: &OwnedFd) -> Result<(), Refused> {
    while let Some(dead) = sys::reap().map_err(Refused::jail)? {
        let Some(child) = children.remove(&dead.pid) else { continue };
        let cpu_us = u64::try_from(dead.cpu.as_micros()).unwrap_or(u64::MAX);
        let news = News::Gone { number: child.number, cpu_us, memory_peak_bytes: dead.memory_peak_bytes };
        send(control, &news, &[]).map_err(Refused::jail)?;
    }
    Ok(())
}

/// The user in the nursery's namespace that a sandbox is. 0 is the nursery itself, unless there is no other.
fn own_uid(settings: &Settings, number: u64) -> u32 {
    let (_, count) = settings.host_uids;
    match u64::from(count) {
        0 | 1 => 0,
        count => u32::try_from(1 + number % (count - 1)).unwrap_or(1),
    }
}

fn host_uid(settings: &Settings, number: u64) -> u32 {
    settings.host_uids.0.saturating_add(own_uid(settings, number))
}

/// Clones init into namespaces of its own and gives it its identity.
fn begin(settings: &Settings, number: u64, descriptors: Vec<OwnedFd>) -> Result<(u32, OwnedFd), Refused> {
    let outside = Outside::take(descriptors)?;
    let (go, mut to_init) = io::pipe().map_err(Refused::jail)?;
    let side = sys::clone(namespaces(settings)?).map_err(|error| Refused::new("user_namespace", error))?;
    let (pid, pidfd) = match side {
        Side::Child => {
            drop(to_init);
            init::main(settings, go, outside)
        }
        Side::Parent { pid, pidfd } => (pid, pidfd),
    };
    let uid = own_uid(settings, number);
    let write = |name: &str, text: String| fs::write(format!("/proc/{pid}/{name}"), text);
    write("setgroups", "deny".into())
        .and_then(|()| write("uid_map", format!("{UID} {uid} 1")))
        .and_then(|()| write("gid_map", format!("{UID} {uid} 1")))
        .and_then(|()| to_init.write_all(b"g"))
        .map_err(|error| {
            let _gone_already = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            Refused::new("user_namespace", error)
        })?;
    Ok((pid, pidfd))
}

fn namespaces(settings: &Settings) -> Result<u64, Refused> {
    let mut flags = libc::CLONE_NEWUSER;
    if settings.wants(Layer::UserNamespace)? && settings.wants(Layer::PidNamespace)? {
        flags |= libc::CLONE_NEWPID;
    }
    if settings.wants(Layer::OtherNamespaces)? {
        flags |= libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
    }
    if settings.wants(Layer::NetworkNamespace)? {
        flags |= libc::CLONE_NEWNET;
    }
    // A mount namespace is there in any case: whatever is mounted is never the host's.
    Ok(u64::from((flags | libc::CLONE_NEWNS).unsigned_abs()))
}

/// The number of the interpreter that is forked: one that no process of a sandbox has soon, since libraries tell a fork by its
/// number alone (`openssl_get_fork_id`), and one that has its parent's would go on with its parent's random numbers.
const ZYGOTE_PID: i32 = 30_000;

/// Starts the interpreter that is forked into sandboxes: in a root like theirs without anything to write to, without a
/// network, and with the one right that it needs for that, to enter namespaces.
fn start_zygote(settings: &Settings, socket: &OwnedFd) -> Result<(), Refused> {
    let flags = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let side = sys::clone_as(u64::from(flags.unsigned_abs()), Some(ZYGOTE_PID)).map_err(Refused::jail)?;
    if let Side::Parent { .. } = side {
        return Ok(());
    }
    let refused = match init::become_zygote(settings, socket) {
        Ok(never) => match never {},
        Err(refused) => refused,
    };
    let _nobody_listens = send(socket, &serde_json::json!({ "refused": refused }), &[]);
    std::process::exit(1)
}
