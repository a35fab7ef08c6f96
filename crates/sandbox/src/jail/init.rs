//! Init: the first process inside a sandbox. It confines itself step by step, says so, starts the program or lets an
//! interpreter be forked into its namespaces, and reaps; when it ends, the kernel kills whatever else is in its pid namespace.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::{self, OpenOptions};
use std::io::{self, PipeReader, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command as Spawn, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, WaitOptions, WaitStatus, pidfd_open, set_dumpable_behavior, wait,
};
use rustix::thread::{Gid, Uid, set_thread_res_gid, set_thread_res_uid};

use super::orders::{Command, Settings, Word, receive, send};
use super::root;
use super::{DRIVER, UID, ZYGOTE, confine, egress, filter};
use crate::sys;
use crate::{Ended, Language, Layer, Refused};

/// The namespaces that an interpreter enters, the user's first: the rights to enter the others come with it. The pid's is for
/// whoever forks it.
const ENTERED: [&str; 7] = ["pid", "user", "mnt", "net", "ipc", "uts", "cgroup"];

/// What comes in from outside, and nothing else.
pub(super) struct Outside {
    words: OwnedFd,
    /// Standard output, standard error and control of an interpreter that is started here.
    program: Option<[OwnedFd; 3]>,
}

impl Outside {
    pub(super) fn take(descriptors: Vec<OwnedFd>) -> Result<Self, Refused> {
        let mut descriptors = descriptors.into_iter();
        let words = descriptors.next().ok_or_else(|| Refused::jail("an order lacks its descriptors"))?;
        let program = match (descriptors.next(), descriptors.next(), descriptors.next()) {
            (Some(out), Some(err), Some(control)) => Some([out, err, control]),
            _ => None,
        };
        Ok(Self { words, program })
    }
}

pub(super) fn main(settings: &Settings, go: PipeReader, outside: Outside) -> ! {
    let lived = confine(settings, go, &outside).and_then(|inside| live(settings, outside, &inside));
    std::process::exit(i32::from(lived.is_err()))
}

/// What init holds of its sandbox once it is confined.
struct Inside {
    /// Where files are written that come in from outside; seen inside as read-only folders.
    given: OwnedFd,
    interpreter: &'static str,
}

/// Puts up every layer and says so; where one is not to be had, that is what is said.
fn confine(settings: &Settings, go: PipeReader, outside: &Outside) -> Result<Inside, ()> {
    let mut kept = vec![go.as_fd().as_raw_fd(), outside.words.as_raw_fd()];
    kept.extend(outside.program.iter().flatten().map(OwnedFd::as_raw_fd));
    let confined =
        sys::close_except(&mut kept).map_err(Refused::jail).and_then(|()| put_up_layers(settings, go));
    match confined {
        Ok((inside, landlock_abi, handed_out)) => {
            let handed_out: Vec<_> = handed_out.iter().map(OwnedFd::as_fd).collect();
            send(&outside.words, &Word::Ready { landlock_abi }, &handed_out).map_err(drop)?;
            Ok(inside)
        }
        Err(refused) => {
            let _nobody_listens = send(&outside.words, &Word::Refused(refused), &[]);
            Err(())
        }
    }
}

