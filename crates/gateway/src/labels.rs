//! What each run has touched. Labels only grow; they outlive a reconnect, and a gateway that is started anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;

use ringfence_core::{Label, RunId};

/// Runs whose labels are remembered. Past this every run is treated as if it had touched everything: never as if nothing.
const RUNS_MAX: usize = 100_000;

#[derive(Default)]
pub(crate) struct Labels(Mutex<HashMap<RunId, BTreeSet<Label>>>);

impl Labels {
    /// As the journal remembers them.
    pub(crate) fn remembered(labels: &BTreeMap<RunId, BTreeSet<Label>>) -> Self {
        Self(Mutex::new(labels.iter().map(|(run, labels)| (run.clone(), labels.clone())).collect()))
    }

    /// The labels of a run.
    pub(crate) fn of(&self, run: &RunId) -> BTreeSet<Label> {
        let Ok(labels) = self.0.lock() else { return all() };
        match labels.get(run) {
            Some(labels) => labels.clone(),
            None if labels.len() >= RUNS_MAX => all(),
            None => BTreeSet::new(),
        }
    }

    /// Adds what a result yields.
    pub(crate) fn add(&self, run: &RunId, yields: &[Label]) {
        if yields.is_empty() {
            return;
        }
        let Ok(mut labels) = self.0.lock() else { return };
        if labels.len() < RUNS_MAX || labels.contains_key(run) {
            labels.entry(run.clone()).or_default().extend(yields);
        }
    }
}

fn all() -> BTreeSet<Label> {
    [Label::Untrusted, Label::Sensitive].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_only_grow() {
        let (labels, run) = (Labels::default(), serde_json::from_str::<RunId>("\"run-1\"").unwrap());
        assert_eq!(labels.of(&run), BTreeSet::new());
        labels.add(&run, &[Label::Untrusted]);
        labels.add(&run, &[]);
        labels.add(&run, &[Label::Sensitive]);
        assert_eq!(labels.of(&run), all());
    }
}
