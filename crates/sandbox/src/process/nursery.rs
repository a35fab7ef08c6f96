//! The gateway's hold on a nursery: orders go out, news come in. Dropping it ends the nursery and every sandbox of it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::Deserialize;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::cgroups::Parents;
use super::verify::Own;
use crate::jail::orders::{News, Order, Settings, receive, receive_bytes, send, send_bytes};
use crate::jail::{JAIL_NAME, filter, raise_open_files};
use crate::{Layer, Profile, Refused, Resources, Root};

/// How long a nursery may take to be up: the modules that an interpreter loads first are in it.
const UP_MAX: Duration = Duration::from_mins(1);
/// How long its end may take.
const END_MAX: Duration = Duration::from_secs(5);
/// The first of the users that sandboxes get where the service is root.
const HOST_UID_FIRST: u32 = 1_900_000_000;
/// How many a nursery has of them, and how many nurseries there may be.
const HOST_UIDS: u32 = 4096;
const HOST_UID_BLOCKS: u32 = 50_000;

/// What happens to one sandbox.
pub(super) enum Note {
    /// Its first process is there.
    Born {
        pidfd: OwnedFd,
        host_uid: u32,
    },
    /// The program's process is there; it was forked.
    Forked {
        pidfd: OwnedFd,
    },
    /// That process has ended with this status, below 0 by a signal.
    ProgramEnded {
        code: i32,
        cpu_us: u64,
        memory_peak_bytes: u64,
    },
    /// All of it has ended.
    Gone {
        cpu_us: u64,
        memory_peak_bytes: u64,
    },
    Refused(Refused),
}

type Listeners = Arc<Mutex<HashMap<u64, mpsc::UnboundedSender<Note>>>>;

pub(super) struct Nursery {
    orders: Arc<Socket>,
    zygote: Option<Arc<Socket>>,
    listeners: Listeners,
    is_down: Arc<AtomicBool>,
    readers: Vec<JoinHandle<()>>,
    settings: Settings,
    stamp: Stamp,
    own: Own,
    filter: String,
    cgroups: Option<Arc<Parents>>,
    begun: AtomicU64,
    born: Instant,
    keeper: Option<Child>,
}

/// A packet socket in the runtime.
pub(crate) struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((Self(crate::sys::in_runtime(ours)?), theirs))
    }

    /// Sends with what `sending` calls; waits for room.
    async fn sending(&self, sending: impl Fn(&OwnedFd) -> io::Result<()>) -> io::Result<()> {
        loop {
            let mut ready = self.0.writable().await?;
            if let Ok(sent) = ready.try_io(|socket| sending(socket.get_ref())) {
                return sent;
            }
        }
    }

    pub(crate) async fn send(
        &self,
        message: &impl serde::Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        self.sending(|socket| send(socket, message, descriptors)).await
    }

    pub(crate) async fn receive<T: serde::de::DeserializeOwned>(
        &self,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(received) = ready.try_io(|socket| receive(socket.get_ref())) {
                return received;
            }
        }
    }

    async fn receive_bytes(&self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(received) = ready.try_io(|socket| receive_bytes(socket.get_ref())) {
                return received;
            }
        }
    }
}

/// What the interpreter says that is forked into sandboxes: in numbers what each sandbox brings, since whatever it does between
/// two forks costs it copies of its memory; the rest in JSON.
enum Said {
    Forked { number: u64 },
    Ended { number: u64, code: i32, cpu_us: u64, memory_peak_bytes: u64 },
    Other(SaidOnce),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SaidOnce {
    Refused {
        refused: Refused,
        number: Option<u64>,
    },
    Up {
        #[serde(rename = "up")]
        _up: bool,
    },
}

impl Said {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (kind, mut rest) = bytes.split_first()?;
        match kind {
            b'F' => Some(Self::Forked { number: u64::from_le_bytes(next(&mut rest)?) }),
            b'E' => Some(Self::Ended {
                number: u64::from_le_bytes(next(&mut rest)?),
                code: i32::from_le_bytes(next(&mut rest)?),
                cpu_us: u64::from_le_bytes(next(&mut rest)?),
                memory_peak_bytes: u64::from_le_bytes(next(&mut rest)?),
            }),
            _ => serde_json::from_slice(bytes).ok().map(Self::Other),
        }
    }
}

fn next<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (next, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*next)
}

/// Which interpreter it is: one that an update has replaced is another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Stamp(Option<(u64, u64, i64, i64)>);

impl Stamp {
    /// The interpreter of a profile, as it is now.
    pub(super) fn of(profile: &Profile) -> Self {
        let root = match &profile.root {
            Root::HostUsr => PathBuf::from("/"),
            Root::Folder(folder) if folder.join("config.json").is_file() => folder.join("rootfs"),
            Root::Folder(folder) => folder.clone(),
        };
        let mut paths =
            profile.language.interpreters().iter().map(|path| root.join(path.trim_start_matches('/')));
        let found = paths.find_map(|path| std::fs::metadata(path).ok());
        Self(found.map(|found| (found.dev(), found.ino(), found.mtime(), found.ctime())))
    }
}