/// Every layer, in the one order that works: what needs rights first, then the rights go, the system call filter last.
fn put_up_layers(settings: &Settings, go: PipeReader) -> Result<(Inside, u32, Vec<OwnedFd>), Refused> {
    become_nobody(go)?;
    let mut handed_out = Vec::new();
    for name in ENTERED {
        let path = format!("/proc/self/ns/{name}");
        let namespace = open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        handed_out.push(namespace.map_err(|error| Refused::new("other_namespaces", error))?);
    }
    if settings.wants(Layer::NoNestedNamespaces)? {
        // This kernel table belongs to the user namespace of whoever opens it (`kernel/ucount.c`).
        let none = fs::write("/proc/sys/user/max_user_namespaces", "0");
        none.map_err(|error| Refused::new("no_nested_namespaces", error))?;
    }
    if settings.has(Layer::OtherNamespaces) {
        let host_name = rustix::system::sethostname(b"sandbox");
        host_name.map_err(|error| Refused::new("other_namespaces", error))?;
    }
    if settings.egress {
        handed_out.extend(egress::listen()?);
    }
    let place = root::build(settings)?;
    let artifacts = open(place.artifacts, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    handed_out.insert(0, artifacts.map_err(|error| Refused::new("own_root", error))?);
    sys::join_new_session_keyring().map_err(|error| Refused::new("no_privileges", error))?;
    if settings.wants(Layer::Limits)? {
        confine::limit(settings)?;
    }
    if settings.wants(Layer::NoPrivileges)? {
        confine::give_up_privileges()?;
    }
    let mut landlock_abi = 0;
    if settings.wants(Layer::Landlock)? {
        let ports: &[u16] = if settings.egress { &egress::PORTS } else { &[] };
        let (abi, rules) = confine::landlock(settings.landlock_abi_min, &place, ports)?;
        landlock_abi = abi;
        if settings.forks() {
            handed_out.push(rules);
        }
    }
    // Where an interpreter is forked in, that has the filter: nobody's program runs in this process, nor is started by it.
    if settings.wants(Layer::Seccomp)? && !settings.forks() {
        filter::install(settings.filter())?;
    }
    Ok((Inside { given: place.given, interpreter: place.interpreter }, landlock_abi, handed_out))
}

/// Waits until the nursery has given us an identity, and takes it on.
fn become_nobody(mut go: PipeReader) -> Result<(), Refused> {
    let user = |error: Errno| Refused::new("user_namespace", error);
    go.read_exact(&mut [0]).map_err(|_| Refused::jail("the nursery is gone"))?;
    let (uid, gid) = (Uid::from_raw(UID), Gid::from_raw(UID));
    set_thread_res_gid(gid, gid, gid).map_err(user)?;
    set_thread_res_uid(uid, uid, uid).map_err(user)?;
    rustix::process::setsid().map_err(user)?;
    Ok(())
}

/// Does what it is told, and reaps, until the program has ended or the gateway ends it all.
fn live(settings: &Settings, outside: Outside, inside: &Inside) -> Result<(), ()> {
    let Outside { words, mut program } = outside;
    let mut started = None;
    if settings.starts_early() {
        started = Some(start(settings, inside, program.take(), &words)?);
    }
    let mut runs = false;
    loop {
        match next(&words, started.as_ref(), runs)? {
            Next::Ended(ended) => return send(&words, &Word::Ended { ended }, &[]).map_err(drop),
            Next::Closed => return Ok(()),
            Next::Told(Command::Write { files }, memory) => {
                let written = memory.first().ok_or(io::ErrorKind::NotFound.into());
                let word = match written.and_then(|memory| write_files(inside, &files, memory)) {
                    Ok(()) => Word::Written,
                    Err(error) => Word::Refused(Refused::new("input", error)),
                };
                send(&words, &word, &[]).map_err(drop)?;
            }
            Next::Told(Command::Hide, _) => {
                set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(drop)?;
                send(&words, &Word::Hidden, &[]).map_err(drop)?;
            }
            Next::Told(Command::Start, _) => {
                runs = true;
                if started.is_none() && !settings.forks() {
                    started = Some(start(settings, inside, program.take(), &words)?);
                }
            }
        }
    }
}

/// What happens next.
enum Next {
    Told(Command, Vec<OwnedFd>),
    /// The gateway's end of it.
    Closed,
    /// The interpreter that was started here has ended.
    Ended(Ended),
}

/// Waits for it. Whatever else ends here was left behind by the program, and is only reaped: once it `runs`, every moment.
fn next(words: &OwnedFd, started: Option<&(Pid, OwnedFd)>, runs: bool) -> Result<Next, ()> {
    let a_moment = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    loop {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if started.is_some_and(|(program, _)| *program == pid) {
                return Ok(Next::Ended(ended(status)));
            }
        }
        let mut fds = vec![PollFd::new(words, PollFlags::IN)];
        fds.extend(started.iter().map(|(_, pidfd)| PollFd::new(pidfd, PollFlags::IN)));
        match poll(&mut fds, runs.then_some(&a_moment)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return Err(()),
        }
        if fds.first().is_some_and(|fd| !fd.revents().is_empty()) {
            let told = receive::<Command>(words).map_err(drop)?;
            return Ok(told.map_or(Next::Closed, |(command, memory)| Next::Told(command, memory)));
        }
    }
}

fn ended(status: WaitStatus) -> Ended {
    let signal = status.terminating_signal().map(Ended::Signal);
    signal.unwrap_or_else(|| Ended::Exit(status.exit_status().unwrap_or(0)))
}

/// Copies files out of the memory that the gateway has filled, to where the sandbox sees them.
fn write_files(inside: &Inside, files: &[(String, u64)], memory: &OwnedFd) -> io::Result<()> {
    let memory = fs::File::from(memory.try_clone()?);
    let mut at = 0;
    for (name, length) in files {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&inside.given, name.as_str(), flags, Mode::from_raw_mode(0o444))?;
        let mut bytes = vec![0; usize::try_from(*length).map_err(io::Error::other)?];
        memory.read_exact_at(&mut bytes, at)?;
        io::Write::write_all(&mut fs::File::from(file), &bytes)?;
        at += length;
    }
    Ok(())
}

/// Starts the interpreter: with the program's file, or to wait for a program.
fn start(
    settings: &Settings,
    inside: &Inside,
    program: Option<[OwnedFd; 3]>,
    words: &OwnedFd,
) -> Result<(Pid, OwnedFd), ()> {
    let started = spawn(settings, inside, program).and_then(|pid| {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        send(words, &Word::Started, &[pidfd.as_fd()])?;
        Ok((pid, pidfd))
    });
    started.map_err(|error| {
        let reason = format!("`{}` could not be started: {error}", inside.interpreter);
        let _nobody_listens = send(words, &Word::Refused(Refused::new("interpreter", reason)), &[]);
    })
}

