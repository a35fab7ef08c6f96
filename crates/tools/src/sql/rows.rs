//! The rows of a result, kept within the tool's limits while they come.

use ringfence_actions::Limits;
use ringfence_core::{Effect, Refusal, RefusalClass, Retry, Wall};
use serde_json::{Map, Value as Json, json};

use crate::Outcome;

/// What came out of a statement so far.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    kept: Vec<Json>,
    bytes: u64,
    is_cut: bool,
}

impl Rows {
    /// Whether a row of so many bytes would be kept.
    pub(crate) fn has_room(&self, bytes: u64, limits: &Limits) -> bool {
        (self.kept.len() as u64) < limits.rows && self.bytes.saturating_add(bytes) <= limits.bytes
    }

    /// Keeps a row, unless there would be more rows or bytes than the limits let through.
    pub(crate) fn push(&mut self, row: Map<String, Json>, limits: &Limits) {
        let row = Json::Object(row);
        let bytes = row.to_string().len() as u64;
        if !self.has_room(bytes, limits) {
            self.cut();
        }
        if !self.is_cut {
            self.bytes += bytes;
            self.kept.push(row);
        }
    }

    /// No row is kept any more.
    pub(crate) fn cut(&mut self) {
        self.is_cut = true;
    }

    /// Whether there was more than is kept.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The outcome of a statement that changed so many rows.
    pub(crate) fn outcome(self, effect: Effect, changed: u64, has_columns: bool) -> Outcome {
        let Self { kept: rows, bytes, is_cut } = self;
        let count = rows.len() as u64;
        match effect {
            Effect::Read => Outcome::done(json!({ "rows": rows, "truncated": is_cut }), count, bytes),
            Effect::Write | Effect::Irreversible if !has_columns => {
                Outcome::done(json!({ "changed_rows": changed }), changed, bytes)
            }
            Effect::Write | Effect::Irreversible => {
                let result = json!({ "changed_rows": changed, "rows": rows, "truncated": is_cut });
                Outcome::done(result, changed, bytes)
            }
        }
    }
}

/// Rows that a statement changed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changed {
    /// By itself.
    pub(crate) own: u64,
    /// With all that followed from it: triggers, and what references the rows.
    pub(crate) all: u64,
}

impl Changed {
    /// Why these changes must not stay, if so.
    pub(crate) fn refusal(self, limits: &Limits) -> Option<Refusal> {
        if self.all > limits.changed_rows {
            return Some(too_many(limits.changed_rows));
        }
        let expected = limits.expect_rows?;
        (self.own != expected).then(|| not_expected(expected))
    }
}

fn too_many(most: u64) -> Refusal {
    let message =
        format!("it would have changed more than {most} rows, so it changed none; narrow the arguments");
    let refusal =
        Refusal::new("too_many_rows", RefusalClass::Budget, Wall::Limits, Retry::WithChange, message);
    Refusal { allowed: Some(format!("at most {most} changed rows a call")), ..refusal }
}

fn not_expected(expected: u64) -> Refusal {
    let message = format!(
        "it would have changed another number of rows than {expected}, so it changed none; check the arguments"
    );
    let refusal =
        Refusal::new("unexpected_rows", RefusalClass::Budget, Wall::Limits, Retry::WithChange, message);
    Refusal { allowed: Some(format!("a call that changes exactly {expected} rows")), ..refusal }
}
