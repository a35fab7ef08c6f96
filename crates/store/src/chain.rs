//! Follows the chain: what stands in the file after a place that is known must have been written with the journal's key.

use rusqlite::Connection;

use crate::entry::chain;
use crate::{Head, HeadKey, database};

/// Why the chain cannot be followed.
#[derive(Debug)]
pub(crate) enum NotFollowed {
    /// The file cannot be read.
    Sql(rusqlite::Error),
    /// Entries that were there are not, or are others.
    Cut,
    /// An entry that was not written with the key.
    Forged(u64),
}

impl From<rusqlite::Error> for NotFollowed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// The end of the chain, where everything after `known` was written with this key, by whichever process.
pub(crate) fn follow(connection: &Connection, key: &HeadKey, known: Head) -> Result<Head, NotFollowed> {
    let tail = database::tail(connection)?;
    if tail == known {
        return Ok(known);
    }
    if database::hash_at(connection, known.entries)? != Some(known.hash) {
        return Err(NotFollowed::Cut);
    }
    let mut end = known;
    database::after(connection, known.entries, |entry| {
        let number = end.entries.saturating_add(1);
        let is_next = entry.number == number && entry.hash == chain(number, &end.hash, &entry.leaf);
        if !is_next || !key.made(&entry.tag, &entry.hash) {
            return Err(NotFollowed::Forged(entry.number));
        }
        end = Head { entries: number, hash: entry.hash };
        Ok(())
    })??;
    Ok(end)
}
