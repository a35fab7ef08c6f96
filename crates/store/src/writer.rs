//! The one thread that appends. What waits at the same time is committed together and made durable together.
//!
//! SQLite commits without a sync (`synchronous = normal`); a sync of the write-ahead log follows at once where an entry
//! must be durable, and within [`SYNC_WITHIN`] where it need not be. In WAL mode a commit is durable when its frames in the
//! log are (<https://www.sqlite.org/wal.html>), and one sync covers all that came before it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant as Moment};

use aws_lc_rs::rand;
use ringfence_core::EntryNumber;
use rusqlite::{Connection, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use crate::entry::{Draft, chain};
use crate::journal::NotRecorded;
use crate::{Head, HeadKey, database};

/// Entries that are committed together at the most.
const GROUP_MAX: usize = 256;
/// An entry that need not be durable at once is so after this time.
const SYNC_WITHIN: Duration = Duration::from_millis(50);

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
    pub(crate) log: File,
    pub(crate) head_file: PathBuf,
    pub(crate) key: HeadKey,
    /// Since when there are entries that are not synced and signed.
    pub(crate) unsynced_since: Option<Moment>,
}

impl Writer {
    /// Appends what comes until nobody is left to send.
    pub(crate) fn run(mut self, jobs: &mut mpsc::Receiver<Job>, runtime: &tokio::runtime::Runtime) {
        loop {
            let next = match self.unsynced_since {
                None => jobs.blocking_recv(),
                Some(since) => {
                    let wait = (since + SYNC_WITHIN).saturating_duration_since(Moment::now());
                    let next = runtime.block_on(async { tokio::time::timeout(wait, jobs.recv()).await });
                    let Ok(next) = next else {
                        self.settle();
                        continue;
                    };
                    next
                }
            };
            let Some(first) = next else { break };
            let mut group = vec![first];
            while group.len() < GROUP_MAX {
                let Ok(more) = jobs.try_recv() else { break };
                group.push(more);
            }
            self.append_group(group);
        }
        self.settle();
    }

    fn append_group(&mut self, group: Vec<Job>) {
        let (drafts, waiting): (Vec<Draft>, Vec<_>) =
            group.into_iter().map(|job| (job.draft, (job.durable, job.answer))).unzip();
        let first = match self.append(drafts) {
            Ok(first) => first,
            Err(error) => {
                tracing::error!(%error, "the journal could not be written");
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
        let synced = self.settle();
        for (_, answer, number) in later {
            let result = if synced {
                Ok(number)
            } else {
                Err(NotRecorded::Failed("it could not be synced to disk".into()))
            };
            let _nobody_waits = answer.send(result);
        }
    }

    /// Appends in one transaction; returns the number of the first. The chain is read inside it, since another process may
    /// have appended.
    pub(crate) fn append(&mut self, drafts: Vec<Draft>) -> rusqlite::Result<u64> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (mut number, mut hash) = database::tail(&transaction)?;
        let first = number + 1;
        for draft in drafts {
            number += 1;
            let (leaf, payload) = draft.place(number, salt()?);
            hash = chain(number, &hash, &leaf);
            let at = i64::try_from(number).unwrap_or(i64::MAX);
            transaction
                .prepare_cached("INSERT INTO entries (number, leaf, hash) VALUES (?1, ?2, ?3)")?
                .execute(params![at, leaf, hash.as_bytes()])?;
            if let Some(payload) = payload {
                transaction
                    .prepare_cached("INSERT INTO payloads (number, salt, text) VALUES (?1, ?2, ?3)")?
                    .execute(params![at, payload.salt, payload.text])?;
            }
        }
        transaction.commit()?;
        Ok(first)
    }

    /// Syncs the log and signs the head. Whether the entries are on disk.
    pub(crate) fn settle(&mut self) -> bool {
        if self.unsynced_since.is_none() {
            return true;
        }
        // The end as it is now, entries of other processes included: their heads must not be taken back.
        let last = database::tail(&self.connection);
        if let Err(error) = self.log.sync_data() {
            tracing::error!(%error, "the journal could not be synced to disk");
            return false;
        }
        self.unsynced_since = None;
        let head =
            last.map(|(entries, hash)| self.key.sign(&Head { entries, hash })).map_err(std::io::Error::other);
        if let Err(error) = head.and_then(|note| write_head(&self.head_file, &note)) {
            // The chain itself stands; only what happened since the last head could be cut off unseen.
            tracing::error!(%error, "the journal's head could not be written");
        }
        true
    }
}

fn salt() -> rusqlite::Result<[u8; 16]> {
    let mut salt = [0; 16];
    rand::fill(&mut salt)
        .map_err(|_| rusqlite::Error::InvalidParameterName("no randomness for a salt".into()))?;
    Ok(salt)
}

/// Replaces the head as a whole: a reader sees the old one or the new one.
fn write_head(path: &Path, note: &str) -> std::io::Result<()> {
    let draft = path.with_extension(format!("head-{}", std::process::id()));
    std::fs::write(&draft, note)?;
    std::fs::rename(&draft, path)
}
