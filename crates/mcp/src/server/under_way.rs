//! Calls under way that a client can cancel by name (2025-11-25, cancellation). The newest revision cancels by hanging up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

#[derive(Default)]
pub(super) struct UnderWay(Mutex<Calls>);

#[derive(Default)]
struct Calls {
    entered: u64,
    calls: BTreeMap<u64, Call>,
}

struct Call {
    owner: String,
    id: Value,
    cancelled: CancellationToken,
}

/// A call that can be cancelled; dropping it ends that. There are as many as there are requests, so nothing else bounds them.
pub(super) struct Entry {
    of: Arc<UnderWay>,
    number: u64,
}

impl UnderWay {
    pub(super) fn enter(
        self: &Arc<Self>,
        owner: String,
        id: Value,
        cancelled: CancellationToken,
    ) -> Option<Entry> {
        let mut calls = self.0.lock().ok()?;
        calls.entered += 1;
        let number = calls.entered;
        calls.calls.insert(number, Call { owner, id, cancelled });
        Some(Entry { of: self.clone(), number })
    }

    /// Cancels the one call of this owner that has this id. Two clients of one owner may number alike, and then nobody knows
    /// which of the two is meant: neither is cancelled.
    pub(super) fn cancel(&self, owner: &str, id: &Value) {
        let Ok(calls) = self.0.lock() else { return };
        let mut meant = calls.calls.values().filter(|call| call.owner == owner && call.id == *id);
        if let (Some(call), None) = (meant.next(), meant.next()) {
            call.cancelled.cancel();
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Ok(mut calls) = self.of.0.lock() {
            calls.calls.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_its_owner_cancels_a_call_and_only_while_it_is_under_way() {
        let under_way = Arc::new(UnderWay::default());
        let enter = |owner: &str, id: Value| {
            let token = CancellationToken::new();
            (under_way.enter(owner.into(), id, token.clone()).unwrap(), token)
        };
        let (_bobs, bob) = enter("bob", json!(1));
        under_way.cancel("eve", &json!(1));
        under_way.cancel("bob", &json!("1"));
        under_way.cancel("bob", &json!(2));
        assert!(!bob.is_cancelled());
        under_way.cancel("bob", &json!(1));
        assert!(bob.is_cancelled(), "the control");
        let (_first, one) = enter("bob", json!(3));
        let (second, two) = enter("bob", json!(3));
        under_way.cancel("bob", &json!(3));
        assert!(!one.is_cancelled() && !two.is_cancelled(), "nobody knows which");
        drop(second);
        under_way.cancel("bob", &json!(3));
        assert!(one.is_cancelled() && !two.is_cancelled());
    }
}
