//! The journal as the pipeline sees it: record an intent, a refusal, an outcome. What cannot be recorded does not run.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as Moment};

use ringfence_core::{
    CallId, Digest, Effect, EntryNumber, Instant, Label, Permit, Recorder, Run, RunId, Secret, Ticket,
};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::chain::{NotFollowed, follow};
use crate::counts::{Counts, Refusing};
use crate::entry::{ArtifactRead, Closing, ClosingWord, Draft, Opening, RefusedCall};
use crate::head_file::HeadFile;
use crate::writer::{Durable, Job, Writer};
use crate::{Head, HeadKey, HeadRefused, Revocation, Revoked, database};

/// Entries that may wait for the writer.
const QUEUE_MAX: usize = 4096;
/// How long a call waits for a place in the queue.
const QUEUE_WAIT: Duration = Duration::from_secs(2);
/// How long a call waits for the file before its run's labels are not known.
const READ_WAIT: Duration = Duration::from_millis(250);

/// Where a journal is and what it is for.
pub struct JournalSettings<'a> {
    /// The folder of the database.
    pub folder: PathBuf,
    /// The file of the signed head: best where the gateway's account can append but not rewrite.
    pub head_file: PathBuf,
    /// The key that signs heads, from [`crate::new_key`].
    pub key: &'a Secret,
    /// The program that opens it.
    pub program: String,
    /// The digest of the project's files.
    pub configuration: Digest,
    /// What it is opened for.
    pub role: Role,
}

/// What a journal is opened for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// To serve agents: one process at a time.
    Server,
    /// For a call from the command line, also beside a server.
    Visitor,
}

/// A journal cannot be opened. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum JournalRefused {
    /// The folder or a file cannot be used.
    #[error("the journal's folder `{0}` cannot be used: {1}; make it writable for this user")]
    Folder(String, String),
    /// Another process has it for itself.
    #[error("the journal in `{0}` is locked by another process; stop that process and try again")]
    Locked(String),
    /// Another gateway serves it.
    #[error(
        "another gateway serves the journal in `{0}` already; stop it first, or give this one a `[journal] folder` of its own"
    )]
    Served(String),
    /// It is not a journal, or cannot be read.
    #[error(
        "the journal in `{0}` cannot be read: {1}; run `ringfence journal verify`, and keep the file: move it away to start a new one"
    )]
    Corrupt(String, String),
    /// Its end is not what its head says.
    #[error(
        "the journal in `{0}` is not the one that its signed head was made of; run `ringfence journal verify`, and keep both files: move them away to start a new journal"
    )]
    NotItsHead(String),
    /// Its head was taken away.
    #[error(
        "there is a journal in `{0}`, and its signed head is gone; put the head back, or move `journal.db` away and keep it, to start a new journal"
    )]
    HeadGone(String),
    /// The head is there, and the journal was taken away.
    #[error(
        "there is a signed head for the journal in `{0}`, and `journal.db` is gone; put it back, or move the head away and keep it, to start a new journal"
    )]
    FileGone(String),
    /// Someone without its key wrote into it.
    #[error(
        "the journal in `{0}` holds entry {1}, which was not written with its key; run `ringfence journal verify`, and keep the files: move `journal.db` and the head away to start a new journal"
    )]
    Forged(String, u64),
    /// The head or key is not sound.
    #[error("the journal's head `{0}` cannot be used: {1}; run `ringfence journal verify`")]
    Head(String, HeadRefused),
}

/// Something could not be recorded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotRecorded {
    /// Too much is waiting.
    #[error("too many entries are waiting to be written")]
    Full,
    /// Writing failed.
    #[error("the journal could not be written: {0}")]
    Failed(String),
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}

/// The journal cannot be read. For the log.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the journal could not be read: {0}")]
pub struct Unreadable(String);

/// The open journal.
pub struct Journal {
    recorder: Recorder,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    is_healthy: Arc<AtomicBool>,
    /// None once it is closed.
    reader: Mutex<Option<Connection>>,
    counts: Arc<Mutex<Option<Counts>>>,
    /// Held as long as the journal is open.
    _locks: Locks,
}

/// The locks on a journal.
struct Locks {
    /// Shared by all who have it open.
    _open: File,
    /// Of the one who serves.
    _serves: Option<File>,
}

