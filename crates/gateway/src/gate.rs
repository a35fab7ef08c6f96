//! Holds back what a call says until the labels of its result are on the run: the agent sees no byte before.

use std::convert::Infallible;
use std::fmt::Display;
use std::sync::{Arc, Mutex};

use ringfence_core::Label;
use ringfence_tools::{Sink, Watch};
use tokio::sync::Notify;

/// Text that is held back, in bytes; what comes after that is left out.
const HELD_MAX: usize = 16 << 10;

/// Stands between a call and whoever watches it. Open from the start where its result yields no label.
#[derive(Clone)]
pub(crate) struct Gate(Arc<State>);

struct State {
    client: Watch,
    /// What was said so far; none once the gate is open.
    held: Mutex<Option<String>>,
    said: Notify,
}

impl Gate {
    pub(crate) fn new(client: &Watch, yields: &[Label]) -> Self {
        let held = (!yields.is_empty()).then(String::new);
        Self(Arc::new(State { client: client.clone(), held: Mutex::new(held), said: Notify::new() }))
    }

    /// The watch for the call itself.
    pub(crate) fn watch(&self) -> Watch {
        let state = self.0.clone();
        let sink = self.0.client.is_heard().then(|| -> Sink { Arc::new(move |text: &str| state.say(text)) });
        Watch::new(sink, self.0.client.cancellation().clone())
    }

    /// Waits for the first word, puts the labels on the run and opens. Where that fails, nothing is heard before the end.
    pub(crate) async fn open_once<E: Display>(
        &self,
        label: impl AsyncFnOnce() -> Result<(), E>,
    ) -> Infallible {
        self.0.said.notified().await;
        match label().await {
            Ok(()) => self.0.open(),
            Err(error) => {
                tracing::error!(%error, "labels could not be recorded, so a call is not heard before its end");
            }
        }
        std::future::pending().await
    }
}

impl State {
    fn say(&self, text: &str) {
        let Ok(mut held) = self.held.lock() else { return };
        let Some(held) = held.as_mut() else { return self.client.send(text) };
        let end = text.floor_char_boundary(HELD_MAX.saturating_sub(held.len()));
        held.push_str(text.get(..end).unwrap_or_default());
        self.said.notify_one();
    }

    fn open(&self) {
        // Under the lock, so that nothing overtakes what was said before.
        let Ok(mut held) = self.held.lock() else { return };
        if let Some(held) = held.take() {
            self.client.send(&held);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use tokio_util::sync::CancellationToken;

    use super::*;

    /// A gate, and what its client has heard.
    fn gate(yields: &[Label]) -> (Gate, Arc<Mutex<String>>) {
        let heard = Arc::new(Mutex::new(String::new()));
        let ear = heard.clone();
        let sink = Arc::new(move |text: &str| ear.lock().unwrap().push_str(text));
        (Gate::new(&Watch::new(Some(sink), CancellationToken::new()), yields), heard)
    }

    /// Lets the gate do what it can do now.
    fn poll_once(opening: impl Future<Output = Infallible>) {
        assert!(pin!(opening).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }

    #[test]
    fn nothing_is_heard_before_the_labels_are_on_the_run() {
        let (gate, heard) = gate(&[Label::Untrusted]);
        let watch = gate.watch();
        watch.send("one ");
        poll_once(gate.open_once(async || {
            watch.send("two ");
            assert_eq!(*heard.lock().unwrap(), "", "the labels are not there yet");
            Ok::<(), String>(())
        }));
        watch.send("three");
        assert_eq!(*heard.lock().unwrap(), "one two three");
    }

    #[test]
    fn where_the_labels_cannot_be_recorded_nothing_is_heard() {
        let (gate, heard) = gate(&[Label::Untrusted]);
        gate.watch().send("one");
        poll_once(gate.open_once(async || Err("no disk")));
        gate.watch().send(&"x".repeat(1 << 20));
        assert_eq!(*heard.lock().unwrap(), "");
        assert_eq!(gate.0.held.lock().unwrap().as_ref().unwrap().len(), HELD_MAX);
    }

    #[test]
    fn a_call_without_labels_is_heard_at_once() {
        let (gate, heard) = gate(&[]);
        gate.watch().send("one");
        assert_eq!(*heard.lock().unwrap(), "one");
    }
}
