//! The gateway's hold on one sandbox: built, looked at, waiting for its program.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::launcher::{News, Order, Told};
use super::talk::{READY, REFUSED, Talk};
use super::{LAUNCHER_NAME, init, verify};
use crate::process::cgroup::Cgroup;
use crate::process::cgroups::Parents;
use crate::process::{Socket, pid_of};
use crate::profile::GvisorSettings;
use crate::{Limits, Profile, Refused, Resources};

/// How long building a sandbox may take.
const SETUP_MAX: Duration = Duration::from_secs(30);
/// How long the end of a sandbox may take, once it is killed.
pub(super) const END_MAX: Duration = Duration::from_secs(5);
/// Memory of the sentry and the gofer themselves, beyond the program's.
const OVERHEAD_BYTES: u64 = 96 << 20;

/// A sandbox that waits for its program.
pub(super) struct Slot {
    pub(super) profile: Arc<Profile>,
    pub(super) settings: Arc<GvisorSettings>,
    pub(super) words: Socket,
    pub(super) talk: Talk,
    pub(super) stdout: pipe::Receiver,
    pub(super) stderr: pipe::Receiver,
    pub(super) life: Life,
    pub(super) host_uid: u32,
    /// Who counts resources.
    pub(super) counter: &'static str,
}

/// What ends with a sandbox, whatever becomes of the task that holds it.
pub(super) struct Life {
    launcher: Child,
    init: Option<OwnedFd>,
    pub(super) cgroup: Option<Cgroup>,
}

impl Life {
    /// Kills everything: init, and with it its pid namespace; and by the cgroup, where that can.
    pub(super) fn kill(&self) {
        if let Some(init) = &self.init {
            let _gone_already = pidfd_send_signal(init, Signal::KILL);
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }

    /// Waits until the launcher has ended, which it does when all that it watches over has. Whether it did.
    pub(super) async fn ended(&mut self) -> bool {
        timeout(END_MAX, self.launcher.wait()).await.is_ok_and(|ended| ended.is_ok())
    }

    /// Puts init into the cgroup before it does anything.
    async fn attach(&mut self) -> Result<u32, Refused> {
        let init = self.init.as_ref().ok_or_else(|| Refused::jail("init came without a handle"))?;
        let pid = pid_of(init)?;
        let Some(cgroup) = self.cgroup.take() else { return Ok(pid) };
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
        if let Some(mut cgroup) = self.cgroup.take() {
            // Its processes are dying; whoever drops this does not wait for that.
            std::thread::spawn(move || cgroup.remove());
        }
    }
}

impl Slot {
    /// Builds a sandbox. When this returns, every layer is in force for what runs in it.
    pub(super) async fn build(profile: Arc<Profile>, settings: Arc<GvisorSettings>) -> Result<Self, Refused> {
        let built = timeout(SETUP_MAX, build(profile, settings)).await;
        built.map_err(|_| init::refused("`runsc` took too long to start"))?
    }

