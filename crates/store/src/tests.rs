//! The journal as its users and its enemies see it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use ringfence_core::{
    AgentId, Arguments, Authorities, Call, CallId, Claims, Decider, Digest, Effect, Instant, Label,
    ParamName, Permit, Principal, Refusal, RefusalClass, Retry, Run, RunId, Secret, SystemName, ToolName,
    Value, Verdict, Verifier, Wall,
};
use rusqlite::Connection;

use crate::{
    Closing, ClosingWord, Filter, FindingKind, HeadKey, Journal, JournalRefused, JournalSettings,
    RefusedCall, Report, Role, Span, new_key, read, verify,
};

mod runs;

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
        self.open_as(Role::Visitor)
    }

    fn open_as(&self, role: Role) -> Result<(Journal, Proofs), JournalRefused> {
        let authorities = Authorities::establish();
        let settings = JournalSettings {
            folder: self.path().to_owned(),
            head_file: self.path().join("journal.head"),
            key: &self.key,
            program: "test".into(),
            configuration: Digest::ZERO,
            role,
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
    Run::new(
        RunId::new(uuid(7)),
        principal,
        AgentId::new("cli").unwrap(),
        Instant(NOW.0 + 1000),
        Arc::default(),
        BTreeSet::new(),
    )
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
        code: refusal.code,
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
async fn what_a_run_has_touched_is_known_to_every_process_and_outlives_them() {
    let setting = Setting::new();
    let (journal, proofs) = setting.open_as(Role::Server).ok().unwrap();
    let (beside, _) = setting.open().ok().unwrap();
    let run = run(&proofs).id().clone();
    let read = async |id: u128, yields: &[Label]| {
        let ticket = journal.record(permit(&proofs, id), Effect::Read).await.ok().unwrap();
        let closing = Closing { yields: Some((run.clone(), yields.to_vec())), ..done() };
        journal.outcome(ticket.call().id(), closing, NOW).await.unwrap();
    };
    assert_eq!(beside.labels(&run).unwrap(), BTreeSet::new());
    read(1, &[Label::Untrusted]).await;
    read(2, &[Label::Untrusted]).await;
    assert_eq!(beside.labels(&run).unwrap(), BTreeSet::from([Label::Untrusted]));
    read(3, &[Label::Sensitive, Label::Untrusted]).await;
    let all = BTreeSet::from([Label::Untrusted, Label::Sensitive]);
    assert_eq!((beside.labels(&run).unwrap(), journal.labels(&run).unwrap()), (all.clone(), all.clone()));
    let another = serde_json::from_str("\"run-1\"").unwrap();
    assert_eq!(journal.labels(&another).unwrap(), BTreeSet::new());
    journal.close(NOW).await;
    beside.close(NOW).await;
    assert_eq!(setting.open().ok().unwrap().0.labels(&run).unwrap(), all);
}

#[tokio::test]
async fn a_journal_that_was_closed_is_one_file() {
    for _ in 0..20 {
        let setting = Setting::new();
        let (journal, proofs) = setting.open().ok().unwrap();
        assert_eq!(journal.labels(run(&proofs).id()).unwrap(), BTreeSet::new());
        assert!(setting.path().join("journal.db-wal").exists(), "the control");
        journal.close(NOW).await;
        assert!(!setting.path().join("journal.db-wal").exists(), "whoever copies the file has all of it");
    }
}

#[tokio::test]
async fn one_process_serves_a_journal_and_others_look_in() {
    let setting = Setting::new();
    let (serving, _) = setting.open_as(Role::Server).ok().unwrap();
    let refused = setting.open_as(Role::Server).err().unwrap().to_string();
    assert!(refused.contains("another gateway serves the journal"), "{refused}");
    let (visiting, _) = setting.open().ok().unwrap();
    visiting.close(NOW).await;
    drop(visiting);
    serving.close(NOW).await;
    drop(serving);
    assert!(setting.open_as(Role::Server).is_ok(), "the control: once it has stopped");
}

/// Appends an entry as someone would who can write the file, knows its form, and has no key.
fn forge(setting: &Setting, leaf: &str) {
    let connection = Connection::open(setting.path().join("journal.db")).unwrap();
    let end = crate::database::tail(&connection).unwrap();
    let number = end.entries + 1;
    let leaf = leaf.replace("NUMBER", &number.to_string());
    let hash = crate::entry::chain(number, &end.hash, &leaf);
    let tag: [u8; 32] =
        connection.query_row("SELECT tag FROM entries ORDER BY number DESC", [], |row| row.get(0)).unwrap();
    connection
        .execute(
            "INSERT INTO entries (number, leaf, hash, tag) VALUES (?1, ?2, ?3, ?4)",
            rusqlite::params![i64::try_from(number).unwrap(), leaf, hash.as_bytes(), tag],
        )
        .unwrap();
}

const FORGED: &str = r#"{"number":NUMBER,"kind":"rejected","at":1800000000000,"code":"token_expired"}"#;

#[tokio::test]
async fn an_entry_that_was_forged_is_found_and_never_signed() {
    let setting = with_calls(2).await;
    let honest = setting.verify();
    assert_eq!((honest.entries, honest.findings), (6, vec![]), "the control");
    let head = setting.head();
    forge(&setting, FORGED);
    forge(&setting, FORGED);
    let found = setting.verify().findings;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].kind, FindingKind::Forged);
    assert_eq!(found[0].what, "entries 7 to 8 were not written with this journal's key");
    let refused = setting.open().err().unwrap();
    assert!(matches!(refused, JournalRefused::Forged(_, 7)), "{refused}");
    assert_eq!(setting.head(), head, "nothing more is signed");
    // While it is open: nothing more is recorded upon it, and so nothing more runs.
    let setting = with_calls(1).await;
    let (journal, proofs) = setting.open().ok().unwrap();
    let _recorded = journal.record(permit(&proofs, 5), Effect::Write).await.ok().unwrap();
    let head = setting.head();
    forge(&setting, FORGED);
    assert!(journal.record(permit(&proofs, 6), Effect::Write).await.is_err());
    assert!(!journal.healthy());
    journal.close(NOW).await;
    assert_eq!((setting.kinds(), setting.head()), (vec![FindingKind::Forged], head));
}

