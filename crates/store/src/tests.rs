//! The journal as its users and its enemies see it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;
use ringfence_core::{
    AgentId, Arguments, Authorities, Call, CallId, Claims, Decider, Digest, Effect, Instant, Label,
    ParamName, Permit, Principal, Refusal, RefusalClass, Retry, Run, Secret, SystemName, ToolName, Value,
    Verdict, Verifier, Wall,
};
use rusqlite::Connection;

use crate::{
    Closing, ClosingWord, Filter, FindingKind, HeadKey, Journal, JournalRefused, JournalSettings,
    RefusedCall, Report, new_key, read, verify,
};

const NOW: Instant = Instant(1_800_000_000_000);

struct Setting {
    folder: tempfile::TempDir,
    key: Secret,
}

struct Proofs {
    decider: Decider,
    verifier: Verifier,
}

impl Setting {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), key: new_key().unwrap() }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn open(&self) -> Result<(Journal, Proofs), JournalRefused> {
        let authorities = Authorities::establish();
        let settings = JournalSettings {
            folder: self.path().to_owned(),
            head_file: self.path().join("journal.head"),
            key: &self.key,
            program: "test".into(),
            configuration: Digest::ZERO,
        };
        let journal = Journal::open(settings, authorities.recorder, NOW)?;
        Ok((journal, Proofs { decider: authorities.decider, verifier: authorities.verifier }))
    }

    fn head(&self) -> String {
        std::fs::read_to_string(self.path().join("journal.head")).unwrap()
    }

    fn verify(&self) -> Report {
        let key = HeadKey::new(&self.key).unwrap();
        verify(self.path(), &key, Some(&self.head()))
    }

    fn kinds(&self) -> Vec<FindingKind> {
        self.verify().findings.into_iter().map(|finding| finding.kind).collect()
    }

    /// Changes the closed journal behind its back, as someone who can write its file would.
    fn tamper(&self, sql: &str) {
        let connection = Connection::open(self.path().join("journal.db")).unwrap();
        // A careful enemy puts the triggers and the index back, where what was changed lets them.
        let mut guards =
            connection.prepare("SELECT type, name, sql FROM sqlite_schema WHERE type <> 'table'").unwrap();
        let guards: Vec<[String; 3]> = guards
            .query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))
            .unwrap()
            .flatten()
            .collect();
        for [kind, name, _] in &guards {
            connection.execute_batch(&format!("DROP {kind} {name}")).unwrap();
        }
        connection.execute_batch(sql).unwrap();
        for [_, _, guard] in &guards {
            let _malformed = connection.execute_batch(guard);
        }
    }
}

fn run(proofs: &Proofs) -> Run {
    let principal = Principal::verified(
        &proofs.verifier,
        "https://issuer".into(),
        "bob".into(),
        BTreeSet::new(),
        Claims::new(),
    );
    Run::implicit(principal, AgentId::new("cli").unwrap(), Instant(NOW.0 + 1000), BTreeSet::new())
}

fn permit(proofs: &Proofs, id: u128) -> Permit {
    let arguments = BTreeMap::from([(ParamName::new("user_id").unwrap(), Value::String("u-4711".into()))]);
    let call = Call::new(
        CallId(uuid(id)),
        NOW,
        run(proofs),
        ToolName::new("read_metrics").unwrap(),
        SystemName::new("metrics").unwrap(),
        Arguments::new(arguments),
    );
    Permit::grant(&proofs.decider, call, Vec::new())
}

fn uuid(id: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(id)
}

fn done() -> Closing {
    Closing { ended: ClosingWord::Done, code: None, duration_us: 7, rows: 1, bytes: 20, yields: None }
}

/// A closed journal with `calls` calls: `opened`, then an intent and an outcome each, then `closed`.
async fn with_calls(calls: u128) -> Setting {
    let setting = Setting::new();
    let (journal, proofs) = setting.open().ok().unwrap();
    for id in 0..calls {
        let ticket = journal.record(permit(&proofs, id), Effect::Write).await.ok().unwrap();
        journal.outcome(ticket.call().id(), done(), NOW).await.unwrap();
    }
    journal.close(NOW).await;
    setting
}