    /// Ends it unused.
    pub(super) async fn discard(mut self) -> Result<(), Refused> {
        let counted = self.stop().await;
        let (_, nothing_left) = self.bury(counted).await?;
        if nothing_left {
            Ok(())
        } else {
            Err(Refused::new("gvisor", "a sandbox did not end when it was killed"))
        }
    }
}

async fn build(profile: Arc<Profile>, settings: Arc<GvisorSettings>) -> Result<Slot, Refused> {
    let order = Order::new(&profile, (*settings).clone(), name());
    let cgroup = make_cgroup(&profile, order.name.clone()).await?;
    let counter = cgroup.as_ref().map_or("rlimits", Cgroup::driver);
    let (words, launchers_words) = Socket::pair().map_err(Refused::jail)?;
    let (control, stdout, stderr, theirs) = channels().map_err(Refused::jail)?;
    let launcher = spawn(launchers_words).map_err(Refused::jail)?;
    let mut life = Life { launcher, init: None, cgroup };
    words.send(&order, &theirs.each_ref().map(OwnedFd::as_fd)).await.map_err(Refused::jail)?;
    drop(theirs);
    match words.receive::<News>().await.map_err(Refused::jail)? {
        Some((News::Born, handles)) => life.init = handles.into_iter().next(),
        Some((News::Refused(refused), _)) => return Err(refused),
        _ => return Err(Refused::jail("the launcher is gone")),
    }
    let init = life.attach().await?;
    words.send(&Told::Go, &[]).await.map_err(Refused::jail)?;
    let mut talk = Talk::new(control);
    hear_ready(&mut talk, &words, &stderr).await?;
    let cgroup = life.cgroup.as_ref();
    verify::verify(&profile, init, order.host_uid, cgroup)?;
    Ok(Slot { profile, settings, words, talk, stdout, stderr, life, host_uid: order.host_uid, counter })
}

/// Names a sandbox and its cgroup, apart from those of a gateway that had the same process id.
fn name() -> String {
    static BEGUN: AtomicU64 = AtomicU64::new(0);
    let mut random = [0; 8];
    // Without randomness the name is only less unlike others.
    let _filled = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    let (random, number) = (u64::from_ne_bytes(random), BEGUN.fetch_add(1, Ordering::Relaxed));
    // The last letter keeps this from being the beginning of another's name.
    format!("ringfence-gvisor-{}-{random:016x}-{number}x", std::process::id())
}

async fn make_cgroup(profile: &Profile, name: String) -> Result<Option<Cgroup>, Refused> {
    if profile.resources != Resources::Cgroup {
        return Ok(None);
    }
    let limits = Limits {
        memory_bytes: profile.limits.memory_bytes.saturating_add(OVERHEAD_BYTES),
        processes: init::threads(profile.limits.processes),
        ..profile.limits.clone()
    };
    let made = spawn_blocking(move || Cgroup::create(Arc::new(Parents::find()?), name, &limits)).await;
    let made = made.map_err(Refused::jail)?;
    made.map(Some).map_err(|error| Refused::new("limits", error))
}

/// Control, standard output and standard error; the guest's ends of control, output and error.
fn channels() -> io::Result<(UnixStream, pipe::Receiver, pipe::Receiver, [OwnedFd; 3])> {
    let (control, theirs) = std::os::unix::net::UnixStream::pair()?;
    control.set_nonblocking(true)?;
    let ((stdout, their_stdout), (stderr, their_stderr)) = (io::pipe()?, io::pipe()?);
    let theirs = [theirs.into(), their_stdout.into(), their_stderr.into()];
    let stdout = pipe::Receiver::from_owned_fd(stdout.into())?;
    let stderr = pipe::Receiver::from_owned_fd(stderr.into())?;
    Ok((UnixStream::from_std(control)?, stdout, stderr, theirs))
}

/// Starts this executable as a launcher: no environment, its socket as its input, no output.
fn spawn(words: OwnedFd) -> io::Result<Child> {
    Command::new("/proc/self/exe")
        .arg0(LAUNCHER_NAME)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(words))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
}

/// The guest waits for a program; or somebody says what is in the way.
async fn hear_ready(talk: &mut Talk, words: &Socket, stderr: &pipe::Receiver) -> Result<(), Refused> {
    let said = tokio::select! {
        biased;
        said = talk.next() => said,
        news = words.receive::<News>() => match news {
            Ok(Some((News::Refused(refused), _))) => return Err(refused),
            _ => None,
        },
    };
    match said {
        Some(said) if said.kind == READY => Ok(()),
        Some(said) if said.kind == REFUSED => {
            let (layer, reason) = said.pair().unwrap_or_else(|| ("gvisor".to_owned(), said.text()));
            Err(Refused::new(&layer, reason))
        }
        _ => Err(why_not(words, stderr).await),
    }
}

/// What is known of a sandbox that ended before its program came.
async fn why_not(words: &Socket, stderr: &pipe::Receiver) -> Refused {
    if let Ok(Ok(Some((News::Refused(refused), _)))) =
        timeout(Duration::from_millis(500), words.receive::<News>()).await
    {
        return refused;
    }
    let mut said = vec![0; 4096];
    let read = stderr.try_read(&mut said).unwrap_or(0);
    let said = String::from_utf8_lossy(said.get(..read).unwrap_or_default()).trim().replace('\n', "; ");
    init::refused(&format!("`runsc` ended before the program came; it said: {said}"))
}
