//! What a client still wants of a call under way: to hear of it, and that it goes on.
//!
//! What a call says is kept for a reader up to a bound, joined where the reader is slow, and left out past that: a call
//! never waits for whoever listens, and its answer carries everything.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio_util::sync::{CancellationToken, DropGuard};

/// Text that is kept for a slow reader, in bytes.
const WAITING_MAX: usize = 16 << 10;
/// Text of one message, in bytes.
const MESSAGE_MAX: usize = 4 << 10;
/// Stands where something was left out.
const LEFT_OUT: &str = "\n[…]\n";

/// The client's side of one call, for the service that carries it. Cheap to clone.
///
/// The default belongs to nobody: it hears nothing and never cancels.
#[derive(Clone, Default)]
pub struct Watch {
    progress: Option<Arc<Progress>>,
    cancelled: CancellationToken,
}

impl Watch {
    /// A watch that is cancelled when its guard is dropped.
    pub(crate) fn guarded(progress: Option<Arc<Progress>>) -> (Self, DropGuard) {
        let cancelled = CancellationToken::new();
        let guard = cancelled.clone().drop_guard();
        (Self { progress, cancelled }, guard)
    }

    /// Whether anything that is sent can be heard.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.progress.is_some()
    }

    /// Tells the client what the call says. Never waits; what a slow client cannot take is left out.
    pub fn send(&self, text: &str) {
        if let Some(progress) = &self.progress {
            progress.say(text);
        }
    }

    /// Cancelled once the client has hung up or has said that it no longer wants the answer. Also after the answer.
    #[must_use]
    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancelled
    }
}

/// What was said and not yet read.
#[derive(Default)]
pub(crate) struct Progress(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    text: String,
    /// All that was said, in bytes, what was left out included.
    said: u64,
    has_gap: bool,
    is_closed: bool,
    reader: Option<Waker>,
}

/// A message for the client.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Said {
    pub(crate) text: String,
    /// How far it has come: the bytes that were said up to its end. Grows with each message.
    pub(crate) progress: u64,
}

impl Progress {
    fn say(&self, text: &str) {
        let Ok(mut waiting) = self.0.lock() else { return };
        if waiting.is_closed || text.is_empty() {
            return;
        }
        waiting.said += text.len() as u64;
        if waiting.has_gap && waiting.text.len() + LEFT_OUT.len() + text.len() <= WAITING_MAX {
            waiting.text.push_str(LEFT_OUT);
            waiting.said += LEFT_OUT.len() as u64;
            waiting.has_gap = false;
        }
        let room = if waiting.has_gap { 0 } else { WAITING_MAX.saturating_sub(waiting.text.len()) };
        let (kept, left_out) = split(text, room);
        waiting.text.push_str(kept);
        waiting.has_gap |= !left_out.is_empty();
        if let Some(reader) = waiting.reader.take() {
            reader.wake();
        }
    }

    /// Ready as soon as something was said.
    pub(crate) fn poll_said(&self, reading: &Context<'_>) -> Poll<()> {
        let Ok(mut waiting) = self.0.lock() else { return Poll::Pending };
        if waiting.text.is_empty() {
            waiting.reader = Some(reading.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// The next message, if anything was said.
    pub(crate) fn take(&self) -> Option<Said> {
        let mut waiting = self.0.lock().ok()?;
        let (text, rest) = split(&waiting.text, MESSAGE_MAX);
        if text.is_empty() {
            return None;
        }
        let (text, rest) = (text.to_owned(), rest.to_owned());
        let progress = waiting.said - rest.len() as u64;
        waiting.text = rest;
        Some(Said { text, progress })
    }

    /// From here on nothing is said.
    pub(crate) fn close(&self) {
        if let Ok(mut waiting) = self.0.lock() {
            waiting.is_closed = true;
        }
    }
}

/// The longest beginning of at most so many bytes, and the rest.
fn split(text: &str, most: usize) -> (&str, &str) {
    text.split_at_checked(text.floor_char_boundary(most)).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn heard() -> (Watch, Arc<Progress>) {
        let progress = Arc::new(Progress::default());
        (Watch { progress: Some(progress.clone()), ..Watch::default() }, progress)
    }

    #[test]
    fn a_reader_that_never_reads_costs_a_bounded_amount_and_nobody_waits() {
        let (watch, progress) = heard();
        for _ in 0..10_000 {
            watch.send(&"ä".repeat(1000));
        }
        assert!(progress.0.lock().unwrap().text.len() <= WAITING_MAX);
        let mut texts = Vec::new();
        while let Some(said) = progress.take() {
            assert!(said.text.len() <= MESSAGE_MAX);
            texts.push(said.text);
        }
        watch.send("the end");
        // The control: a reader that is there again hears on, and sees that something is missing.
        assert_eq!(progress.take().unwrap().text, "\n[…]\nthe end");
        assert!(texts.concat().chars().all(|char| char == 'ä'));
    }

    #[test]
    fn dropping_the_guard_cancels() {
        let (watch, guard) = Watch::guarded(None);
        assert!(!watch.cancellation().is_cancelled(), "the control");
        drop(guard);
        assert!(watch.cancellation().is_cancelled());
    }

    proptest! {
        #[test]
        fn progress_grows_with_each_message(said in prop::collection::vec((any::<char>(), 0_usize..9000, any::<bool>()), 1..20)) {
            let (watch, progress) = heard();
            let mut before = 0;
            for (char, length, reads) in said {
                watch.send(&char.to_string().repeat(length));
                while let Some(said) = reads.then(|| progress.take()).flatten() {
                    prop_assert!(said.progress > before);
                    before = said.progress;
                }
            }
        }
    }
}
