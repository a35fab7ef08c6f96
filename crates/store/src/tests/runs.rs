//! Runs: what goes on, what has ended, and what may begin again.

use std::sync::Arc;

use ringfence_core::{AgentId, Claims, Digest, Instant, RunId, Terms};

use super::{NOW, Setting, uuid};
use crate::{
    Begun, Ending, Journal, Lifetime, NoRun, Owner, Revocation, Revoked, RunFilter, Runs, RunsUnusable,
    Scope, Starting,
};

const HOUR: u64 = 3_600_000;
const LIFETIME: Lifetime = Lifetime { idle_ms: HOUR, total_ms: 12 * HOUR };

struct House {
    setting: Setting,
    journal: Journal,
    runs: Runs,
    claims: Claims,
    agents: [AgentId; 2],
}

fn at(ms: u64) -> Instant {
    Instant(NOW.0 + ms)
}

impl House {
    fn new() -> Self {
        let setting = Setting::new();
        let (journal, _) = setting.open().unwrap();
        let runs = Runs::open(setting.path(), &journal, NOW).unwrap();
        let agents = ["bot", "other"].map(|name| AgentId::new(name).unwrap());
        Self { setting, journal, runs, claims: Claims::new(), agents }
    }

    fn owner(&self, subject: &'static str, agent: usize, login: Option<Instant>) -> Owner<'_> {
        Owner { issuer: "i", subject, agent: &self.agents[agent], claims: &self.claims, scopes: "", login }
    }

    /// The implicit run of Bob and the bot, by the number of its name; whether it is new.
    fn implicit(&self, fresh: u128, login: Option<Instant>, now: Instant) -> Result<(RunId, bool), NoRun> {
        let (run, begun) =
            self.runs.implicit(&self.owner("bob", 0, login), &RunId::new(uuid(fresh)), LIFETIME, now)?;
        self.runs.recorded(&run.id)?;
        Ok((run.id, begun.is_some()))
    }

    fn start(&self, number: u128, owner: Owner<'_>, terms: &Terms, now: Instant) -> Result<RunId, NoRun> {
        let (id, token) = (RunId::new(uuid(number)), token(number));
        let starting = Starting { id: id.clone(), token, key: None, owner, terms, expires: at(HOUR) };
        self.runs.start(&starting, now).map(|()| id)
    }

    fn revoke(&self, scope: &Scope, now: Instant) -> Result<Vec<RunId>, NoRun> {
        let revocation = Revocation { scope, by: "carol", reason: "test" };
        self.runs.revoke(&revocation, now).map(|Revoked { runs }| runs)
    }
}

fn token(number: u128) -> Digest {
    Digest::of(&[&number.to_be_bytes()])
}

fn id(number: u128) -> RunId {
    RunId::new(uuid(number))
}

#[test]
fn a_run_that_nobody_started_outlives_a_reconnect_and_ends_when_idle_or_old() {
    let house = House::new();
    let seen = |fresh, ms| house.implicit(fresh, None, at(ms)).unwrap();
    assert_eq!(seen(1, 0), (id(1), true));
    assert_eq!(seen(2, HOUR - 1), (id(1), false));
    assert_eq!(seen(2, HOUR), (id(2), true), "the first was idle for an hour");
    // In use all the time.
    for hour in 0..22 {
        let now = HOUR + hour * HOUR / 2;
        assert_eq!(seen(3, now), (id(2), false));
        house.runs.admit(&id(2), at(now)).unwrap();
    }
    assert_eq!(seen(3, 13 * HOUR), (id(3), true), "twelve hours are all that it gets");
    let ended =
        |number| house.runs.find(id(number).as_str()).unwrap().unwrap().ended.map(|(_, ending)| ending);
    assert_eq!([ended(1), ended(2), ended(3)], [Some(Ending::Idle), Some(Ending::Expired), None]);
    // Another agent of the same user, and another user, have runs of their own.
    for owner in [house.owner("bob", 1, None), house.owner("eve", 0, None)] {
        let number = if owner.subject == "bob" { 10 } else { 11 };
        let (run, begun) = house.runs.implicit(&owner, &id(number), LIFETIME, at(13 * HOUR)).unwrap();
        assert_eq!((run.id, begun), (id(number), Some(Begun { follows: None })));
    }
}

#[test]
fn a_run_follows_the_one_before_it_unless_the_user_has_logged_in_since() {
    let house = House::new();
    let begun = |fresh, login, ms| {
        let owner = house.owner("bob", 0, login);
        house.runs.implicit(&owner, &id(fresh), LIFETIME, at(ms)).unwrap().1.map(|begun| begun.follows)
    };
    assert_eq!(begun(1, Some(at(0)), 1), Some(None), "the first follows none");
    house.runs.admit(&id(1), at(HOUR - 1)).unwrap();
    house.runs.expire(at(HOUR)).unwrap();
    assert_eq!(begun(2, Some(at(0)), 3 * HOUR), Some(Some(id(1))), "idle, with the login of before");
    assert_eq!(begun(3, None, 5 * HOUR), Some(Some(id(2))), "nobody knows when it was");
    assert_eq!(begun(4, Some(at(6 * HOUR)), 7 * HOUR), Some(None), "logged in since");
}

#[test]
fn a_run_is_to_be_recorded_until_it_is() {
    let house = House::new();
    let begun = |fresh, ms| {
        let owner = house.owner("bob", 0, None);
        house.runs.implicit(&owner, &id(fresh), LIFETIME, at(ms)).unwrap()
    };
    house.runs.recorded(&begun(1, 0).0.id).unwrap();
    let follows = Some(Begun { follows: Some(id(1)) });
    // The first of them hangs up before the journal knows: the next one is told the same.
    for fresh in [2, 3] {
        let (run, begun) = begun(fresh, 2 * HOUR);
        assert_eq!((run.id, begun), (id(2), follows.clone()));
    }
    house.runs.recorded(&id(2)).unwrap();
    assert_eq!(begun(4, 2 * HOUR).1, None);
    let ended = [1, 2, 9].map(|number| house.runs.has_ended(&id(number)).unwrap());
    assert_eq!(ended, [true, false, true], "one that is unknown has ended too");
}

#[tokio::test]
async fn the_labels_that_a_run_takes_over_are_its_own() {
    let setting = Setting::new();
    let (journal, proofs) = setting.open().unwrap();
    let plain = super::run(&proofs);
    let principal = plain.principal().clone();
    let labels: std::collections::BTreeSet<_> = [ringfence_core::Label::Untrusted].into();
    let agent = AgentId::new("bot").unwrap();
    let after = ringfence_core::Run::new(id(8), principal, agent, at(1), Arc::default(), labels.clone());
    for run in [&plain, &after] {
        journal.run_started(run, NOW).await.unwrap();
    }
    assert_eq!(journal.labels(plain.id()).unwrap(), [].into(), "the control");
    assert_eq!(journal.labels(after.id()).unwrap(), labels);
}

#[test]
fn what_was_revoked_is_not_made_anew_before_a_fresh_login() {
    let house = House::new();
    let login = Some(at(0));
    house.implicit(1, login, at(1)).unwrap();
    assert!(matches!(house.runs.admit(&id(1), at(2)), Ok(())), "the control");
    assert_eq!(house.revoke(&Scope::Run(id(1).to_string()), at(3)).unwrap(), [id(1)]);
    assert!(matches!(house.runs.admit(&id(1), at(4)), Err(NoRun::Ended(Ending::Revoked))));
    for unfit in [login, None, Some(at(3))] {
        assert!(matches!(house.implicit(2, unfit, at(5)), Err(NoRun::LoginNeeded)), "{unfit:?}");
    }
    assert_eq!(house.implicit(2, Some(at(4)), at(5)).unwrap(), (id(2), true));
    assert!(matches!(house.revoke(&Scope::Run("run-none".into()), at(6)), Err(NoRun::Unknown)));
}

#[test]
fn a_revocation_covers_what_it_names_and_no_more() {
    let terms = Terms::default();
    let user = |subject: &str| Scope::User { issuer: "i".into(), subject: subject.into() };
    let other = AgentId::new("other").unwrap();
    for (scope, ended) in [
        (Scope::Run(id(1).to_string()), vec![1]),
        (Scope::Agent(other), vec![2]),
        (user("bob"), vec![1, 2]),
        (user("carol"), vec![]),
        (Scope::Everything, vec![1, 2, 3]),
    ] {
        let house = House::new();
        let owners = [
            house.owner("bob", 0, Some(at(0))),
            house.owner("bob", 1, Some(at(0))),
            house.owner("eve", 0, Some(at(0))),
        ];
        for (number, owner) in (1..).zip(owners) {
            house.start(number, owner, &terms, at(1)).unwrap();
        }
        let before = house.runs.last_change().unwrap();
        let ids: Vec<RunId> = ended.iter().copied().map(id).collect();
        assert_eq!(house.revoke(&scope, at(2)).unwrap(), ids, "{scope:?}");
        assert_eq!(house.runs.ended_after(before).unwrap(), ids);
        for number in 1..=3 {
            let found = house.runs.with_token(&token(number), at(3));
            assert_eq!(found.is_err(), ended.contains(&number), "{scope:?} {number}");
        }
        // A run is the application's to start anew; an agent, a user and everything wait for a login.
        for (number, owner) in (1..).zip(owners) {
            let waits = ended.contains(&number) && !matches!(scope, Scope::Run(_));
            let again = house.start(number + 10, owner, &terms, at(4));
            assert_eq!(matches!(again, Err(NoRun::LoginNeeded)), waits, "{scope:?} {number}");
            house.start(number + 20, Owner { login: Some(at(3)), ..owner }, &terms, at(4)).unwrap();
        }
    }
}

#[test]
fn a_budget_of_calls_is_exact_whoever_takes_them() {
    let house = House::new();
    let terms = Terms { calls_max: Some(50), ..Terms::default() };
    let run = house.start(1, house.owner("bob", 0, None), &terms, NOW).unwrap();
    let elsewhere = Runs::open(house.setting.path(), &house.journal, NOW).unwrap();
    let taken = std::thread::scope(|scope| {
        let takers = [&house.runs, &elsewhere, &house.runs, &elsewhere].map(|runs| {
            let run = &run;
            scope.spawn(move || (0..40).filter(|_| runs.admit(run, NOW).is_ok()).count())
        });
        takers.into_iter().map(|taker| taker.join().unwrap()).sum::<usize>()
    });
    assert_eq!(taken, 50);
    assert!(matches!(house.runs.admit(&run, NOW), Err(NoRun::Spent(50))));
    assert_eq!(house.runs.find(run.as_str()).unwrap().unwrap().calls, 50);
}

#[test]
fn a_run_ends_at_its_time_for_every_process() {
    let house = House::new();
    let elsewhere = Runs::open(house.setting.path(), &house.journal, NOW).unwrap();
    let run = house.start(1, house.owner("bob", 0, None), &Terms::default(), NOW).unwrap();
    assert_eq!(elsewhere.with_token(&token(1), at(HOUR - 1)).unwrap().id, run);
    for ended in [elsewhere.with_token(&token(1), at(HOUR)).map(drop), elsewhere.admit(&run, at(HOUR))] {
        assert!(matches!(ended, Err(NoRun::Ended(Ending::Expired))));
    }
    assert!(matches!(elsewhere.with_token(&token(2), NOW), Err(NoRun::Unknown)));
    let live = |now| house.runs.list(&RunFilter { live: true, ..RunFilter::default() }, now).unwrap().len();
    assert_eq!((live(NOW), live(at(HOUR))), (1, 0));
    let before = house.runs.last_change().unwrap();
    house.runs.expire(at(HOUR)).unwrap();
    assert_eq!(elsewhere.ended_after(before).unwrap(), [run]);
}

#[tokio::test]
async fn a_file_that_is_gone_does_not_bring_back_what_was_revoked() {
    let House { setting, journal, runs, .. } = House::new();
    drop(runs);
    let remove = || {
        for name in ["runs.db", "runs.db-wal", "runs.db-shm"] {
            let _not_there = std::fs::remove_file(setting.path().join(name));
        }
    };
    remove();
    let runs = Runs::open(setting.path(), &journal, NOW).expect("the control: no run was ever begun");
    let scope = Scope::Everything;
    let revocation = Revocation { scope: &scope, by: "carol", reason: "test" };
    let revoked = runs.revoke(&revocation, NOW).unwrap();
    journal.run_revoked(&revocation, &revoked, NOW).await.unwrap();
    drop(runs);
    remove();
    assert!(matches!(Runs::open(setting.path(), &journal, NOW), Err(RunsUnusable::Gone(_))));
}
