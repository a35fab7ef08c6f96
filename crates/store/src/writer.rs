//! The one thread that appends. What waits at the same time is committed together and made durable together.
//!
//! SQLite commits without a sync (`synchronous = normal`); a sync of the write-ahead log follows at once where an entry
//! must be durable, and within [`SYNC_WITHIN`] where it need not be. In WAL mode a commit is durable when its frames in the
//! log are (<https://www.sqlite.org/wal.html>), and one sync covers all that came before it.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as Moment};

use aws_lc_rs::rand;
use ringfence_core::EntryNumber;
use rusqlite::{Connection, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use crate::chain::{NotFollowed, follow};
use crate::counts::{Counted, Counts};
use crate::entry::{Draft, chain};
use crate::head_file::HeadFile;
use crate::journal::NotRecorded;
use crate::{Head, HeadKey, database};

/// Entries that are committed together at the most.
const GROUP_MAX: usize = 256;
/// An entry that need not be durable at once is so after this time.
const SYNC_WITHIN: Duration = Duration::from_millis(50);
/// How often a journal that failed is tried again, and counts of refusals are written.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whether the answer waits for the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Durable {
    /// The answer comes when the entry is on disk.
    First,
    /// The answer comes when the entry is in its place; it is on disk soon after.
    Soon,
}

pub(crate) struct Job {
    pub(crate) draft: Draft,
    pub(crate) durable: Durable,
    pub(crate) answer: oneshot::Sender<Result<EntryNumber, NotRecorded>>,
}

pub(crate) struct Writer {
    pub(crate) connection: Connection,
    /// As it was when the schema was compared.
    pub(crate) schema_version: i64,
    pub(crate) log: File,
    pub(crate) head_file: HeadFile,
    pub(crate) key: HeadKey,
    /// The end of the chain as far as it was written with the key, by this process or another. Only this is ever signed.
    pub(crate) proved: Head,
    /// What was refused and not kept one by one; none once the journal is closing.
    pub(crate) counts: Arc<Mutex<Option<Counts>>>,
    /// When counts were last written.
    pub(crate) counted: Moment,
    /// Since when there are entries that are not synced and signed.
    pub(crate) unsynced_since: Option<Moment>,
    /// A sync failed. The kernel may have dropped what it could not write and say nothing of it the next time, so nothing
    /// more is believed until the file is opened anew.
    pub(crate) is_broken: bool,
    pub(crate) is_healthy: Arc<AtomicBool>,
}

impl Writer {
    /// Appends what comes until nobody is left to send.
    pub(crate) fn run(mut self, jobs: &mut mpsc::Receiver<Job>, runtime: &tokio::runtime::Runtime) {
        loop {
            let wait = self.next_look();
            let next = runtime.block_on(async { tokio::time::timeout(wait, jobs.recv()).await });
            let Ok(next) = next else {
                self.look();
                continue;
            };
            let Some(first) = next else { break };
            let mut group = vec![first];
            while group.len() < GROUP_MAX {
                let Ok(more) = jobs.try_recv() else { break };
                group.push(more);
            }
            self.append_group(group);
        }
        let _logged = self.settle();
    }

    /// How long to wait for entries at the most, before what stands is settled.
    fn next_look(&self) -> Duration {
        let settles = self.unsynced_since.filter(|_| self.is_healthy.load(Ordering::Relaxed));
        settles.map_or(LOOK_EVERY, |since| (since + SYNC_WITHIN).saturating_duration_since(Moment::now()))
    }

    /// Nobody has sent anything: what failed is tried again, what was counted is written, what stands is settled.
    fn look(&mut self) {
        if self.is_broken {
            return;
        }
        let is_well = self.probe().is_ok() && self.append_counts().is_ok() && self.settle().is_ok();
        self.is_healthy.store(is_well, Ordering::Relaxed);
    }

    /// Writes what was counted, once a second.
    fn append_counts(&mut self) -> rusqlite::Result<()> {
        if self.counted.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        self.counted = Moment::now();
        let counted: Vec<Counted> = self.with_counts(Counts::take).unwrap_or_default();
        if counted.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.append(counted.iter().map(Draft::counted).collect()) {
            tracing::error!(%error, "refusals that were counted could not be written; they are kept for later");
            self.with_counts(|counts| counted.into_iter().for_each(|counted| counts.add(counted)));
            return Err(error);
        }
        self.unsynced_since.get_or_insert_with(Moment::now);
        Ok(())
    }

    fn with_counts<T>(&self, with: impl FnOnce(&mut Counts) -> T) -> Option<T> {
        self.counts.lock().ok().and_then(|mut counts| counts.as_mut().map(with))
    }

