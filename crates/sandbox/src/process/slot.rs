//! One sandbox, built and confined, and what has to end with it.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::cgroup::Cgroup;
use super::frames::{Frame, Frames};
use super::nursery::{Note, Nursery, Socket};
use super::part::Watched;
use super::verify::{self, Wanted};
use crate::egress::{Egress, Listeners};
use crate::jail::orders::{Command, Word};
use crate::{Language, Layer, Profile, Refused};

/// How long building a sandbox may take.
const SETUP_MAX: Duration = Duration::from_secs(20);
/// How many namespaces a sandbox hands out.
const NAMESPACES: usize = 7;
/// How long the end of a sandbox may take, once it is killed.
const END_MAX: Duration = Duration::from_secs(5);

/// A sandbox that is confined, looked at from outside, and waits for its program.
pub(super) struct Slot {
    pub(super) profile: Arc<Profile>,
    nursery: Arc<Nursery>,
    number: u64,
    pub(super) notes: mpsc::UnboundedReceiver<Note>,
    pub(super) words: Socket,
    pub(super) frames: Frames,
    pub(super) stdout: pipe::Receiver,
    pub(super) stderr: pipe::Receiver,
    pub(super) artifacts: OwnedFd,
    /// What listens in the sandbox's network, until a program comes.
    pub(super) listeners: Option<Listeners>,
    /// The way out, once a program has come.
    pub(super) way_out: Option<Egress>,
    /// Who watches what goes out.
    pub(super) watched: Arc<Watched>,
    /// Whom the program is to trust, until that is written for it.
    pub(super) trusted: Option<String>,
    /// Held so that taking them down, which waits for all processors, is not part of its processes' end.
    pub(super) namespaces: Vec<OwnedFd>,
    pub(super) life: Life,
    pub(super) host_uid: u32,
    pub(super) landlock_abi: u32,
    /// Whether a program has come.
    pub(super) is_started: bool,
    /// Who counts resources.
    pub(super) counter: &'static str,
    built: Instant,
}

/// What ends with a sandbox, whatever becomes of the task that holds it.
pub(super) struct Life {
    init: Option<AsyncFd<OwnedFd>>,
    pub(super) cgroup: Option<Cgroup>,
}

