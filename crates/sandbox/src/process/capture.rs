//! Keeps the head and the tail of what a program writes. The rest is read all the same, so that the program does not stall.

use std::collections::VecDeque;

use crate::Captured;

/// One output as it comes.
pub(crate) struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_max: usize,
    tail_max: usize,
    total: u64,
}

impl Capture {
    /// Keeps so many bytes: three quarters from the beginning, the rest from the end.
    pub(crate) fn new(keep: u64) -> Self {
        let keep = usize::try_from(keep).unwrap_or(usize::MAX);
        let head_max = keep / 4 * 3;
        Self { head: Vec::new(), tail: VecDeque::new(), head_max, tail_max: keep - head_max, total: 0 }
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let to_head = bytes.len().min(self.head_max.saturating_sub(self.head.len()));
        if let Some((first, rest)) = bytes.split_at_checked(to_head) {
            self.head.extend_from_slice(first);
            bytes = rest;
        }
        self.tail.extend(bytes);
        let excess = self.tail.len().saturating_sub(self.tail_max);
        drop(self.tail.drain(..excess));
    }

    /// All that was written so far, in bytes.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn finish(self) -> Captured {
        let left_out = self.total.saturating_sub((self.head.len() + self.tail.len()) as u64);
        let mut bytes = self.head;
        if left_out > 0 {
            bytes.extend_from_slice(format!("\n[… {left_out} bytes left out …]\n").as_bytes());
        }
        bytes.extend(self.tail);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Captured { text, bytes_total: self.total, cut: left_out > 0 }
    }
}