#[tokio::test]
async fn what_was_cut_off_while_it_is_open_is_not_built_upon() {
    let setting = with_calls(1).await;
    let (journal, proofs) = setting.open().ok().unwrap();
    let _recorded = journal.record(permit(&proofs, 5), Effect::Write).await.ok().unwrap();
    let connection = Connection::open(setting.path().join("journal.db")).unwrap();
    let trigger = "DROP TRIGGER entries_are_not_deleted";
    let guard: String = connection
        .query_row("SELECT sql FROM sqlite_schema WHERE name = 'entries_are_not_deleted'", [], |row| {
            row.get(0)
        })
        .unwrap();
    // The schema's version is put back too, so that only the chain can tell.
    let version: i64 = connection.pragma_query_value(None, "schema_version", |row| row.get(0)).unwrap();
    connection.execute_batch(&format!("{trigger}; DELETE FROM entries WHERE number = 6; {guard}")).unwrap();
    connection.pragma_update(None, "schema_version", version).unwrap();
    assert!(journal.record(permit(&proofs, 6), Effect::Write).await.is_err());
    assert_eq!(setting.kinds().first(), Some(&FindingKind::Truncated));
}

#[tokio::test]
async fn what_a_crash_left_beyond_the_head_is_kept_and_named_for_good() {
    let setting = with_calls(1).await;
    let head = setting.head();
    let (journal, proofs) = setting.open().ok().unwrap();
    let _open = journal.record(permit(&proofs, 5), Effect::Write).await.ok().unwrap();
    journal.close(NOW).await;
    drop(journal);
    // As it is where the power went before the head was signed.
    std::fs::write(setting.path().join("journal.head"), head).unwrap();
    assert_eq!(
        (setting.verify().covered, setting.kinds()),
        (4, vec![]),
        "younger than the head, and genuine"
    );
    for _ in 0..2 {
        let (journal, _) = setting.open().ok().unwrap();
        journal.close(NOW).await;
        let report = setting.verify();
        assert!(report.is_sound() && report.covered == report.entries, "{report:?}");
        assert_eq!(report.unsigned, [Span { from: 5, to: 7 }]);
    }
}

#[tokio::test]
async fn a_head_never_goes_back() {
    let setting = with_calls(1).await;
    let key = HeadKey::new(&setting.key).unwrap();
    let file = crate::head_file::HeadFile::new(setting.path().join("journal.head"), setting.path()).unwrap();
    let newest = key.open(&setting.head()).unwrap();
    // A process that fell asleep between its look at the end and this.
    file.raise(&key, &crate::Head { entries: 2, hash: Digest::ZERO }).unwrap();
    assert_eq!(key.open(&setting.head()), Ok(newest));
    let newer = crate::Head { entries: newest.entries + 1, hash: Digest::ZERO };
    file.raise(&key, &newer).unwrap();
    assert_eq!(key.open(&setting.head()), Ok(newer), "the control");
    // Two that close at once leave nothing uncovered.
    let setting = Setting::new();
    for _ in 0..5 {
        let ((first, _), (second, _)) = (setting.open().ok().unwrap(), setting.open().ok().unwrap());
        tokio::join!(first.close(NOW), second.close(NOW));
    }
    let report = setting.verify();
    assert_eq!((report.entries, report.covered, report.findings), (20, 20, vec![]));
}