fn spawn(settings: &Settings, inside: &Inside, program: Option<[OwnedFd; 3]>) -> io::Result<Pid> {
    let [out, err, control] = program.ok_or_else(|| io::Error::other("it has no output"))?;
    let mut spawn = Spawn::new(inside.interpreter);
    spawn.args(settings.language.flags());
    // Held until the child has it: for a driver without CLOEXEC, so that it comes along.
    let handed_on;
    if settings.starts_early() {
        handed_on = rustix::io::dup(&control)?;
        spawn.args(["-S", "-c", &format!("{DRIVER}\nmain()\n"), &handed_on.as_raw_fd().to_string()]);
    } else {
        spawn.arg(format!("{}/{}", root::program_folder(settings), settings.language.file_name()));
    }
    environment(&mut spawn, settings.language, &settings.environment, settings.egress);
    spawn.current_dir(root::work_folder(settings)).stdin(Stdio::null()).stdout(out).stderr(err);
    if settings.wants(Layer::Limits).is_ok_and(|wants| wants) {
        sys::limit_open_files(&mut spawn, confine::open_files(settings));
    }
    let child = spawn.spawn()?;
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("it has no id"))
}

/// Nothing of the host's environment; what programs expect, and one thread for each library that would take all cores.
pub(crate) fn environment(
    spawn: &mut Spawn,
    language: Language,
    operators: &BTreeMap<String, String>,
    egress: bool,
) {
    spawn.env_clear().envs(operators).envs([
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("HOME", "/work"),
        ("TMPDIR", "/tmp"),
        ("LANG", "C.UTF-8"),
        ("LC_ALL", "C.UTF-8"),
    ]);
    if egress {
        spawn.envs(egress::environment());
    }
    if language == Language::Python {
        spawn.envs(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"].map(|name| (name, "1")));
        // Debian's Matplotlib has its settings in the host's `/etc`, and does not start without any.
        let of_plots =
            [("MPLBACKEND", "Agg"), ("MPLCONFIGDIR", "/tmp/matplotlib"), ("MATPLOTLIBRC", "/dev/null")];
        spawn.envs(of_plots);
    }
}

/// Becomes the interpreter that is forked into sandboxes. Returns only where that fails.
pub(super) fn become_zygote(settings: &Settings, socket: &OwnedFd) -> Result<Infallible, Refused> {
    sys::close_except(&mut [socket.as_raw_fd()]).map_err(Refused::jail)?;
    let place = root::build_bare(settings)?;
    confine::keep_only_the_right_to_enter()?;
    let filters = if settings.wants(Layer::Seccomp)? { filter::rest()? } else { Vec::new() };
    let told = serde_json::json!({
        "modules": settings.preload,
        "uid": UID,
        "work": root::work_folder(settings),
        "limits": if settings.wants(Layer::Limits)? { confine::limits(settings) } else { Vec::new() },
        "securebits": confine::SECURE_BITS.bits(),
        "keyctl": libc::SYS_keyctl,
        "no_privileges": settings.wants(Layer::NoPrivileges)?,
        "landlock": settings.wants(Layer::Landlock)?,
        "filters": filters,
    });
    if settings.wants(Layer::Seccomp)? {
        filter::install_until_confined(settings.filter())?;
    }
    let handed_on = rustix::io::dup(socket).map_err(Refused::jail)?;
    let mut spawn = Spawn::new(place);
    spawn.args(settings.language.flags()).args(["-S", "-c", &format!("{DRIVER}\n{ZYGOTE}")]);
    spawn.args([handed_on.as_raw_fd().to_string(), told.to_string()]);
    environment(&mut spawn, settings.language, &settings.environment, settings.egress);
    spawn.env("LD_BIND_NOW", "1");
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(Refused::jail)?;
    let nulls = [null.try_clone(), null.try_clone()];
    let [Ok(out), Ok(err)] = nulls else { return Err(Refused::jail("there is no /dev/null")) };
    spawn.current_dir("/").stdin(null).stdout(out).stderr(err);
    let error = spawn.exec();
    Err(Refused::new("interpreter", format!("`{place}` could not be started: {error}")))
}

/// Where an interpreter is, as it is seen from here.
pub(crate) fn interpreter(language: Language, below: &Path) -> Result<&'static str, Refused> {
    let is_there = |path: &&&str| below.join(path.trim_start_matches('/')).exists();
    language.interpreters().iter().find(is_there).copied().ok_or_else(|| {
        Refused::new("interpreter", format!("there is no `{}`", language.interpreters().join("` and no `")))
    })
}
