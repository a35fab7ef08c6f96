//! The files that are kept, in memory: bounded in bytes and number, in all and for one run, and in time. The oldest go first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use ringfence_core::{CallId, Instant, RunId};

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes in all.
    pub(crate) bytes: u64,
    /// Bytes of one run, and so also of one file.
    pub(crate) run_bytes: u64,
    /// Files in all.
    pub(crate) files: usize,
    /// Files of one run.
    pub(crate) run_files: usize,
    /// How long a file is kept, in milliseconds.
    pub(crate) life_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 64 << 20, run_bytes: 8 << 20, files: 1024, run_files: 64, life_ms: 15 * 60 * 1000 }
    }
}

/// Where a file can be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// Its address, which nobody can guess.
    pub uri: String,
    /// Its name.
    pub name: String,
    /// Its media type.
    pub mime_type: String,
    /// How long it is.
    pub bytes: u64,
}

/// A file that is kept.
#[derive(Debug)]
pub struct Kept {
    /// Where it can be read.
    pub link: Link,
    /// What is in it.
    pub bytes: Bytes,
    pub(crate) call: CallId,
    pub(crate) run: RunId,
    pub(crate) at: Instant,
}

/// The files that are kept, oldest first.
#[derive(Default)]
pub(crate) struct Artifacts {
    limits: Limits,
    kept: Mutex<VecDeque<Arc<Kept>>>,
}

impl Artifacts {
    #[cfg(test)]
    pub(crate) fn with(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Keeps a file; older ones make room for it, those of its own run first, but not those of its own call: what one result
    /// links to is there together. Says whether it is kept.
    pub(crate) fn keep(&self, file: Kept) -> bool {
        let Ok(mut kept) = self.kept.lock() else { return false };
        self.forget_expired(&mut kept, file.at);
        let own = |kept: &Arc<Kept>| kept.run == file.run;
        while over(&kept, &file, own, self.limits.run_bytes, self.limits.run_files) {
            let Some(oldest) = kept.iter().position(|kept| own(kept) && kept.call != file.call) else {
                return false;
            };
            kept.remove(oldest);
        }
        while over(&kept, &file, |_| true, self.limits.bytes, self.limits.files) {
            let Some(oldest) = kept.iter().position(|kept| kept.call != file.call) else { return false };
            kept.remove(oldest);
        }
        kept.push_back(Arc::new(file));
        true
    }

    /// The file at this address, if it is this run's. One that is missing, foreign or expired is looked for in the same way.
    pub(crate) fn find(&self, run: &RunId, uri: &str, now: Instant) -> Option<Arc<Kept>> {
        let mut kept = self.kept.lock().ok()?;
        self.forget_expired(&mut kept, now);
        kept.iter().filter(|kept| kept.run == *run).find(|kept| kept.link.uri == uri).cloned()
    }

    /// What this run can read.
    pub(crate) fn of(&self, run: &RunId, now: Instant) -> Vec<Link> {
        let Ok(mut kept) = self.kept.lock() else { return Vec::new() };
        self.forget_expired(&mut kept, now);
        kept.iter().filter(|kept| kept.run == *run).map(|kept| kept.link.clone()).collect()
    }

    /// Drops what a run that has ended made.
    pub(crate) fn forget(&self, run: &RunId) {
        if let Ok(mut kept) = self.kept.lock() {
            kept.retain(|kept| kept.run != *run);
        }
    }

    fn forget_expired(&self, kept: &mut VecDeque<Arc<Kept>>, now: Instant) {
        kept.retain(|kept| now.0.saturating_sub(kept.at.0) < self.limits.life_ms);
    }
}

/// Whether a file is too much beside those that count.
fn over(
    kept: &VecDeque<Arc<Kept>>,
    file: &Kept,
    counts: impl Fn(&Arc<Kept>) -> bool,
    bytes_max: u64,
    files_max: usize,
) -> bool {
    let (files, bytes) = kept
        .iter()
        .filter(|kept| counts(kept))
        .fold((0, 0), |(files, bytes), kept| (files + 1, bytes + kept.link.bytes));
    files + 1 > files_max || bytes + file.link.bytes > bytes_max
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const LIMITS: Limits = Limits { bytes: 100, run_bytes: 40, files: 6, run_files: 3, life_ms: 1000 };

    fn run(name: &str) -> RunId {
        serde_json::from_value(name.into()).unwrap()
    }

    fn file(owner: &str, call: u128, uri: &str, bytes: usize, at: u64) -> Kept {
        let link =
            Link { uri: uri.into(), name: uri.into(), mime_type: "text/plain".into(), bytes: bytes as u64 };
        let call = CallId(Uuid::from_u128(call));
        Kept { link, bytes: vec![0; bytes].into(), call, run: run(owner), at: Instant(at) }
    }

    fn uris(artifacts: &Artifacts, owner: &str) -> Vec<String> {
        artifacts.of(&run(owner), Instant(0)).into_iter().map(|link| link.uri).collect()
    }

    #[test]
    fn the_oldest_of_a_run_go_first_and_others_keep_theirs() {
        let artifacts = Artifacts::with(LIMITS);
        assert!(artifacts.keep(file("eve", 1, "e1", 40, 0)));
        for (call, uri) in (2_u128..).zip(["b1", "b2", "b3", "b4"]) {
            assert!(artifacts.keep(file("bob", call, uri, 10, 0)));
        }
        assert_eq!(uris(&artifacts, "bob"), ["b2", "b3", "b4"], "three files of one run");
        assert!(artifacts.keep(file("bob", 9, "b5", 25, 0)));
        assert_eq!(uris(&artifacts, "bob"), ["b4", "b5"], "and 40 bytes");
        assert!(!artifacts.keep(file("bob", 10, "b6", 41, 0)));
        assert_eq!((uris(&artifacts, "bob").len(), uris(&artifacts, "eve").len()), (0, 1));
    }

    #[test]
    fn all_runs_together_are_bounded() {
        let artifacts = Artifacts::with(LIMITS);
        for (call, owner) in (1_u128..).zip(["a", "b", "c", "d", "e"]) {
            assert!(artifacts.keep(file(owner, call, owner, 30, 0)));
        }
        let kept = ["a", "b", "c", "d", "e"].map(|owner| uris(&artifacts, owner).len());
        assert_eq!(kept, [0, 0, 1, 1, 1]);
    }

    #[test]
    fn what_one_result_links_to_is_there_together() {
        let artifacts = Artifacts::with(LIMITS);
        let kept = ["1", "2", "3"].map(|uri| artifacts.keep(file("bob", 1, uri, 15, 0)));
        assert_eq!((kept, uris(&artifacts, "bob")), ([true, true, false], vec!["1".into(), "2".into()]));
    }

    #[test]
    fn a_missing_a_foreign_and_an_expired_file_are_found_by_nobody() {
        let artifacts = Artifacts::with(LIMITS);
        assert!(artifacts.keep(file("bob", 1, "b", 10, 500)));
        let find =
            |owner: &str, uri: &str, now: u64| artifacts.find(&run(owner), uri, Instant(now)).is_some();
        assert!(find("bob", "b", 1499), "the control");
        assert!(!find("bob", "c", 1499) && !find("eve", "b", 1499));
        assert!(!find("bob", "b", 1500));
        assert!(artifacts.kept.lock().unwrap().is_empty());
    }
}