#[tokio::test]
async fn a_journal_without_its_file_or_its_head_is_not_begun_anew() {
    let setting = with_calls(1).await;
    let files = || {
        let entries = std::fs::read_dir(setting.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<BTreeSet<_>>()
    };
    let aside = tempfile::tempdir().unwrap();
    for name in ["journal.db", "journal.head"] {
        std::fs::rename(setting.path().join(name), aside.path().join(name)).unwrap();
        let before = files();
        let refused = setting.open().err().unwrap().to_string();
        assert!(
            refused.contains("is gone") && refused.contains(name.trim_start_matches("journal.")),
            "{refused}"
        );
        assert_eq!(files(), before, "nothing is made");
        std::fs::copy(aside.path().join(name), setting.path().join(name)).unwrap();
    }
    assert!(setting.open().is_ok(), "the control");
}

#[tokio::test]
async fn a_flood_of_refusals_is_kept_or_counted_to_the_last() {
    let setting = Setting::new();
    let (journal, proofs) = setting.open().ok().unwrap();
    let run = run(&proofs);
    let refuse = async |id: u128, code: &'static str| {
        let refusal = Refusal::new(code, RefusalClass::Policy, Wall::Policy, Retry::Never, "no");
        let arguments = serde_json::Map::new();
        let refused = RefusedCall {
            at: NOW,
            call: CallId(uuid(id)),
            run: &run,
            tool: "x",
            arguments: &arguments,
            verdict: Verdict::Deny,
            refusal: &refusal,
            code,
        };
        journal.refused(refused).await.unwrap();
    };
    for id in 0..100 {
        refuse(id, if id == 90 { "forbidden" } else { "unknown_tool" }).await;
        journal.rejected(NOW, "token_expired").await;
    }
    journal.close(NOW).await;
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    let shown = read(setting.path(), &Filter::default()).unwrap();
    for entry in &shown {
        let leaf = &entry.leaf;
        if leaf["kind"] == "refused" || leaf["kind"] == "rejected" {
            *sums.entry(leaf["code"].as_str().unwrap().into()).or_default() += 1;
        }
        let counted = ["refused", "rejected"].iter().filter_map(|field| leaf.get(*field)?.as_object());
        for (code, count) in counted.flatten() {
            *sums.entry(code.clone()).or_default() += count.as_u64().unwrap();
        }
    }
    let expected = [("forbidden", 1), ("token_expired", 100), ("unknown_tool", 99)];
    assert_eq!(sums, expected.map(|(code, count)| (code.to_owned(), count)).into());
    assert!(shown.len() < 50, "{}", shown.len());
    assert_eq!(shown.last().unwrap().leaf["kind"], "closed");
}

#[tokio::test]
async fn what_was_counted_is_written_within_seconds() {
    let setting = Setting::new();
    let (journal, _) = setting.open().ok().unwrap();
    for _ in 0..30 {
        journal.rejected(NOW, "token_expired").await;
    }
    let counted =
        || read(setting.path(), &Filter { kind: Some("counted".into()), ..Filter::default() }).unwrap();
    let began = std::time::Instant::now();
    while counted().is_empty() {
        assert!(began.elapsed().as_secs() < 20, "it never came");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(counted()[0].leaf["rejected"]["token_expired"], 10);
}

#[tokio::test]
async fn a_journal_that_was_replaced_or_recomputed_does_not_match_its_head() {
    let (ours, theirs) = (with_calls(2).await, with_calls(2).await);
    std::fs::copy(theirs.path().join("journal.db"), ours.path().join("journal.db")).unwrap();
    assert_eq!(ours.kinds(), [FindingKind::Forged], "another key's");
    let refused = ours.open().err().unwrap();
    assert!(matches!(refused, JournalRefused::NotItsHead(_)), "and it is not opened: {refused}");
    std::fs::write(ours.path().join("journal.head"), theirs.head()).unwrap();
    assert_eq!(ours.kinds(), [FindingKind::Head, FindingKind::Forged]);
    // The same key, another history.
    let setting = Setting::new();
    let (journal, _) = setting.open().ok().unwrap();
    journal.close(NOW).await;
    drop(journal);
    let head = setting.head();
    for name in ["journal.db", "journal.head"] {
        std::fs::remove_file(setting.path().join(name)).unwrap();
    }
    let (journal, proofs) = setting.open().ok().unwrap();
    let _recorded = journal.record(permit(&proofs, 7), Effect::Write).await.ok().unwrap();
    journal.close(NOW).await;
    assert_eq!(setting.kinds(), [], "the control: by its own head it is sound");
    std::fs::write(setting.path().join("journal.head"), head).unwrap();
    assert_eq!(setting.kinds(), [FindingKind::Replaced]);
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
    assert!(
        refused.contains("its signed head is gone") && refused.contains("move `journal.db` away"),
        "{refused}"
    );
    let key = HeadKey::new(&setting.key).unwrap();
    std::fs::write(setting.path().join("journal.head"), key.sign(&crate::Head::NONE)).unwrap();
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
    assert_eq!(again.labels(&run).unwrap(), BTreeSet::from([Label::Untrusted]));
    again.close(NOW).await;
    assert_eq!(setting.kinds(), []);
}