impl Journal {
    /// Opens the journal, or makes it. Where no other process has it open, calls that a crash left open are closed as *unknown*.
    pub fn open(
        settings: JournalSettings<'_>,
        recorder: Recorder,
        now: Instant,
    ) -> Result<Self, JournalRefused> {
        let shown = settings.folder.display().to_string();
        let unusable =
            |error: &dyn std::fmt::Display| JournalRefused::Folder(shown.clone(), error.to_string());
        let corrupt = |error: rusqlite::Error| JournalRefused::Corrupt(shown.clone(), error.to_string());
        let key = HeadKey::new(settings.key)
            .map_err(|error| JournalRefused::Head(settings.head_file.display().to_string(), error))?;
        // Looked at before anything is made, so that a refusal leaves nothing behind.
        known_head(&settings, &key, &shown)?;
        std::fs::create_dir_all(&settings.folder).map_err(|error| unusable(&error))?;
        let head_folder = settings.head_file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(head_folder).map_err(|error| unusable(&error))?;
        let serves = lock_to_serve(&settings, &shown)?;
        let lock = File::create(settings.folder.join("journal.lock")).map_err(|error| unusable(&error))?;
        let alone = lock_alone(&lock, &shown)?;
        // Again: whoever had the journal open until now may have raised it.
        let head = known_head(&settings, &key, &shown)?;
        let head_file =
            HeadFile::new(settings.head_file, &settings.folder).map_err(|error| unusable(&error))?;
        if head == Head::NONE {
            // Before the first entry: a journal without a head is one whose head was taken away.
            head_file.raise(&key, &head).map_err(|error| unusable(&error))?;
        }
        let connection = database::open(&settings.folder).map_err(corrupt)?;
        let proved = follow(&connection, &key, head).map_err(|error| match error {
            NotFollowed::Sql(error) => corrupt(error),
            NotFollowed::Cut => JournalRefused::NotItsHead(shown.clone()),
            NotFollowed::Forged(number) => JournalRefused::Forged(shown.clone(), number),
        })?;
        let log = File::open(settings.folder.join("journal.db-wal")).map_err(|error| unusable(&error))?;
        let is_healthy = Arc::new(AtomicBool::new(true));
        let schema_version = database::schema_version(&connection).map_err(corrupt)?;
        let counts = Arc::new(Mutex::new(Some(Counts::default())));
        let mut writer = Writer {
            connection,
            schema_version,
            log,
            head_file,
            key,
            proved,
            counts: counts.clone(),
            counted: Moment::now(),
            unsynced_since: Some(Moment::now()),
            is_broken: false,
            is_healthy: is_healthy.clone(),
        };
        let opening = Opening {
            program: &settings.program,
            configuration: &settings.configuration,
            alone,
            unsigned: (alone && proved != head).then(|| (head.entries + 1, proved.entries)),
        };
        let drafts = first_entries(&writer, &opening, now).map_err(corrupt)?;
        writer.append(drafts).map_err(corrupt)?;
        let folder = File::open(&settings.folder).and_then(|folder| folder.sync_all());
        if writer.settle().is_err() || folder.is_err() {
            return Err(unusable(&"it could not be synced to disk"));
        }
        let reader = database::open_to_read(&settings.folder).map_err(corrupt)?;
        reader.busy_timeout(READ_WAIT).map_err(corrupt)?;
        if alone {
            // From here on others may join: what is open now belongs to someone who runs.
            lock.lock_shared().map_err(|error| unusable(&error))?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| unusable(&error))?;
        let (jobs, mut waiting) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer.run(&mut waiting, &runtime));
        Ok(Self {
            recorder,
            jobs: Mutex::new(Some(jobs)),
            writer: Mutex::new(Some(thread.map_err(|error| unusable(&error))?)),
            is_healthy,
            reader: Mutex::new(Some(reader)),
            counts,
            _locks: Locks { _open: lock, _serves: serves },
        })
    }

    /// Records that an allowed call is about to run. A write waits until the entry is on disk; a read until it has its
    /// place, and is on disk within 50 ms.
    pub async fn record(&self, permit: Permit, effect: Effect) -> Result<Ticket, NotRecorded> {
        let durable = if effect == Effect::Read { Durable::Soon } else { Durable::First };
        let entry = self.append(Draft::intent(&permit, effect), durable).await?;
        Ok(Ticket::issue(&self.recorder, permit, entry))
    }

    /// Records that a call was refused. Of a flood each is counted by its code, and the counts are recorded soon.
    pub async fn refused(&self, refused: RefusedCall<'_>) -> Result<(), NotRecorded> {
        if !self.keeps(Refusing::Run(refused.run.id().clone()), refused.code, refused.at)? {
            return Ok(());
        }
        self.append(Draft::refused(&refused), Durable::Soon).await.map(drop)
    }

    /// Records that a token was refused; a flood as [`Journal::refused`] does.
    pub async fn rejected(&self, at: Instant, code: &'static str) {
        let recorded = match self.keeps(Refusing::Tokens, code, at) {
            Ok(false) => return,
            Ok(true) => self.append(Draft::rejected(at, code), Durable::Soon).await.map(drop),
            Err(closed) => Err(closed),
        };
        if let Err(error) = recorded {
            tracing::error!(%error, "a refused token could not be recorded");
        }
    }

    /// Records how a call ended, and waits until that has its place: the run's labels grow by it, or something was changed.
    pub async fn outcome(&self, call: CallId, closing: Closing, at: Instant) -> Result<(), NotRecorded> {
        self.append(Draft::outcome(call, &closing, at), Durable::Soon).await.map(drop)
    }

    /// Records how a call ended that only read, and added no label. It is queued, and so before whatever comes later; if it is
    /// lost all the same, the call is closed as *unknown* at the next start.
    pub async fn outcome_of_read(
        &self,
        call: CallId,
        closing: Closing,
        at: Instant,
    ) -> Result<(), NotRecorded> {
        let jobs = self.jobs.lock().ok().and_then(|jobs| jobs.clone()).ok_or(NotRecorded::Closed)?;
        queue(&jobs, Draft::outcome(call, &closing, at), Durable::Soon).await.map(drop)
    }

    /// Records that the labels of a call's result are on its run already, and waits until that has its place: the agent is
    /// about to see the first of it.
    pub async fn labelled(
        &self,
        call: CallId,
        run: &RunId,
        yields: &[Label],
        at: Instant,
    ) -> Result<(), NotRecorded> {
        self.append(Draft::labelled(call, run, yields, at), Durable::Soon).await.map(drop)
    }

    /// Records what was decided about a connection of a call's program. One that is allowed waits until the entry is on disk.
    pub async fn egress(
        &self,
        call: CallId,
        decision: &serde_json::Value,
        at: Instant,
    ) -> Result<(), NotRecorded> {
        let is_allowed = decision.get("verdict").is_some_and(|verdict| verdict == "allow");
        let durable = if is_allowed { Durable::First } else { Durable::Soon };
        self.append(Draft::egress(call, decision, at), durable).await.map(drop)
    }

    /// Records that a run reads a file that one of its calls had made, and waits until that has its place.
    pub async fn artifact_read(&self, read: ArtifactRead<'_>) -> Result<(), NotRecorded> {
        self.append(Draft::artifact_read(&read), Durable::Soon).await.map(drop)
    }

    /// What a run has touched, by whichever process: the file alone remembers it.
    pub fn labels(&self, run: &RunId) -> Result<BTreeSet<Label>, Unreadable> {
        let reader = self.reader.lock().map_err(|_| Unreadable("a reader panicked".into()))?;
        let reader = reader.as_ref().ok_or_else(|| Unreadable("the journal is closed".into()))?;
        database::labels(reader, run).map_err(|error| Unreadable(error.to_string()))
    }

    /// Records that a run began. One that an application started waits until the entry is on disk.
    pub async fn run_started(&self, run: &Run, at: Instant) -> Result<(), NotRecorded> {
        let durable = if run.terms().application.is_some() { Durable::First } else { Durable::Soon };
        self.append(Draft::run_started(run, at), durable).await.map(drop)
    }

    /// Records what was revoked, and waits until the entry is on disk.
    pub async fn run_revoked(
        &self,
        revocation: &Revocation<'_>,
        revoked: &Revoked,
        at: Instant,
    ) -> Result<(), NotRecorded> {
        self.append(Draft::run_revoked(revocation, revoked, at), Durable::First).await.map(drop)
    }

    /// Whether any run was ever begun or revoked.
    pub(crate) fn knows_of_runs(&self) -> Result<bool, Unreadable> {
        let reader = self.reader.lock().map_err(|_| Unreadable("a reader panicked".into()))?;
        let reader = reader.as_ref().ok_or_else(|| Unreadable("the journal is closed".into()))?;
        database::knows_of_runs(reader).map_err(|error| Unreadable(error.to_string()))
    }

    /// Whether entries can be written, synced and signed.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.is_healthy.load(Ordering::Relaxed)
    }

    /// Closes the journal in good order: what waits is written, synced and signed.
    pub async fn close(&self, now: Instant) {
        // Taken first, so that nothing stands after the closing entry.
        let Some(jobs) = self.jobs.lock().ok().and_then(|mut jobs| jobs.take()) else { return };
        let counts = self.counts.lock().ok().and_then(|mut counts| counts.take());
        for counted in counts.map(|mut counts| counts.take()).unwrap_or_default() {
            if let Err(error) = send(&jobs, Draft::counted(&counted), Durable::Soon).await {
                tracing::error!(%error, ?counted, "refusals that were counted could not be recorded");
            }
        }
        let _failed = send(&jobs, Draft::closed(now), Durable::First).await;
        // Before the writer's: the last connection folds the log into the file, and this one may not write.
        drop(self.reader.lock().ok().and_then(|mut reader| reader.take()));
        drop(jobs);
        let writer = self.writer.lock().ok().and_then(|mut writer| writer.take());
        if let Some(writer) = writer {
            let _joined = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }

    async fn append(&self, draft: Draft, durable: Durable) -> Result<EntryNumber, NotRecorded> {
        let jobs = self.jobs.lock().ok().and_then(|jobs| jobs.clone()).ok_or(NotRecorded::Closed)?;
        send(&jobs, draft, durable).await
    }

    fn keeps(&self, refusing: Refusing, code: &'static str, at: Instant) -> Result<bool, NotRecorded> {
        let mut counts = self.counts.lock().map_err(|_| NotRecorded::Closed)?;
        Ok(counts.as_mut().ok_or(NotRecorded::Closed)?.keeps(refusing, code, at))
    }
}

