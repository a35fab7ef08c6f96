//! Refusals in a flood: so many in a second are kept one by one, and the rest are counted by code, so that no agent fills
//! the disk and nothing is forgotten.

use std::collections::{BTreeMap, HashMap};

use ringfence_core::{Instant, RunId};

/// Refusals of one kind that are kept one by one in a second.
const KEPT_PER_SECOND: u32 = 20;
/// Runs that are told apart at the same time.
const RUNS_MAX: usize = 10_000;

/// What was refused.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Refusing {
    /// Calls of this run.
    Run(RunId),
    /// Calls of runs that came when too many were told apart.
    OtherRuns,
    /// Tokens.
    Tokens,
}

/// What was counted and is not written yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Counted {
    pub(crate) refusing: Refusing,
    pub(crate) codes: BTreeMap<&'static str, u64>,
    /// When the last of them was refused.
    pub(crate) at: Instant,
}

#[derive(Default)]
pub(crate) struct Counts {
    seconds: HashMap<Refusing, Second>,
    counted: BTreeMap<Refusing, Counted>,
}

#[derive(Default)]
struct Second {
    number: u64,
    seen: u32,
}

impl Counts {
    /// Whether this refusal is to be kept by itself; otherwise it is counted.
    pub(crate) fn keeps(&mut self, refusing: Refusing, code: &'static str, at: Instant) -> bool {
        let refusing = self.told_apart(refusing, at);
        let second = self.seconds.entry(refusing.clone()).or_default();
        if second.number != at.seconds() {
            *second = Second { number: at.seconds(), seen: 0 };
        }
        second.seen = second.seen.saturating_add(1);
        if second.seen <= KEPT_PER_SECOND {
            return true;
        }
        self.add(Counted { refusing, codes: BTreeMap::from([(code, 1)]), at });
        false
    }

    /// Hands out what was counted, to be written.
    pub(crate) fn take(&mut self) -> Vec<Counted> {
        std::mem::take(&mut self.counted).into_values().collect()
    }

    /// Adds what was counted, or what could not be written.
    pub(crate) fn add(&mut self, counted: Counted) {
        let Counted { refusing, codes, at } = counted;
        let nothing = Counted { refusing: refusing.clone(), codes: BTreeMap::new(), at };
        let known = self.counted.entry(refusing).or_insert(nothing);
        known.at = known.at.max(at);
        for (code, more) in codes {
            *known.codes.entry(code).or_default() += more;
        }
    }

    fn told_apart(&mut self, refusing: Refusing, at: Instant) -> Refusing {
        if self.seconds.len() >= RUNS_MAX && !self.seconds.contains_key(&refusing) {
            self.seconds.retain(|_, second| second.number == at.seconds());
            if self.seconds.len() >= RUNS_MAX && refusing != Refusing::Tokens {
                return Refusing::OtherRuns;
            }
        }
        refusing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str) -> Refusing {
        Refusing::Run(serde_json::from_value(name.into()).unwrap())
    }

    #[test]
    fn each_refusal_is_kept_or_counted_by_its_code() {
        let mut counts = Counts::default();
        let at = |second: u64| Instant(second * 1000);
        let kept = (0..50).filter(|_| counts.keeps(run("a"), "unknown_tool", at(1))).count();
        assert!(!counts.keeps(run("a"), "forbidden", at(1)), "a rare one too");
        assert!(counts.keeps(run("b"), "forbidden", at(1)), "another run's are its own");
        let codes = BTreeMap::from([("forbidden", 1), ("unknown_tool", 30)]);
        let counted = vec![Counted { refusing: run("a"), codes, at: at(1) }];
        assert_eq!((kept, counts.take()), (20, counted.clone()));
        assert_eq!(counts.take(), [], "once");
        for counted in counted {
            counts.add(counted);
        }
        assert_eq!(counts.take().first().map(|counted| counted.codes["unknown_tool"]), Some(30));
        assert!(counts.keeps(run("a"), "unknown_tool", at(2)), "the next second");
    }

    #[test]
    fn runs_without_number_are_counted_together() {
        let mut counts = Counts::default();
        for number in 0..RUNS_MAX {
            assert!(counts.keeps(run(&number.to_string()), "forbidden", Instant(1000)));
        }
        let kept = (0..30).filter(|_| counts.keeps(run("late"), "forbidden", Instant(1000))).count();
        assert_eq!(
            (kept, counts.take().first().map(|counted| counted.refusing.clone())),
            (20, Some(Refusing::OtherRuns))
        );
    }
}
