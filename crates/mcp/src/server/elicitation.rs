//! A page that the user has to open before a call can be done: asked for where the client can open one (URL mode elicitation),
//! and otherwise told in the refusal itself.

use std::collections::{HashSet, VecDeque};
use std::sync::Mutex;

use serde_json::{Map, Value, json};

use super::door::Answer;
use super::methods::object;
use crate::message::RpcError;
use crate::{OpenUrl, Revision, ToolResult};

const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// Clients of the older revision that are remembered; the oldest go first, and are told in the refusal.
const REMEMBERED_MAX: usize = 10_000;
/// Names the one question of a result.
const QUESTION: &str = "open-url";

/// Who said in `initialize` that it can open a page (2025-11-25, where no later request says so).
#[derive(Default)]
pub(super) struct Openers(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    owners: HashSet<String>,
    order: VecDeque<String>,
}

impl Openers {
    /// Remembers what this owner's client last said.
    pub(super) fn note(&self, owner: String, params: &Map<String, Value>) {
        let Ok(mut remembered) = self.0.lock() else { return };
        if !opens_pages(params.get("capabilities")) {
            remembered.owners.remove(&owner);
        } else if remembered.owners.insert(owner.clone()) {
            remembered.order.push_back(owner);
            if remembered.order.len() > REMEMBERED_MAX {
                let oldest = remembered.order.pop_front();
                oldest.map(|oldest| remembered.owners.remove(&oldest));
            }
        }
    }

    /// Whether the client of a call opens pages, and was not asked to in this very call already.
    pub(super) fn may_be_asked(&self, owner: &str, revision: Revision, params: &Map<String, Value>) -> bool {
        match revision {
            Revision::V2025 => self.0.lock().is_ok_and(|remembered| remembered.owners.contains(owner)),
            Revision::V2026 => {
                let capabilities = params.get("_meta").and_then(|meta| meta.get(META_CAPABILITIES));
                opens_pages(capabilities) && !params.contains_key("inputResponses")
            }
        }
    }
}

fn opens_pages(capabilities: Option<&Value>) -> bool {
    capabilities
        .and_then(|capabilities| capabilities.get("elicitation")?.get("url"))
        .is_some_and(Value::is_object)
}

/// The answer to a call: the question in the form of the revision, or the result.
pub(super) fn answer(result: &ToolResult, revision: Revision, may_be_asked: bool) -> Answer {
    match (&result.open_first, revision) {
        (Some(OpenUrl { url, message }), Revision::V2026) if may_be_asked => {
            let params = json!({ "mode": "url", "url": url, "message": message });
            let request = json!({ "method": "elicitation/create", "params": params });
            Answer::Result(object([
                ("resultType", "input_required".into()),
                ("inputRequests", json!({ QUESTION: request })),
            ]))
        }
        (Some(open), Revision::V2025) if may_be_asked => Answer::Error(RpcError::open_first(open)),
        _ => Answer::Result(result.to_json()),
    }
}