async fn send(jobs: &mpsc::Sender<Job>, draft: Draft, durable: Durable) -> Result<EntryNumber, NotRecorded> {
    queue(jobs, draft, durable).await?.await.unwrap_or(Err(NotRecorded::Closed))
}

type Answer = oneshot::Receiver<Result<EntryNumber, NotRecorded>>;

async fn queue(jobs: &mpsc::Sender<Job>, draft: Draft, durable: Durable) -> Result<Answer, NotRecorded> {
    let (answer, answered) = oneshot::channel();
    let sent = jobs.send_timeout(Job { draft, durable, answer }, QUEUE_WAIT).await;
    sent.map(|()| answered).map_err(|_| NotRecorded::Full)
}

/// Takes the lock: for itself where nobody else has the journal, shared where others have.
fn lock_alone(lock: &File, shown: &str) -> Result<bool, JournalRefused> {
    match lock.try_lock() {
        Ok(()) => return Ok(true),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => {
            return Err(JournalRefused::Folder(shown.to_owned(), error.to_string()));
        }
    }
    // Whoever has it alone is only starting, and shares it in a moment.
    for _ in 0..50 {
        if lock.try_lock_shared().is_ok() {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(JournalRefused::Locked(shown.to_owned()))
}

/// The lock of the one who serves.
fn lock_to_serve(settings: &JournalSettings<'_>, shown: &str) -> Result<Option<File>, JournalRefused> {
    if settings.role == Role::Visitor {
        return Ok(None);
    }
    let unusable = |error: std::io::Error| JournalRefused::Folder(shown.to_owned(), error.to_string());
    let lock = File::create(settings.folder.join("server.lock")).map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Err(JournalRefused::Served(shown.to_owned())),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

/// The head as it stands. A journal and its head belong together: only where there is neither, a new one begins.
fn known_head(settings: &JournalSettings<'_>, key: &HeadKey, shown: &str) -> Result<Head, JournalRefused> {
    let file = settings.head_file.display().to_string();
    let is_there = match database::path(&settings.folder).try_exists() {
        Ok(is_there) => is_there,
        Err(error) => return Err(JournalRefused::Folder(shown.to_owned(), error.to_string())),
    };
    let note = match std::fs::read_to_string(&settings.head_file) {
        Ok(note) => note,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_there => return Ok(Head::NONE),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(JournalRefused::HeadGone(shown.to_owned()));
        }
        Err(error) => return Err(JournalRefused::Folder(file, error.to_string())),
    };
    let head = key.open(&note).map_err(|error| JournalRefused::Head(file, error))?;
    if is_there || head == Head::NONE { Ok(head) } else { Err(JournalRefused::FileGone(shown.to_owned())) }
}

fn first_entries(writer: &Writer, opening: &Opening<'_>, now: Instant) -> rusqlite::Result<Vec<Draft>> {
    let open = if opening.alone { database::open_calls(&writer.connection)? } else { Vec::new() };
    if !open.is_empty() {
        tracing::warn!(
            calls = open.len(),
            "calls were under way when the gateway stopped; they are closed as unknown"
        );
    }
    let unknown = Closing {
        ended: ClosingWord::Unknown,
        code: Some("gateway_stopped".into()),
        duration_us: 0,
        rows: 0,
        bytes: 0,
        yields: None,
    };
    let ids = open.iter().filter_map(|call| serde_json::from_value(call.as_str().into()).ok());
    let mut drafts: Vec<Draft> = ids.map(|call| Draft::outcome(call, &unknown, now)).collect();
    drafts.push(Draft::opened(now, opening));
    Ok(drafts)
}
