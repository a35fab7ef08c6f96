//! Proves that a journal is what was written, or says which entry is not.

use std::path::Path;

use ringfence_core::Digest;
use rusqlite::Connection;
use serde::Serialize;
use serde_json::Value;

use crate::entry::{Payload, chain};
use crate::{Head, HeadKey, database};

/// What is wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// An entry's text or hash is not what was written.
    Altered,
    /// Entries that were not written with the journal's key.
    Forged,
    /// An entry is not there.
    Missing,
    /// An entry stands in another one's place.
    Reordered,
    /// The end was cut off.
    Truncated,
    /// The chain is whole, but it is not the one that the head was made of.
    Replaced,
    /// A payload is not the one that its entry commits to, is missing, or belongs to no entry.
    PayloadAltered,
    /// The file holds tables or triggers that are not the journal's own.
    Schema,
    /// The head is missing, or its signature does not match.
    Head,
    /// The file cannot be read.
    Unreadable,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// Its kind.
    pub kind: FindingKind,
    /// The entry; 0 where it concerns the journal as a whole.
    pub entry: u64,
    /// What is wrong, in a sentence.
    pub what: String,
}

/// What was found.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Report {
    /// Entries that are there.
    pub entries: u64,
    /// Entries that the head covers; younger ones could be cut off unseen.
    pub covered: u64,
    /// Entries that a crash left beyond the head. They carry the key's tag; what may have stood after them is not known.
    pub unsigned: Vec<Span>,
    /// What is wrong; empty where the journal is what was written.
    pub findings: Vec<Finding>,
}

/// Entries from one to another, both included.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Span {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    fn forged(&mut self, Span { from, to }: Span) {
        let which =
            if from == to { format!("entry {from} was") } else { format!("entries {from} to {to} were") };
        self.find(FindingKind::Forged, from, format!("{which} not written with this journal's key"));
    }

    fn find(&mut self, kind: FindingKind, entry: u64, what: impl Into<String>) {
        self.findings.push(Finding { kind, entry, what: what.into() });
    }
}

/// Findings after which there is no point in going on.
const FINDINGS_MAX: usize = 100;

/// Verifies every entry, every payload and, against its signed note, the end. `head` is the note, if there is one.
#[must_use]
pub fn verify(folder: &Path, key: &HeadKey, head: Option<&str>) -> Report {
    let mut report = Report::default();
    let head = match head.map(|note| key.open(note)) {
        Some(Ok(head)) => Some(head),
        Some(Err(error)) => {
            report.find(FindingKind::Head, 0, error.to_string());
            None
        }
        None => {
            report.find(
                FindingKind::Head,
                0,
                "there is no head, so whether the end was cut off cannot be known",
            );
            None
        }
    };
    // A missing file must not be made by looking at it.
    let walked =
        database::open_to_read(folder).and_then(|connection| walk(&connection, key, head, &mut report));
    if let Err(error) = walked {
        report.find(
            FindingKind::Unreadable,
            report.entries + 1,
            format!("the file cannot be read on from here: {error}"),
        );
    }
    report
}

