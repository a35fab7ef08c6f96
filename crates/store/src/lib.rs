//! What is kept on disk: the journal, append-only and tamper-evident.
//!
//! Each entry hashes its predecessor, and a signed head is kept apart. Only [`Journal::record`] turns a permit into a ticket.

mod database;
mod entry;
mod head;
mod journal;
mod read;
mod verify;
mod writer;

pub use entry::{ArtifactRead, Closing, ClosingWord, RefusedCall};
pub use head::{Head, HeadKey, HeadRefused, new_key};
pub use journal::{Journal, JournalRefused, JournalSettings, NotRecorded};
pub use read::{Filter, Shown, read};
pub use verify::{Finding, FindingKind, Report, verify};

#[cfg(test)]
mod tests;