#[tokio::test]
async fn what_happened_can_be_read_and_is_proved() {
    let setting = Setting::new();
    let (journal, proofs) = setting.open().ok().unwrap();
    let ticket = journal.record(permit(&proofs, 1), Effect::Read).await.ok().unwrap();
    assert_eq!(ticket.entry().0, 2);
    journal.outcome(ticket.call().id(), done(), NOW).await.unwrap();
    let refusal =
        Refusal::new("unknown_tool", RefusalClass::UnknownTool, Wall::ActionSpace, Retry::Never, "no");
    let run = run(&proofs);
    let arguments = serde_json::json!({ "query": "DROP TABLE users" });
    let refused = RefusedCall {
        at: NOW,
        call: CallId(uuid(2)),
        run: &run,
        tool: "execute_sql",
        arguments: arguments.as_object().unwrap(),
        verdict: Verdict::Deny,
        refusal: &refusal,
        unrecorded: 0,
    };
    journal.refused(refused).await.unwrap();
    journal.close(NOW).await;
    let shown = read(setting.path(), &Filter::default()).unwrap();
    let kinds: Vec<&str> = shown.iter().map(|entry| entry.leaf["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["opened", "intent", "outcome", "refused", "closed"]);
    assert_eq!(shown[3].content.as_ref().unwrap()["arguments"]["query"], "DROP TABLE users");
    let leaf = serde_json::to_string(&shown[1].leaf).unwrap();
    assert!(
        !leaf.contains("bob") && !leaf.contains("u-4711"),
        "who and what stand in the payload alone: {leaf}"
    );
    assert_eq!(setting.verify(), Report { entries: 5, covered: 5, ..Report::default() });
    assert!(
        journal.record(permit(&proofs, 3), Effect::Read).await.is_err(),
        "a closed journal records nothing"
    );
}

#[tokio::test]
async fn verify_says_which_change_was_made() {
    for (sql, kind) in [
        (
            "UPDATE entries SET leaf = replace(leaf, '\"rows\":1', '\"rows\":2') WHERE number = 3",
            FindingKind::Altered,
        ),
        ("UPDATE entries SET hash = zeroblob(32) WHERE number = 4", FindingKind::Altered),
        ("DELETE FROM entries WHERE number = 3", FindingKind::Missing),
        (
            "UPDATE entries SET number = -1 WHERE number = 3; UPDATE entries SET number = 3 WHERE number = 4;
             UPDATE entries SET number = 4 WHERE number = -1",
            FindingKind::Reordered,
        ),
        ("DELETE FROM entries WHERE number > 5", FindingKind::Truncated),
        (
            "UPDATE payloads SET text = replace(text, 'bob', 'eve') WHERE number = 2",
            FindingKind::PayloadAltered,
        ),
        ("INSERT INTO payloads VALUES (3, zeroblob(16), '{}')", FindingKind::PayloadAltered),
        ("INSERT INTO payloads VALUES (99, zeroblob(16), '{}')", FindingKind::PayloadAltered),
        ("DELETE FROM payloads WHERE number = 2", FindingKind::PayloadAltered),
        ("ALTER TABLE payloads ADD COLUMN more TEXT", FindingKind::Schema),
    ] {
        let setting = with_calls(4).await;
        assert_eq!(setting.kinds(), [], "the control");
        setting.tamper(sql);
        assert_eq!(setting.kinds().first(), Some(&kind), "{sql}");
    }
}

#[tokio::test]
async fn a_trigger_that_swallows_entries_is_refused_and_found() {
    let swallow = "CREATE TRIGGER h BEFORE INSERT ON entries WHEN new.leaf ->> 'kind' = 'intent'
                   BEGIN SELECT RAISE(IGNORE); END;";
    let setting = with_calls(1).await;
    setting.tamper(swallow);
    assert_eq!(setting.kinds(), [FindingKind::Schema]);
    assert!(setting.open().err().unwrap().to_string().contains("trigger `h`"));
    // Planted while the gateway runs: nothing more is recorded, and so nothing more runs.
    let setting = with_calls(1).await;
    let (journal, proofs) = setting.open().ok().unwrap();
    let _recorded = journal.record(permit(&proofs, 5), Effect::Write).await.ok().unwrap();
    Connection::open(setting.path().join("journal.db")).unwrap().execute_batch(swallow).unwrap();
    assert!(journal.record(permit(&proofs, 6), Effect::Write).await.is_err());
    assert!(!journal.healthy());
}

#[tokio::test]
async fn labels_outlive_the_gateway() {
    let setting = Setting::new();
    let (journal, proofs) = setting.open().ok().unwrap();
    let ticket = journal.record(permit(&proofs, 1), Effect::Read).await.ok().unwrap();
    let run = ticket.call().run().id().clone();
    let closing = Closing { yields: Some((run.clone(), vec![Label::Untrusted])), ..done() };
    journal.outcome(ticket.call().id(), closing, NOW).await.unwrap();
    assert!(journal.labels().is_empty());
    journal.close(NOW).await;
    let (again, _) = setting.open().ok().unwrap();
    assert_eq!(again.labels(), &BTreeMap::from([(run, BTreeSet::from([Label::Untrusted]))]));
}

#[tokio::test]
async fn a_journal_that_was_replaced_or_recomputed_does_not_match_its_head() {
    let (ours, theirs) = (with_calls(2).await, with_calls(2).await);
    std::fs::copy(theirs.path().join("journal.db"), ours.path().join("journal.db")).unwrap();
    assert_eq!(ours.kinds(), [FindingKind::Replaced]);
    let refused = ours.open().err().unwrap();
    assert!(matches!(refused, JournalRefused::NotItsHead(_)), "and it is not opened: {refused}");
    std::fs::write(ours.path().join("journal.head"), theirs.head()).unwrap();
    assert_eq!(ours.kinds(), [FindingKind::Head]);
}

#[tokio::test]
async fn calls_that_a_crash_left_open_are_closed_as_unknown() {
    let setting = Setting::new();
    let (journal, proofs) = setting.open().ok().unwrap();
    let _open = journal.record(permit(&proofs, 9), Effect::Write).await.ok().unwrap();
    // A second process that joins meanwhile leaves the call alone.
    let (second, _) = setting.open().ok().unwrap();
    second.close(NOW).await;
    drop((journal, second));
    let (third, _) = loop {
        // The writer of the first ends on its own once nobody can send to it.
        if let Ok(opened) = setting.open() {
            break opened;
        }
    };
    third.close(NOW).await;
    let shown =
        read(setting.path(), &Filter { call: Some(uuid(9).to_string()), ..Filter::default() }).unwrap();
    let ends: Vec<_> = shown.iter().filter_map(|entry| entry.leaf.get("ended")).collect();
    assert_eq!(ends, ["unknown"]);
    assert!(setting.verify().is_sound());
}

#[tokio::test]
async fn what_is_not_a_journal_is_left_as_it_is() {
    let setting = Setting::new();
    std::fs::write(
        setting.path().join("journal.db"),
        "a letter to my grandmother, long enough to be no header".repeat(40),
    )
    .unwrap();
    let refused = setting.open().err().unwrap().to_string();
    assert!(refused.contains("cannot be read") && refused.contains("move it away"), "{refused}");
    let locked = Setting::new();
    let lock = std::fs::File::create(locked.path().join("journal.lock")).unwrap();
    lock.lock().unwrap();
    let refused = locked.open().err().unwrap().to_string();
    assert!(refused.contains("locked by another process"), "{refused}");
}

#[tokio::test]
async fn many_at_once_all_stand_in_one_chain() {
    let setting = Setting::new();
    let (journal, proofs) = setting.open().ok().unwrap();
    let (journal, proofs) = (std::sync::Arc::new(journal), std::sync::Arc::new(proofs));
    let tasks = (0..200).map(|id| {
        let (journal, proofs) = (journal.clone(), proofs.clone());
        tokio::spawn(async move {
            let effect = if id % 2 == 0 { Effect::Read } else { Effect::Write };
            journal.record(permit(&proofs, id), effect).await.ok().unwrap().entry().0
        })
    });
    let mut numbers = BTreeSet::new();
    for task in tasks.collect::<Vec<_>>() {
        numbers.insert(task.await.unwrap());
    }
    journal.close(NOW).await;
    assert_eq!(numbers, (2..=201).collect());
    assert_eq!(setting.verify().findings, []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_bit_of_an_entry_flips_unseen(entry in 1_i64..=6, column in 0..2_usize, bit: proptest::sample::Index) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let setting = runtime.block_on(with_calls(2));
        let connection = Connection::open(setting.path().join("journal.db")).unwrap();
        let column = ["leaf", "hash"][column];
        let sql = format!("SELECT CAST({column} AS BLOB) FROM entries WHERE number = ?1");
        let mut bytes: Vec<u8> = connection.query_row(&sql, [entry], |row| row.get(0)).unwrap();
        let at = bit.index(bytes.len() * 7);
        bytes[at / 7] ^= 1 << (at % 7);
        let value = format!("x'{}'", hex::encode(bytes));
        let value = if column == "leaf" { format!("CAST({value} AS TEXT)") } else { value };
        setting.tamper(&format!("UPDATE entries SET {column} = {value} WHERE number = {entry}"));
        drop(connection);
        prop_assert!(!setting.verify().is_sound());
    }
}

#[tokio::test]
async fn labels_that_came_before_a_calls_end_outlive_a_crash() {
    let setting = Setting::new();
    let (journal, proofs) = setting.open().ok().unwrap();
    let ticket = journal.record(permit(&proofs, 1), Effect::Read).await.ok().unwrap();
    let run = run(&proofs).id().clone();
    journal.labelled(ticket.call().id(), &run, &[Label::Untrusted], NOW).await.unwrap();
    // The call never ends.
    journal.close(NOW).await;
    drop(journal);
    let (again, _) = setting.open().ok().unwrap();
    assert_eq!(again.labels(), &BTreeMap::from([(run, BTreeSet::from([Label::Untrusted]))]));
    again.close(NOW).await;
    assert_eq!(setting.kinds(), []);
}
