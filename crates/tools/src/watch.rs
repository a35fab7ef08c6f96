//! Who watches a call: where what it says goes while it runs, and whether it is still wanted.

use std::pin::Pin;
use std::sync::Arc;

use ringfence_core::{Refusal, RefusalClass, Retry, Wall};
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;

/// Takes what a call says. Must return at once.
pub type Sink = Arc<dyn Fn(&str) + Send + Sync>;

/// Records what was decided about a connection of a call's program; `false` where it could not, and then nothing leaves.
pub type EgressLog = Arc<dyn Fn(Json) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// Who watches a call. Cheap to clone; the default is nobody.
#[derive(Clone, Default)]
pub struct Watch {
    sink: Option<Sink>,
    recorder: Option<EgressLog>,
    cancelled: CancellationToken,
}

impl Watch {
    /// A watch that hears through `sink`, if it wants to hear anything, and no longer wants the call once `cancelled`.
    ///
    /// `sink` is called from the task of the call, and must neither wait nor keep what it cannot hold.
    #[must_use]
    pub fn new(sink: Option<Sink>, cancelled: CancellationToken) -> Self {
        Self { sink, recorder: None, cancelled }
    }

    /// The same, no longer wanted once this is cancelled instead.
    #[must_use]
    pub fn cancelled_by(self, cancelled: CancellationToken) -> Self {
        Self { cancelled, ..self }
    }

    /// The same with a record of what its program connects to.
    #[must_use]
    pub fn recorded_by(self, recorder: EgressLog) -> Self {
        Self { recorder: Some(recorder), ..self }
    }

    /// Records a decision. Where nobody does, it is not recorded.
    pub(crate) fn record(&self, decision: Json) -> impl Future<Output = bool> + Send + use<> {
        let recording = self.recorder.as_ref().map(|recorder| recorder(decision));
        async move {
            match recording {
                Some(recording) => recording.await,
                None => false,
            }
        }
    }

    /// Whether what is said can be heard.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.sink.is_some()
    }

    /// Passes on what the call says.
    pub fn send(&self, text: &str) {
        if let Some(sink) = &self.sink {
            sink(text);
        }
    }

    /// One output of the call, such as its standard output: bytes go in as they come, text goes to who watches.
    #[must_use]
    pub fn output(&self) -> Heard {
        Heard { watch: self.clone(), cut: Vec::new() }
    }

    /// Completes once nobody wants the call any more. Only what can be stopped without leaving an effect in doubt may heed it.
    pub async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// Refuses a call that nobody wants any more: asked last before its effect begins, which is never cut in half after that.
    pub(crate) fn wanted(&self) -> Result<(), Refusal> {
        if self.cancelled.is_cancelled() { Err(not_begun()) } else { Ok(()) }
    }

    /// The same, as a token.
    #[must_use]
    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancelled
    }
}

/// The call was given up, or its run ended, before it had any effect.
pub(crate) fn not_begun() -> Refusal {
    let message = "the call was given up, or its run has ended, before it had begun; nothing was done";
    Refusal::new("cancelled", RefusalClass::Upstream, Wall::Limits, Retry::Later, message)
}

/// Bytes of one output on their way to who watches: a character that is cut between two pieces is heard whole.
pub struct Heard {
    watch: Watch,
    /// The beginning of a character whose end has not come.
    cut: Vec<u8>,
}

impl Heard {
    /// The next bytes. What is not UTF-8 is replaced.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.watch.is_heard() {
            return;
        }
        let mut rest = std::mem::take(&mut self.cut);
        rest.extend_from_slice(bytes);
        let mut text = String::with_capacity(rest.len());
        let mut chunks = rest.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            match chunk.invalid() {
                [] => {}
                cut if chunks.peek().is_none() && may_go_on(cut) => self.cut = cut.to_vec(),
                _ => text.push(char::REPLACEMENT_CHARACTER),
            }
        }
        if !text.is_empty() {
            self.watch.send(&text);
        }
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        if !self.cut.is_empty() {
            self.watch.send("\u{fffd}");
        }
    }
}

/// Whether these bytes are the beginning of a character.
fn may_go_on(cut: &[u8]) -> bool {
    std::str::from_utf8(cut).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;

    fn heard(pieces: &[&[u8]]) -> String {
        let said = Arc::new(Mutex::new(String::new()));
        let sink = said.clone();
        let sink: Sink = Arc::new(move |text: &str| sink.lock().unwrap().push_str(text));
        let mut output = Watch::new(Some(sink), CancellationToken::new()).output();
        for piece in pieces {
            output.push(piece);
        }
        drop(output);
        said.lock().unwrap().clone()
    }

    #[test]
    fn a_character_that_is_cut_is_heard_whole() {
        let text = "aä€😀";
        for cut in 0..=text.len() {
            let (one, other) = text.as_bytes().split_at(cut);
            assert_eq!(heard(&[one, other]), text);
        }
        assert_eq!(heard(&[b"\xe2\x82", b"x", b"\xff\xc3"]), "\u{fffd}x\u{fffd}\u{fffd}");
    }

    proptest! {
        #[test]
        fn pieces_are_heard_as_the_whole_would_be(bytes in any::<Vec<u8>>(), size in 1_usize..9) {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            prop_assert_eq!(heard(&pieces), String::from_utf8_lossy(&bytes));
        }
    }
}