    /// Whether an entry could be written now.
    fn probe(&mut self) -> rusqlite::Result<()> {
        if self.is_healthy.load(Ordering::Relaxed) {
            return Ok(());
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if database::schema_version(&transaction)? != self.schema_version {
            return Err(failed("its tables were changed by someone else"));
        }
        follow(&transaction, &self.key, self.proved).map_err(not_followed)?;
        transaction.commit()
    }

    fn append_group(&mut self, group: Vec<Job>) {
        // Before the group, which may end with the entry that closes the journal. A failure is logged, and shows below.
        let _kept_for_later = self.append_counts();
        let (drafts, waiting): (Vec<Draft>, Vec<_>) =
            group.into_iter().map(|job| (job.draft, (job.durable, job.answer))).unzip();
        let first = match self.append(drafts) {
            Ok(first) => first,
            Err(error) => {
                tracing::error!(%error, "the journal could not be written");
                self.is_healthy.store(false, Ordering::Relaxed);
                for (_, answer) in waiting {
                    let _nobody_waits = answer.send(Err(NotRecorded::Failed(error.to_string())));
                }
                return;
            }
        };
        self.unsynced_since.get_or_insert_with(Moment::now);
        let numbered = waiting
            .into_iter()
            .zip(first..)
            .map(|((durable, answer), number)| (durable, answer, EntryNumber(number)));
        let (later, now): (Vec<_>, Vec<_>) = numbered.partition(|(durable, _, _)| *durable == Durable::First);
        for (_, answer, number) in now {
            let _nobody_waits = answer.send(Ok(number));
        }
        if later.is_empty() && self.unsynced_since.is_some_and(|since| since.elapsed() < SYNC_WITHIN) {
            return;
        }
        let settled = self.settle();
        self.is_healthy.store(settled.is_ok(), Ordering::Relaxed);
        for (_, answer, number) in later {
            let result = settled.clone().map(|()| number).map_err(NotRecorded::Failed);
            let _nobody_waits = answer.send(result);
        }
    }

    /// Appends in one transaction; returns the number of the first. The chain is followed inside it, since another process
    /// may have appended; whoever has no key may not.
    pub(crate) fn append(&mut self, drafts: Vec<Draft>) -> rusqlite::Result<u64> {
        if self.is_broken {
            return Err(failed("a sync to disk failed; start the gateway anew once the disk is sound"));
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if database::schema_version(&transaction)? != self.schema_version {
            return Err(failed("its tables were changed by someone else"));
        }
        let Head { entries: mut number, mut hash } =
            follow(&transaction, &self.key, self.proved).map_err(not_followed)?;
        let first = number + 1;
        for draft in drafts {
            number += 1;
            let (leaf, payload) = draft.place(number, salt()?);
            hash = chain(number, &hash, &leaf);
            let at = i64::try_from(number).unwrap_or(i64::MAX);
            let written = transaction
                .prepare_cached("INSERT INTO entries (number, leaf, hash, tag) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![at, leaf, hash.as_bytes(), self.key.tag(&hash)])?;
            let kept = match payload {
                Some(payload) => transaction
                    .prepare_cached("INSERT INTO payloads (number, salt, text) VALUES (?1, ?2, ?3)")?
                    .execute(params![at, payload.salt, payload.text])?,
                None => 1,
            };
            if (written, kept) != (1, 1) {
                return Err(failed("an entry was swallowed"));
            }
        }
        let end = Head { entries: number, hash };
        if database::tail(&transaction)? != end {
            return Err(failed("its end is not what was written"));
        }
        transaction.commit()?;
        self.proved = end;
        Ok(first)
    }

    /// Syncs the log and signs the head; fails with what went wrong, which is logged.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        if self.unsynced_since.is_none() {
            return Ok(());
        }
        // Entries of other processes included, so that whoever closes last covers all.
        let proved = follow(&self.connection, &self.key, self.proved).map_err(|error| {
            let error = not_followed(error);
            tracing::error!(%error, "the journal is not what was written, and is not signed");
            error.to_string()
        })?;
        if let Err(error) = self.log.sync_data() {
            tracing::error!(%error, "the journal could not be synced to disk; nothing more is recorded until the gateway is started anew");
            (self.is_broken, self.unsynced_since) = (true, None);
            return Err("it could not be synced to disk".to_owned());
        }
        if let Err(error) = self.head_file.raise(&self.key, &proved) {
            tracing::error!(%error, "the journal's head could not be written");
            return Err("its head could not be written".to_owned());
        }
        self.proved = proved;
        self.unsynced_since = None;
        Ok(())
    }
}

fn not_followed(error: NotFollowed) -> rusqlite::Error {
    match error {
        NotFollowed::Sql(error) => error,
        NotFollowed::Cut => failed("entries were cut off or replaced by someone else"),
        NotFollowed::Forged(number) => {
            failed(&format!("entry {number} was not written with the journal's key"))
        }
    }
}

fn failed(why: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT),
        Some(why.to_owned()),
    )
}

fn salt() -> rusqlite::Result<[u8; 16]> {
    let mut salt = [0; 16];
    rand::fill(&mut salt)
        .map_err(|_| rusqlite::Error::InvalidParameterName("no randomness for a salt".into()))?;
    Ok(salt)
}