fn walk(
    connection: &Connection,
    key: &HeadKey,
    head: Option<Head>,
    report: &mut Report,
) -> rusqlite::Result<()> {
    if let Some(what) = database::foreign(connection)? {
        report.find(FindingKind::Schema, 0, what);
    }
    let mut statement = connection.prepare(
        "SELECT entries.number, leaf, hash, salt, text, tag FROM entries LEFT JOIN payloads USING (number) ORDER BY number",
    )?;
    let mut rows = statement.query([])?;
    let (mut expected, mut previous) = (1_u64, Digest::ZERO);
    let mut forged: Option<Span> = None;
    let mut at_head = head.filter(|head| head.entries == 0).map(|_| Digest::ZERO);
    while let Some(row) = rows.next()? {
        let number = u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0);
        let leaf: String = row.get(1)?;
        let hash: Digest = row.get::<_, [u8; 32]>(2)?.into();
        let payload = match (row.get::<_, Option<[u8; 16]>>(3)?, row.get::<_, Option<String>>(4)?) {
            (Some(salt), Some(text)) => Some(Payload { salt, text }),
            _ => None,
        };
        if number != expected {
            let what = format!("entries {expected} to {} are missing", number.saturating_sub(1));
            report.find(FindingKind::Missing, expected, what);
        }
        judge(number, &leaf, &hash, &previous, number == expected, report);
        judge_payload(number, &leaf, payload.as_ref(), report);
        if key.made(&row.get(5)?, &hash) {
            if let Some(span) = forged.take() {
                report.forged(span);
            }
            report.unsigned.extend(unsigned(&leaf));
        } else {
            forged = Some(Span { from: forged.map_or(number, |span| span.from), to: number });
        }
        if head.is_some_and(|head| head.entries == number) {
            at_head = Some(hash);
        }
        report.entries += 1;
        (expected, previous) = (number.saturating_add(1), hash);
        if report.findings.len() >= FINDINGS_MAX {
            return Ok(());
        }
    }
    if let Some(span) = forged {
        report.forged(span);
    }
    if let Some(head) = head {
        judge_end(head, at_head, expected - 1, report);
    }
    if let Some(orphan) = database::orphan_payload(connection)? {
        let what = format!("there is a payload for entry {orphan}, which does not exist");
        report.find(FindingKind::PayloadAltered, orphan, what);
    }
    Ok(())
}

/// What an entry says that a crash left beyond the head.
fn unsigned(leaf: &str) -> Option<Span> {
    let leaf: Value = serde_json::from_str(leaf).ok()?;
    let span = leaf.get("unsigned").filter(|_| leaf.get("kind").is_some_and(|kind| kind == "opened"))?;
    Some(Span { from: span.get(0)?.as_u64()?, to: span.get(1)?.as_u64()? })
}

fn judge(number: u64, leaf: &str, hash: &Digest, previous: &Digest, follows: bool, report: &mut Report) {
    let says = serde_json::from_str::<Value>(leaf).ok().and_then(|leaf| leaf.get("number")?.as_u64());
    if let Some(says) = says.filter(|says| *says != number) {
        report.find(
            FindingKind::Reordered,
            number,
            format!("entry {says} stands in the place of entry {number}"),
        );
    } else if follows && chain(number, previous, leaf) != *hash {
        report.find(FindingKind::Altered, number, format!("entry {number} is not what was written"));
    }
}

fn judge_payload(number: u64, leaf: &str, payload: Option<&Payload>, report: &mut Report) {
    let leaf: Value = serde_json::from_str(leaf).unwrap_or_default();
    let committed = leaf.get("payload").and_then(Value::as_str);
    match (committed, payload) {
        (Some(_), None) => {
            let what = format!("the payload of entry {number} is missing");
            report.find(FindingKind::PayloadAltered, number, what);
        }
        (Some(committed), Some(payload)) if payload.commitment().to_string() != committed => {
            report.find(
                FindingKind::PayloadAltered,
                number,
                format!("the payload of entry {number} is not what was written"),
            );
        }
        (None, Some(_)) => {
            report.find(
                FindingKind::PayloadAltered,
                number,
                format!("entry {number} has a payload that it does not commit to"),
            );
        }
        _ => {}
    }
}

fn judge_end(head: Head, at_head: Option<Digest>, last: u64, report: &mut Report) {
    report.covered = head.entries.min(last);
    if last < head.entries {
        let what = format!("the journal ends at entry {last}, but its head covers {}", head.entries);
        report.find(FindingKind::Truncated, last + 1, what);
    } else if at_head != Some(head.hash) && report.findings.is_empty() {
        let what = format!(
            "the chain is whole, but entry {} is not the one that the head was made of",
            head.entries
        );
        report.find(FindingKind::Replaced, head.entries, what);
    }
}
