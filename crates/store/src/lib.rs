//! What is kept on disk: the journal, append-only and tamper-evident, and the runs.
//!
//! Each entry hashes its predecessor and is tagged with the journal's key, and a signed head is kept apart. Only [`Journal::record`] turns a permit into a ticket.

mod chain;
mod counts;
mod database;
mod entry;
mod head;
mod head_file;
mod journal;
mod read;
mod runs;
mod verify;
mod writer;

pub use entry::{ArtifactRead, Closing, ClosingWord, RefusedCall};
pub use head::{Head, HeadKey, HeadRefused, new_key};
pub use journal::{Journal, JournalRefused, JournalSettings, NotRecorded, Role, Unreadable};
pub use read::{Filter, Shown, read};
pub use runs::{
    Ending, Lifetime, NoRun, Owner, Revocation, Revoked, RunFilter, Runs, RunsUnusable, Scope, Starting,
    StoredRun,
};
pub use verify::{Finding, FindingKind, Report, Span, verify};

#[cfg(test)]
mod tests;