impl Life {
    /// Kills everything: the first process, and with it its pid namespace; and by the cgroup, where that can.
    pub(super) fn kill(&self) {
        if let Some(init) = &self.init {
            let _gone_already = pidfd_send_signal(init.get_ref(), Signal::KILL);
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }

    /// Waits until the first process has ended, which it does when all others have. Whether it did.
    pub(super) async fn ended(&self) -> bool {
        match &self.init {
            Some(init) => timeout(END_MAX, init.readable()).await.is_ok_and(|ended| ended.is_ok()),
            None => true,
        }
    }

    /// Puts a process into the cgroup, and tells its number here.
    async fn attach(&mut self, process: &OwnedFd) -> Result<u32, Refused> {
        let pid = verify::pid_of(process)?;
        let Some(cgroup) = self.cgroup.take() else { return Ok(pid) };
        // The kernel may let this wait for a grace period.
        let attached = spawn_blocking(move || (cgroup.attach(pid), cgroup)).await;
        let (attached, cgroup) = attached.map_err(Refused::jail)?;
        self.cgroup = Some(cgroup);
        attached.map_err(|error| Refused::new("limits", error))?;
        Ok(pid)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Slot {
    /// Builds a sandbox. When this returns, every layer is in force for what runs in it.
    pub(super) async fn build(profile: Arc<Profile>, nursery: Arc<Nursery>) -> Result<Self, Refused> {
        let built = timeout(SETUP_MAX, build(profile, nursery)).await;
        built.map_err(|_| Refused::jail("it took too long to build"))?
    }

    pub(super) fn age(&self) -> Duration {
        self.built.elapsed()
    }

    pub(super) fn nursery(&self) -> &Arc<Nursery> {
        &self.nursery
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.nursery.strike_off(self.number);
        let namespaces = std::mem::take(&mut self.namespaces);
        // Outside a runtime whoever drops this waits for it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(namespaces));
        }
    }
}

async fn build(profile: Arc<Profile>, nursery: Arc<Nursery>) -> Result<Slot, Refused> {
    let (number, mut notes) = nursery.enrol();
    let making = begin_cgroup(&profile, &nursery, number);
    let (words, inits_words) = Socket::pair().map_err(Refused::jail)?;
    let (control, stdout, stderr, theirs) = channels().map_err(Refused::jail)?;
    let forks = nursery.settings().forks();
    let along = theirs.iter().filter(|_| !forks).map(|fd| fd.as_fd());
    nursery.build(number, &[inits_words.as_fd()].into_iter().chain(along).collect::<Vec<_>>()).await?;
    drop(inits_words);
    let (init, host_uid) = match notes.recv().await {
        Some(Note::Born { pidfd, host_uid }) => (pidfd, host_uid),
        other => return Err(not_built(other)),
    };
    let mut life = Life { init: None, cgroup: made(making).await? };
    let counter = life.cgroup.as_ref().map_or("rlimits", Cgroup::driver);
    let attached = life.attach(&init).await;
    life.init = Some(crate::sys::in_runtime(init).map_err(Refused::jail)?);
    // What it says of itself comes first: one that could not be confined is gone by now.
    let (word, handed_out) = hear(&words).await?;
    let init_pid = attached?;
    let Word::Ready { landlock_abi } = word else { return Err(Refused::jail("it spoke out of turn")) };
    let mut handed_out = handed_out.into_iter();
    let artifacts = handed_out.next().ok_or_else(|| Refused::jail("it has no folder of artifacts"))?;
    // What is looked at is what the program will run in: the interpreter where that is there first, else the process that
    // starts it and whose confinement it inherits.
    let mut handed_out: Vec<OwnedFd> = handed_out.collect();
    let listeners = if profile.egress.is_some() { Some(take_listeners(&mut handed_out)?) } else { None };
    let namespaces = handed_out;
    let pid = if forks {
        let [out, err, control] = &theirs;
        let along = namespaces.iter().chain([control, out, err]).map(OwnedFd::as_fd);
        nursery.fork(number, &along.collect::<Vec<BorrowedFd<'_>>>()).await?;
        match notes.recv().await {
            Some(Note::Forked { pidfd }) => life.attach(&pidfd).await?,
            other => return Err(not_built(other)),
        }
    } else if nursery.settings().starts_early() {
        let (_, handles) = hear(&words).await?;
        let handle = handles.first().ok_or_else(|| Refused::jail("it has no handle"))?;
        life.attach(handle).await?
    } else {
        init_pid
    };
    drop(theirs);
    let mut frames = Frames::new(control);
    if profile.language == Language::Python {
        hear_ready(&mut frames, &stderr).await?;
    }
    let wanted = Wanted { pid, host_uid, cgroup: life.cgroup.as_ref(), is_forked: forks };
    verify::verify(&profile, nursery.own(), &wanted)?;
    if profile.has(Layer::Landlock) && landlock_abi < profile.landlock_abi_min {
        // The kernel shows nobody what a process's Landlock is: this is what its first process says.
        let reason = format!("its ABI is {landlock_abi}, and {} is needed", profile.landlock_abi_min);
        return Err(Refused::new("landlock", reason));
    }
    // Before any program comes, and not when it does: nobody waits then for what its first process does.
    words.send(&Command::Hide, &[]).await.map_err(Refused::jail)?;
    let (Word::Hidden, _) = hear(&words).await? else { return Err(Refused::jail("it spoke out of turn")) };
    let built = Instant::now();
    Ok(Slot {
        profile,
        nursery,
        number,
        notes,
        words,
        frames,
        stdout,
        stderr,
        artifacts,
        listeners,
        way_out: None,
        watched: Arc::default(),
        trusted: None,
        namespaces,
        life,
        host_uid,
        landlock_abi,
        is_started: false,
        counter,
        built,
    })
}

/// The sockets that listen in the sandbox's network, which stand behind its namespaces.
fn take_listeners(handed_out: &mut Vec<OwnedFd>) -> Result<Listeners, Refused> {
    let listening = handed_out.split_off(NAMESPACES.min(handed_out.len()));
    let mut listening = listening.into_iter();
    let mut next = || listening.next().ok_or_else(|| Refused::jail("a socket is missing"));
    let listeners = Listeners {
        proxy: Some(next()?.into()),
        http: Some(next()?.into()),
        tls: Some(next()?.into()),
        dns_tcp: Some(next()?.into()),
        dns_udp: Some(next()?.into()),
    };
    // Where an interpreter is forked, its Landlock rules stand last.
    handed_out.extend(listening);
    Ok(listeners)
}

/// A cgroup that is being made; none where there is to be none.
type Making = Option<JoinHandle<io::Result<Cgroup>>>;

/// Begins to make one. That waits where others change theirs, and the first process comes up meanwhile.
fn begin_cgroup(profile: &Arc<Profile>, nursery: &Nursery, number: u64) -> Making {
    let parents = nursery.cgroups()?;
    let (profile, name) = (profile.clone(), format!("{}-{number}", nursery.settings().name));
    Some(spawn_blocking(move || Cgroup::create(parents, name, &profile.limits)))
}

async fn made(making: Making) -> Result<Option<Cgroup>, Refused> {
    let Some(making) = making else { return Ok(None) };
    let made = making.await.map_err(Refused::jail)?;
    made.map(Some).map_err(|error| Refused::new("limits", error))
}

/// Control, standard output and standard error; the program's ends of output, error and control.
fn channels() -> io::Result<(UnixStream, pipe::Receiver, pipe::Receiver, [OwnedFd; 3])> {
    let (control, theirs) = std::os::unix::net::UnixStream::pair()?;
    control.set_nonblocking(true)?;
    let ((stdout, their_stdout), (stderr, their_stderr)) = (io::pipe()?, io::pipe()?);
    let theirs = [their_stdout.into(), their_stderr.into(), theirs.into()];
    let stdout = pipe::Receiver::from_owned_fd(stdout.into())?;
    let stderr = pipe::Receiver::from_owned_fd(stderr.into())?;
    Ok((UnixStream::from_std(control)?, stdout, stderr, theirs))
}

/// The next word of the first process.
pub(super) async fn hear(words: &Socket) -> Result<(Word, Vec<OwnedFd>), Refused> {
    match words.receive::<Word>().await.map_err(Refused::jail)? {
        Some((Word::Refused(refused), _)) => Err(refused),
        Some(heard) => Ok(heard),
        None => Err(Refused::jail("its first process died")),
    }
}

fn not_built(note: Option<Note>) -> Refused {
    match note {
        Some(Note::Refused(refused)) => refused,
        Some(_) => Refused::jail("it ended before its program came"),
        None => Refused::jail("the nursery is gone"),
    }
}

/// The interpreter waits for a program, or says what it could not put up.
async fn hear_ready(frames: &mut Frames, stderr: &pipe::Receiver) -> Result<(), Refused> {
    match frames.next().await {
        Some(Frame { kind: b'R', .. }) => Ok(()),
        Some(Frame { kind: b'X', text, .. }) => {
            let (layer, reason) = text.split_once('\0').unwrap_or(("jail", &text));
            Err(Refused::new(layer, reason))
        }
        _ => {
            let mut said = vec![0; 4096];
            let read = stderr.try_read(&mut said).unwrap_or(0);
            let said =
                String::from_utf8_lossy(said.get(..read).unwrap_or_default()).trim().replace('\n', "; ");
            Err(Refused::new("interpreter", format!("it ended before its program came; it said: {said}")))
        }
    }
}
