//! The journal as the pipeline sees it: record an intent, a refusal, an outcome. What cannot be recorded does not run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as Moment};

use ringfence_core::{
    CallId, Digest, Effect, EntryNumber, Instant, Label, Permit, Recorder, RunId, Secret, Ticket,
};
use tokio::sync::{mpsc, oneshot};

use crate::entry::{ArtifactRead, Closing, ClosingWord, Draft, RefusedCall};
use crate::writer::{Durable, Job, Writer};
use crate::{HeadKey, HeadRefused, database};

/// Entries that may wait for the writer.
const QUEUE_MAX: usize = 4096;
/// How long a call waits for a place in the queue.
const QUEUE_WAIT: Duration = Duration::from_secs(2);
/// Refused tokens that are journalled one by one in a second; the rest are counted.
const REJECTED_PER_SECOND: u32 = 20;

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

/// The open journal.
pub struct Journal {
    recorder: Recorder,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    is_healthy: Arc<AtomicBool>,
    labels: BTreeMap<RunId, BTreeSet<Label>>,
    rejected: Mutex<Rejected>,
    /// Held shared as long as the journal is open.
    _lock: File,
}

/// How many refused tokens were seen in the current second.
struct Rejected {
    since: Moment,
    seen: u32,
    unrecorded: u64,
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
        std::fs::create_dir_all(&settings.folder).map_err(|error| unusable(&error))?;
        let head_folder = settings.head_file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(head_folder).map_err(|error| unusable(&error))?;
        let key = HeadKey::new(settings.key)
            .map_err(|error| JournalRefused::Head(settings.head_file.display().to_string(), error))?;
        let lock = File::create(settings.folder.join("journal.lock")).map_err(|error| unusable(&error))?;
        let alone = lock_alone(&lock, &shown)?;
        let connection = database::open(&settings.folder).map_err(corrupt)?;
        check_head(&connection, &key, &settings.head_file, &shown)?;
        let log = File::open(settings.folder.join("journal.db-wal")).map_err(|error| unusable(&error))?;
        let labels = database::labels(&connection).map_err(corrupt)?;
        let is_healthy = Arc::new(AtomicBool::new(true));
        let schema_version = database::schema_version(&connection).map_err(corrupt)?;
        let mut writer = Writer {
            connection,
            schema_version,
            log,
            head_file: settings.head_file,
            key,
            unsynced_since: Some(Moment::now()),
            is_broken: false,
            is_healthy: is_healthy.clone(),
        };
        let drafts = first_entries(&writer, alone, &settings.program, &settings.configuration, now)
            .map_err(corrupt)?;
        writer.append(drafts).map_err(corrupt)?;
        let folder = File::open(&settings.folder).and_then(|folder| folder.sync_all());
        if writer.settle().is_err() || folder.is_err() {
            return Err(unusable(&"it could not be synced to disk"));
        }
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
            labels,
            rejected: Mutex::new(Rejected { since: Moment::now(), seen: 0, unrecorded: 0 }),
            _lock: lock,
        })
    }

    /// Records that an allowed call is about to run. A write waits until the entry is on disk; a read until it has its
    /// place, and is on disk within 50 ms.
    pub async fn record(&self, permit: Permit, effect: Effect) -> Result<Ticket, NotRecorded> {
        let durable = if effect == Effect::Read { Durable::Soon } else { Durable::First };
        let entry = self.append(Draft::intent(&permit, effect), durable).await?;
        Ok(Ticket::issue(&self.recorder, permit, entry))
    }

    /// Records that a call was refused.
    pub async fn refused(&self, refused: RefusedCall<'_>) -> Result<(), NotRecorded> {
        self.append(Draft::refused(&refused), Durable::Soon).await.map(drop)
    }

    /// Records that a token was refused. A flood of them is counted rather than kept.
    pub async fn rejected(&self, at: Instant, code: &str) {
        let Some(unrecorded) = self.count_rejected() else { return };
        if let Err(error) = self.append(Draft::rejected(at, code, unrecorded), Durable::Soon).await {
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

    /// What every run had touched when the journal was opened.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<RunId, BTreeSet<Label>> {
        &self.labels
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
        let _failed = send(&jobs, Draft::closed(now), Durable::First).await;
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

    /// How many were not recorded before this one, which is; `None` where this one is not either.
    fn count_rejected(&self) -> Option<u64> {
        let mut rejected = self.rejected.lock().ok()?;
        if rejected.since.elapsed() >= Duration::from_secs(1) {
            (rejected.since, rejected.seen) = (Moment::now(), 0);
        }
        rejected.seen += 1;
        if rejected.seen > REJECTED_PER_SECOND {
            rejected.unrecorded += 1;
            return None;
        }
        Some(std::mem::take(&mut rejected.unrecorded))
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

/// The journal must hold at least what its head says, unchanged at that place.
fn check_head(
    connection: &rusqlite::Connection,
    key: &HeadKey,
    file: &Path,
    shown: &str,
) -> Result<(), JournalRefused> {
    let corrupt = |error: rusqlite::Error| JournalRefused::Corrupt(shown.to_owned(), error.to_string());
    let (entries, _) = database::tail(connection).map_err(corrupt)?;
    let note = match std::fs::read_to_string(file) {
        Ok(note) => note,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && entries == 0 => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(JournalRefused::NotItsHead(shown.to_owned()));
        }
        Err(error) => return Err(JournalRefused::Folder(file.display().to_string(), error.to_string())),
    };
    let head = key.open(&note).map_err(|error| JournalRefused::Head(file.display().to_string(), error))?;
    let hash = database::hash_at(connection, head.entries).map_err(corrupt)?;
    if hash == Some(head.hash) { Ok(()) } else { Err(JournalRefused::NotItsHead(shown.to_owned())) }
}

fn first_entries(
    writer: &Writer,
    alone: bool,
    program: &str,
    configuration: &Digest,
    now: Instant,
) -> rusqlite::Result<Vec<Draft>> {
    let open = if alone { database::open_calls(&writer.connection)? } else { Vec::new() };
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
    drafts.push(Draft::opened(now, program, configuration, alone));
    Ok(drafts)
}
