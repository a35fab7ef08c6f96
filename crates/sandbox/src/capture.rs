//! Keeps the head and the tail of what a program writes, and reads the rest so that the program does not stall.

use std::collections::VecDeque;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::Captured;

/// Reads a stream to its end, or until `most` bytes have come: then it is dropped, and `true` says so.
pub(crate) async fn capture(mut stream: impl AsyncRead + Unpin, keep: u64, most: u64) -> (Captured, bool) {
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    let head_max = keep / 4 * 3;
    let (mut head, mut tail, mut total) = (Vec::new(), VecDeque::<u8>::new(), 0_u64);
    let mut buffer = vec![0; 16 << 10];
    let mut is_over = false;
    while let Ok(count) = stream.read(&mut buffer).await {
        let Some(mut read) = buffer.get(..count).filter(|read| !read.is_empty()) else { break };
        total += count as u64;
        if total > most {
            is_over = true;
            break;
        }
        let to_head = read.len().min(head_max.saturating_sub(head.len()));
        if let Some((first, rest)) = read.split_at_checked(to_head) {
            head.extend_from_slice(first);
            read = rest;
        }
        tail.extend(read);
        let excess = tail.len().saturating_sub(keep - head_max);
        drop(tail.drain(..excess));
    }
    let left_out = total.saturating_sub((head.len() + tail.len()) as u64);
    let mut bytes = head;
    if left_out > 0 {
        bytes.extend_from_slice(format!("\n[… {left_out} bytes left out …]\n").as_bytes());
    }
    bytes.extend(tail);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (Captured { text, bytes_total: total, cut: left_out > 0 }, is_over)
}
