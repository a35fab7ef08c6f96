//! What one entry says: a *leaf* that is hashed into the chain for good, and a *payload* beside it that the leaf commits to.
//!
//! Who called and with which arguments stands in the payload alone. The leaf holds a salted commitment to it, so that a
//! payload can be erased without breaking the chain, and what was erased cannot be guessed from what remains.

use aws_lc_rs::hmac;
use ringfence_core::{Call, CallId, Digest, Instant, Label, Permit, Refusal, Run, RunId, Verdict};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::counts::{Counted, Refusing};
use crate::{Revocation, Revoked, Scope};

/// The longest argument text that an entry keeps of a refused call, in bytes. Calls that run are kept whole.
const REFUSED_BYTES_MAX: usize = 16 << 10;

/// How a call ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClosingWord {
    /// It was done.
    Done,
    /// It was not done, and nothing of it remains.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// The closing entry of a call that ran.
#[derive(Clone, Debug)]
pub struct Closing {
    /// How it ended.
    pub ended: ClosingWord,
    /// The code of the refusal, where there was one.
    pub code: Option<String>,
    /// How long it ran, in microseconds.
    pub duration_us: u64,
    /// Rows that were read or changed.
    pub rows: u64,
    /// Bytes of the result.
    pub bytes: u64,
    /// The run whose labels grow by what the result yields.
    pub yields: Option<(RunId, Vec<Label>)>,
}

/// A call that was refused before it could run.
pub struct RefusedCall<'a> {
    /// When.
    pub at: Instant,
    /// Its name.
    pub call: CallId,
    /// The run.
    pub run: &'a Run,
    /// The tool, as the agent spelled it.
    pub tool: &'a str,
    /// The arguments, as the agent sent them.
    pub arguments: &'a Map<String, Value>,
    /// *Ask* or *deny*.
    pub verdict: Verdict,
    /// What the agent is told.
    pub refusal: &'a Refusal,
    /// The code for the journal: the agent's, or a sharper one that the agent must not learn.
    pub code: &'static str,
}

/// How a journal was opened.
pub(crate) struct Opening<'a> {
    pub(crate) program: &'a str,
    pub(crate) configuration: &'a Digest,
    /// No other process had it open, so what is open before this entry stays open for good.
    pub(crate) alone: bool,
    /// The first and last entry that a crash left beyond the head.
    pub(crate) unsigned: Option<(u64, u64)>,
}

/// A file that a call had made and that its run reads.
pub struct ArtifactRead<'a> {
    /// When.
    pub at: Instant,
    /// The call that had made it.
    pub call: CallId,
    /// The run.
    pub run: &'a Run,
    /// Its name, as the call spelled it.
    pub name: &'a str,
    /// How long it is.
    pub bytes: u64,
}

/// An entry that has no place in the chain yet.
pub(crate) struct Draft {
    leaf: Map<String, Value>,
    payload: Option<String>,
}

/// A payload with the salt of its commitment.
pub(crate) struct Payload {
    pub(crate) salt: [u8; 16],
    pub(crate) text: String,
}

impl Draft {
    fn new(kind: &str, at: Instant) -> Self {
        let mut leaf = Map::new();
        leaf.insert("kind".into(), kind.into());
        leaf.insert("at".into(), at.0.into());
        Self { leaf, payload: None }
    }

    fn with(mut self, fields: Value) -> Self {
        if let Value::Object(fields) = fields {
            self.leaf.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
        }
        self
    }

    fn on_behalf_of(mut self, run: &Run, arguments: &Value) -> Self {
        let principal = run.principal();
        let groups: Vec<&str> = principal.groups().iter().map(ringfence_core::GroupName::as_str).collect();
        let who = json!({ "issuer": principal.issuer(), "subject": principal.subject(), "groups": groups });
        self.payload = Some(json!({ "principal": who, "arguments": arguments }).to_string());
        self.with(json!({ "run": run.id(), "agent": run.agent(), "labels": run.labels() }))
    }

    /// The journal was opened.
    pub(crate) fn opened(at: Instant, opening: &Opening<'_>) -> Self {
        let unsigned = opening.unsigned.map(|(from, to)| [from, to]);
        Self::new("opened", at).with(json!({
            "program": opening.program, "configuration": opening.configuration, "alone": opening.alone,
            "unsigned": unsigned,
        }))
    }

    /// The journal was closed in good order.
    pub(crate) fn closed(at: Instant) -> Self {
        Self::new("closed", at)
    }

    /// A run began, with the labels that it takes over.
    pub(crate) fn run_started(run: &Run, at: Instant) -> Self {
        let terms = run.terms();
        let taken_over = (!run.labels().is_empty()).then(|| run.labels());
        let entry = Self::new("run_started", at).with(json!({
            "application": terms.application, "expires": run.expires(),
            "tools": terms.tools.as_ref().map(std::collections::BTreeSet::len), "calls_max": terms.calls_max,
            "yields": taken_over,
        }));
        entry.on_behalf_of(
            run,
            &json!({ "request": terms.request, "purpose": terms.purpose, "tools": terms.tools }),
        )
    }

