//! The launcher: clones init into its namespaces, gives it its identity and its cgroup, stops it when it must, and sees to
//! it that nothing is left.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::filter;
use super::init::{self, Word};
use super::orders::{Orders, Report};
use crate::cgroup::Cgroup;
use crate::sys::{self, Side};
use crate::{Ended, Layer, Receipt, Refused, Resources, Used};

/// How long building the sandbox may take.
const SETUP_MAX: Duration = Duration::from_secs(10);

pub(crate) fn main() -> i32 {
    let Ok(mut control) = take_control() else { return 1 };
    let report = match Orders::read(&mut control) {
        Ok(orders) => launch(&orders, &control).unwrap_or_else(Report::Refused),
        Err(error) => Report::Refused(Refused::new("orders", error)),
    };
    let json = serde_json::to_vec(&report).unwrap_or_default();
    i32::from(control.write_all(&json).is_err())
}

/// The control socket comes as standard input. Whatever else was inherited is closed.
fn take_control() -> io::Result<UnixStream> {
    sys::close_from(3)?;
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(control.into())
}

fn launch(orders: &Orders, control: &UnixStream) -> Result<Report, Refused> {
    let mut cgroup = match orders.resources {
        Resources::Cgroup if orders.has(Layer::Limits) => Some(
            Cgroup::create(&orders.name, &orders.limits).map_err(|error| Refused::new("limits", error))?,
        ),
        _ => None,
    };
    let ran = run(orders, control, cgroup.as_ref());
    let (cpu, largest) = sys::children_used();
    let memory_peak_bytes = cgroup.as_ref().map_or(largest, Cgroup::memory_peak);
    let was_out_of_memory = cgroup.as_ref().is_some_and(Cgroup::was_out_of_memory);
    let nothing_left = cgroup.as_mut().is_none_or(Cgroup::remove);
    let ran = ran?;
    let killed = matches!(ran.ended, Ended::Signal(_) | Ended::Exit(137));
    let ended = if killed && was_out_of_memory { Ended::OutOfMemory } else { ran.ended };
    let receipt = Receipt {
        layers: orders.layers.iter().map(|layer| layer.as_str().to_owned()).collect(),
        landlock_abi: ran.landlock_abi,
        resources: orders.resources.driver().to_owned(),
        host_uid: orders.host_uid,
        filter: if orders.has(Layer::Seccomp) {
            filter::fingerprint(orders.resources)?
        } else {
            String::new()
        },
        egress: Vec::new(),
        used: Used { wall_ms: milliseconds(ran.wall), cpu_ms: milliseconds(cpu), memory_peak_bytes },
        nothing_left,
    };
    Ok(Report::Done { ended, receipt })
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

struct Ran {
    ended: Ended,
    landlock_abi: u32,
    wall: Duration,
}

fn run(orders: &Orders, control: &UnixStream, cgroup: Option<&Cgroup>) -> Result<Ran, Refused> {
    let jail = |error: io::Error| Refused::new("jail", error);
    let (go, to_init) = io::pipe().map_err(jail)?;
    let (words, from_init) = io::pipe().map_err(jail)?;
    if rustix::process::getuid().is_root() {
        // The host's groups give rights to the host's files: none goes in.
        rustix::thread::set_thread_groups(&[]).map_err(|error| Refused::new("user_namespace", error))?;
    }
    let side = sys::clone(namespaces(orders)).map_err(|error| Refused::new("user_namespace", error))?;
    let (pid, pidfd) = match side {
        Side::Child => {
            drop((to_init, words));
            init::main(orders, go, from_init)
        }
        Side::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((go, from_init));
    let watched = Watched { pidfd, words, control, limit: orders.limits.wall };
    let admitted = silence().and_then(|()| admit(orders, pid, cgroup, to_init));
    let ran = match admitted {
        Ok(()) => watched.watch(),
        Err(refused) => Err(refused),
    };
    // Whatever happened: the first process goes, and with it everything inside.
    let _gone_already = pidfd_send_signal(&watched.pidfd, Signal::KILL);
    reap(&watched.pidfd);
    ran
}

/// The program's output pipes are not ours to hold open.
fn silence() -> Result<(), Refused> {
    let jail = |error: io::Error| Refused::new("jail", error);
    let null = fs::OpenOptions::new().write(true).open("/dev/null").map_err(jail)?;
    rustix::stdio::dup2_stdout(&null)
        .and_then(|()| rustix::stdio::dup2_stderr(&null))
        .map_err(|error| jail(error.into()))
}

fn namespaces(orders: &Orders) -> u64 {
    let mut flags = libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNS;
    flags |= libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
    if orders.has(Layer::NetworkNamespace) {
        flags |= libc::CLONE_NEWNET;
    }
    u64::from(flags.unsigned_abs())
}

/// Gives init its identity and its cgroup, then lets it go on.
fn admit(
    orders: &Orders,
    pid: u32,
    cgroup: Option<&Cgroup>,
    mut to_init: io::PipeWriter,
) -> Result<(), Refused> {
    let user = |error: io::Error| Refused::new("user_namespace", error);
    let own_gid = rustix::process::getgid();
    // As root the group is as much nobody's as the user; otherwise the one group that may be mapped is our own.
    let host_gid = if own_gid.is_root() { orders.host_uid } else { own_gid.as_raw() };
    let write = |name: &str, text: String| fs::write(format!("/proc/{pid}/{name}"), text);
    write("setgroups", "deny".into()).map_err(user)?;
    write("uid_map", format!("{} {} 1", init::UID, orders.host_uid)).map_err(user)?;
    write("gid_map", format!("{} {host_gid} 1", init::UID)).map_err(user)?;
    if let Some(cgroup) = cgroup {
        cgroup.attach(pid).map_err(|error| Refused::new("limits", error))?;
    }
    to_init.write_all(b"g").map_err(|error| Refused::new("jail", error))
}

/// Init while it runs.
struct Watched<'a> {
    pidfd: OwnedFd,
    words: io::PipeReader,
    control: &'a UnixStream,
    limit: Duration,
}

impl Watched<'_> {
    /// Hears what init says until it has ended, its time is up, or the gateway no longer wants it (or is gone).
    fn watch(&self) -> Result<Ran, Refused> {
        let setup_end = Instant::now() + SETUP_MAX;
        let landlock_abi = match self.hear(setup_end)? {
            Heard::Word(Word::Ready { landlock_abi }) => landlock_abi,
            Heard::Word(Word::Refused(refused)) => return Err(refused),
            Heard::Word(Word::Ended(_)) | Heard::Nothing => {
                return Err(Refused::new("jail", "its first process died"));
            }
            Heard::TimeUp => return Err(Refused::new("jail", "it took too long to build")),
            Heard::Stop => return Ok(Ran { ended: Ended::Cancelled, landlock_abi: 0, wall: Duration::ZERO }),
        };
        let began = Instant::now();
        let ended = match self.hear(began + self.limit)? {
            Heard::Word(Word::Ended(ended)) => ended,
            Heard::Word(_) => return Err(Refused::new("jail", "its first process spoke out of turn")),
            // Its first process was killed, by the kernel for want of memory for one.
            Heard::Nothing => Ended::Signal(libc::SIGKILL),
            Heard::TimeUp => Ended::Timeout,
            Heard::Stop => Ended::Cancelled,
        };
        Ok(Ran { ended, landlock_abi, wall: began.elapsed() })
    }

    fn hear(&self, until: Instant) -> Result<Heard, Refused> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Heard::TimeUp);
            }
            let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
            let mut fds = [PollFd::new(&self.words, PollFlags::IN), PollFd::new(self.control, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(Refused::new("jail", error)),
            }
            let [words, control] = fds.map(|fd| !fd.revents().is_empty());
            if words {
                return Ok(read_word(&self.words).map_or(Heard::Nothing, Heard::Word));
            }
            // The gateway says nothing more after its orders: whatever comes here is the end of its side.
            if control {
                return Ok(Heard::Stop);
            }
        }
    }
}

enum Heard {
    Word(Word),
    /// Init is gone without a word.
    Nothing,
    TimeUp,
    Stop,
}

/// One word: a length and JSON. Init writes it at once, so it is there as a whole.
fn read_word(mut words: &io::PipeReader) -> Option<Word> {
    let mut length = [0; 4];
    words.read_exact(&mut length).ok()?;
    let mut json = vec![0; usize::try_from(u32::from_be_bytes(length)).ok()?.min(1 << 16)];
    words.read_exact(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

fn reap(pidfd: &OwnedFd) {
    use std::os::fd::AsFd as _;
    while let Err(Errno::INTR) = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {}
}