impl Nursery {
    /// Starts this executable anew as a jail, and waits until it takes orders.
    pub(super) async fn start(profile: &Profile) -> Result<Self, Refused> {
        let cgroups = cgroups(profile).await?;
        // Where sandboxes are one user's, what their programs have on their way is held against whoever sends descriptors.
        raise_open_files();
        let (orders, theirs) = Socket::pair().map_err(Refused::jail)?;
        let stamp = Stamp::of(profile);
        let settings = Settings::new(profile, name(), host_uids());
        let (zygote, zygotes_end) = if settings.forks() {
            let (ours, theirs) = Socket::pair().map_err(Refused::jail)?;
            (Some(Arc::new(ours)), Some(theirs))
        } else {
            (None, None)
        };
        let keeper = spawn(theirs).map_err(Refused::jail)?;
        let descriptors: Vec<BorrowedFd<'_>> = zygotes_end.iter().map(OwnedFd::as_fd).collect();
        orders.send(&settings, &descriptors).await.map_err(Refused::jail)?;
        drop(zygotes_end);
        let up = async {
            match orders.receive::<News>().await.map_err(Refused::jail)? {
                Some((News::Up, _)) => {}
                Some((News::Down(refused), _)) => return Err(refused),
                _ => return Err(Refused::jail("it ended before it was up")),
            }
            let Some(zygote) = &zygote else { return Ok(()) };
            match zygote.receive::<SaidOnce>().await.map_err(Refused::jail)? {
                Some((SaidOnce::Up { .. }, _)) => Ok(()),
                Some((SaidOnce::Refused { refused, .. }, _)) => Err(refused),
                _ => Err(Refused::new("preload", "the interpreter ended before it was up")),
            }
        };
        timeout(UP_MAX, up).await.map_err(|_| Refused::jail("it took too long to be up"))??;
        let mut nursery = Self {
            orders: Arc::new(orders),
            zygote,
            listeners: Listeners::default(),
            is_down: Arc::default(),
            readers: Vec::new(),
            settings,
            stamp,
            own: Own::look()?,
            filter: if profile.has(Layer::Seccomp) {
                filter::fingerprint(profile.filter())?
            } else {
                String::new()
            },
            cgroups,
            begun: AtomicU64::new(0),
            born: Instant::now(),
            keeper: Some(keeper),
        };
        nursery.listen();
        Ok(nursery)
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What its sandboxes are compared with.
    pub(super) fn own(&self) -> &Own {
        &self.own
    }

    /// Which system call filter they have (`filter::fingerprint`); empty where they have none.
    pub(super) fn filter(&self) -> &str {
        &self.filter
    }

    /// Where their cgroups are made; none where they get none.
    pub(super) fn cgroups(&self) -> Option<Arc<Parents>> {
        self.cgroups.clone()
    }

    /// The interpreter that it was started with.
    pub(super) fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    pub(super) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Acquire)
    }

    /// How many sandboxes it has begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) fn age(&self) -> Duration {
        self.born.elapsed()
    }

    /// A number for a sandbox, and where its notes come in.
    pub(super) fn enrol(&self) -> (u64, mpsc::UnboundedReceiver<Note>) {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        // Bounded by what one sandbox can make happen: a handful.
        let (listener, notes) = mpsc::unbounded_channel();
        if let Ok(mut listeners) = self.listeners.lock() {
            listeners.insert(number, listener);
        }
        (number, notes)
    }

    pub(super) fn strike_off(&self, number: u64) {
        if let Ok(mut listeners) = self.listeners.lock() {
            listeners.remove(&number);
        }
    }

    pub(super) async fn build(&self, number: u64, descriptors: &[BorrowedFd<'_>]) -> Result<(), Refused> {
        self.orders.send(&Order::Build { number }, descriptors).await.map_err(Refused::jail)
    }

    pub(super) async fn fork(&self, number: u64, descriptors: &[BorrowedFd<'_>]) -> Result<(), Refused> {
        let zygote = self.zygote.as_ref().ok_or_else(|| Refused::jail("there is nothing to fork"))?;
        let order = number.to_le_bytes();
        zygote.sending(|socket| send_bytes(socket, &order, descriptors)).await.map_err(Refused::jail)
    }

    /// Ends it, and waits until it is gone.
    pub(super) async fn end(mut self) {
        let keeper = self.keeper.take();
        for reader in std::mem::take(&mut self.readers) {
            reader.abort();
            let _aborted = reader.await;
        }
        drop(self);
        if let Some(mut keeper) = keeper {
            let _gone = timeout(END_MAX, keeper.wait()).await;
        }
    }

    fn listen(&mut self) {
        let (orders, listeners, is_down) =
            (self.orders.clone(), self.listeners.clone(), self.is_down.clone());
        self.readers.push(tokio::spawn(async move {
            while let Ok(Some((news, descriptors))) = orders.receive::<News>().await {
                note_of_news(&listeners, news, descriptors);
            }
            is_down.store(true, Ordering::Release);
            refuse_all(&listeners);
        }));
        let Some(zygote) = self.zygote.clone() else { return };
        let (listeners, is_down) = (self.listeners.clone(), self.is_down.clone());
        self.readers.push(tokio::spawn(async move {
            while let Ok(Some((bytes, descriptors))) = zygote.receive_bytes().await {
                let Some(said) = Said::read(&bytes) else { break };
                note_of_zygote(&listeners, said, descriptors);
            }
            is_down.store(true, Ordering::Release);
            refuse_all(&listeners);
        }));
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        // With the tasks go the sockets, and with those the nursery.
        self.readers.iter().for_each(JoinHandle::abort);
    }
}

fn note_of_news(listeners: &Listeners, news: News, descriptors: Vec<OwnedFd>) {
    match news {
        News::Born { number, host_uid } => {
            let note = descriptors.into_iter().next().map_or_else(
                || Note::Refused(Refused::jail("a sandbox came without a handle")),
                |pidfd| Note::Born { pidfd, host_uid },
            );
            tell(listeners, number, note);
        }
        News::NotBorn { number, refused } => tell(listeners, number, Note::Refused(refused)),
        News::Gone { number, cpu_us, memory_peak_bytes } => {
            tell(listeners, number, Note::Gone { cpu_us, memory_peak_bytes });
        }
        News::Up | News::Down(_) => {}
    }
}

fn note_of_zygote(listeners: &Listeners, said: Said, descriptors: Vec<OwnedFd>) {
    match said {
        Said::Forked { number } => {
            let note = descriptors.into_iter().next().map_or_else(
                || Note::Refused(Refused::jail("a fork came without a handle")),
                |pidfd| Note::Forked { pidfd },
            );
            tell(listeners, number, note);
        }
        Said::Ended { number, code, cpu_us, memory_peak_bytes } => {
            tell(listeners, number, Note::ProgramEnded { code, cpu_us, memory_peak_bytes });
        }
        Said::Other(SaidOnce::Refused { refused, number: Some(number) }) => {
            tell(listeners, number, Note::Refused(refused));
        }
        Said::Other(_) => {}
    }
}

fn tell(listeners: &Listeners, number: u64, note: Note) {
    if let Ok(listeners) = listeners.lock()
        && let Some(listener) = listeners.get(&number)
    {
        let _gone_already = listener.send(note);
    }
}

/// Whoever still waits for news waits for nothing.
fn refuse_all(listeners: &Listeners) {
    if let Ok(mut listeners) = listeners.lock() {
        listeners.clear();
    }
}

async fn cgroups(profile: &Profile) -> Result<Option<Arc<Parents>>, Refused> {
    if profile.resources != Resources::Cgroup || !profile.has(Layer::Limits) {
        return Ok(None);
    }
    let found = spawn_blocking(Parents::find).await.map_err(Refused::jail)?;
    let found = Arc::new(found.map_err(|error| Refused::new("limits", error))?);
    let expecting = found.clone();
    // Nobody waits for it.
    let _began = spawn_blocking(move || expecting.expect_a_move());
    Ok(Some(found))
}

/// Starts this executable as a jail: no environment, its control socket as its input, no output.
fn spawn(control: OwnedFd) -> io::Result<Child> {
    Command::new("/proc/self/exe")
        .arg0(JAIL_NAME)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(control))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
}

/// Names a nursery and the cgroups of its sandboxes: apart from another gateway's that had the same process id before a crash,
/// as the first process of a container has.
fn name() -> String {
    let mut random = [0; 8];
    // Without randomness the name is only less unlike others.
    let _filled = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    format!("ringfence-{}-{:016x}", std::process::id(), u64::from_ne_bytes(random))
}

/// Users of the host that nobody else is, where the service is root; otherwise the service's own.
fn host_uids() -> (u32, u32) {
    static NURSERIES: AtomicU64 = AtomicU64::new(0);
    let own = rustix::process::getuid();
    if !own.is_root() {
        return (own.as_raw(), 1);
    }
    // Apart by process, so that two gateways on one machine do not meet soon.
    let block = u64::from(std::process::id()).wrapping_mul(64) + NURSERIES.fetch_add(1, Ordering::Relaxed);
    let block = u32::try_from(block % u64::from(HOST_UID_BLOCKS)).unwrap_or(0);
    (HOST_UID_FIRST + block * HOST_UIDS, HOST_UIDS)
}
