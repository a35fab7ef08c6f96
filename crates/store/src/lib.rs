//! What is kept on disk: the journal, append-only and tamper-evident; the runs; and, sealed, the accounts that
//! users have connected.
//!
//! Each entry hashes its predecessor and is tagged with the journal's key, and a signed head is kept apart. Only [`Journal::record`] turns a permit into a ticket.

mod chain;
mod counts;
mod database;
mod entry;
mod grants;
mod head;
mod head_file;
mod journal;
mod read;
mod runs;
mod verify;
mod writer;

pub use entry::{ArtifactRead, Closing, ClosingWord, RefusedCall};
pub use grants::{GrantOwner, Grants, GrantsRefused, ListedGrant, SealedGrant};
pub use head::{Head, HeadKey, HeadRefused, new_key};
pub use journal::{Journal, JournalRefused, JournalSettings, NotRecorded, Role, Unreadable};
pub use read::{Filter, Shown, read};
pub use runs::{
    Begun, Ending, Lifetime, NoRun, Owner, Revocation, Revoked, RunFilter, Runs, RunsUnusable, Scope,
    Starting, StoredRun,
};
pub use verify::{Finding, FindingKind, Report, Span, verify};

#[cfg(test)]
mod tests;