    /// Runs were revoked. Who asked for it and of whom stands in the payload alone.
    pub(crate) fn run_revoked(revocation: &Revocation<'_>, revoked: &Revoked, at: Instant) -> Self {
        let Revocation { scope, by, reason } = revocation;
        let (run, agent, user) = match scope {
            Scope::Run(run) => (Some(run), None, None),
            Scope::Agent(agent) => (None, Some(agent), None),
            Scope::User { issuer, subject } => {
                (None, None, Some(json!({ "issuer": issuer, "subject": subject })))
            }
            Scope::Everything => (None, None, None),
        };
        let fields = json!({
            "scope": scope.as_str(), "run": run, "agent": agent, "runs": revoked.runs.len(),
        });
        let payload = json!({ "by": by, "reason": reason, "user": user }).to_string();
        Self { payload: Some(payload), ..Self::new("run_revoked", at).with(fields) }
    }

    /// A call was allowed and is about to run.
    pub(crate) fn intent(permit: &Permit, effect: ringfence_core::Effect) -> Self {
        let call: &Call = permit.call();
        let entry = Self::new("intent", call.at()).with(json!({
            "call": call.id(), "tool": call.tool(), "system": call.system(), "effect": effect,
            "verdict": Verdict::Allow, "rules": permit.rules(),
        }));
        entry.on_behalf_of(call.run(), &call.arguments().to_json())
    }

    /// A call was refused.
    pub(crate) fn refused(refused: &RefusedCall<'_>) -> Self {
        let tool: String = refused.tool.chars().take(64).collect();
        let arguments = Value::Object(refused.arguments.clone());
        let text = arguments.to_string();
        let kept = if text.len() <= REFUSED_BYTES_MAX {
            arguments
        } else {
            let cut: String = text.chars().take(REFUSED_BYTES_MAX / 4).collect();
            json!({ "cut": cut, "bytes": text.len(), "sha256": Digest::of(&[text.as_bytes()]) })
        };
        let entry = Self::new("refused", refused.at).with(json!({
            "call": refused.call, "tool": tool, "verdict": refused.verdict, "rules": refused.refusal.rules,
            "code": refused.code, "class": refused.refusal.class, "wall": refused.refusal.wall,
        }));
        entry.on_behalf_of(refused.run, &kept)
    }

    /// A call ended.
    pub(crate) fn outcome(call: CallId, closing: &Closing, at: Instant) -> Self {
        Self::new("outcome", at).with(json!({
            "call": call, "ended": closing.ended, "code": closing.code, "duration_us": closing.duration_us,
            "rows": closing.rows, "bytes": closing.bytes,
            "run": closing.yields.as_ref().map(|(run, _)| run),
            "yields": closing.yields.as_ref().map(|(_, labels)| labels),
        }))
    }

    /// A call has said something, so the labels of its result are on the run before it ends.
    pub(crate) fn labelled(call: CallId, run: &RunId, yields: &[Label], at: Instant) -> Self {
        Self::new("labelled", at).with(json!({ "call": call, "run": run, "yields": yields }))
    }

    /// A file that a call had made was read by its run.
    pub(crate) fn artifact_read(read: &ArtifactRead<'_>) -> Self {
        let entry =
            Self::new("artifact_read", read.at).with(json!({ "call": read.call, "bytes": read.bytes }));
        entry.on_behalf_of(read.run, &json!({ "name": read.name }))
    }

    /// Where a call's program wanted to connect to, and what was decided. What it asked for is in the payload alone.
    pub(crate) fn egress(call: CallId, decision: &Value, at: Instant) -> Self {
        let field = |name: &str| decision.get(name).cloned().unwrap_or(Value::Null);
        let entry = Self::new("egress", at);
        let fields = json!({ "call": call, "verdict": field("verdict"), "reason": field("reason") });
        Self { payload: Some(decision.to_string()), ..entry.with(fields) }
    }

    /// A token was refused.
    pub(crate) fn rejected(at: Instant, code: &str) -> Self {
        Self::new("rejected", at).with(json!({ "code": code }))
    }

    /// So many were refused besides those that have entries of their own.
    pub(crate) fn counted(counted: &Counted) -> Self {
        let fields = match &counted.refusing {
            Refusing::Run(run) => json!({ "run": run, "refused": counted.codes }),
            Refusing::OtherRuns => json!({ "refused": counted.codes }),
            Refusing::Tokens => json!({ "rejected": counted.codes }),
        };
        Self::new("counted", counted.at).with(fields)
    }

    /// The leaf at this place, and its payload. `salt` must be fresh randomness.
    pub(crate) fn place(self, number: u64, salt: [u8; 16]) -> (String, Option<Payload>) {
        let mut leaf = Map::new();
        leaf.insert("number".into(), number.into());
        leaf.extend(self.leaf);
        let payload = self.payload.map(|text| Payload { salt, text });
        if let Some(payload) = &payload {
            leaf.insert("payload".into(), payload.commitment().to_string().into());
        }
        (Value::Object(leaf).to_string(), payload)
    }
}

impl Payload {
    /// HMAC-SHA-256 of the text under the salt: binding and, while the salt is secret or gone, hiding.
    pub(crate) fn commitment(&self) -> Digest {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.salt), self.text.as_bytes());
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        bytes.into()
    }
}

/// The hash of an entry: over its number, its predecessor's hash and its leaf.
pub(crate) fn chain(number: u64, previous: &Digest, leaf: &str) -> Digest {
    Digest::of(&[
        b"ringfence journal entry v1\n",
        &number.to_be_bytes(),
        previous.as_bytes(),
        leaf.as_bytes(),
    ])
}
