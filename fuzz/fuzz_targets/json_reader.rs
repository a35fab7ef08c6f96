//! Whatever the reader accepts, an ordinary reader accepts too and understands alike; what it wrote again reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_mcp::json::{Limits, read};
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(ours) = read(bytes, &Limits::default()) else { return };
    let theirs: Value = serde_json::from_slice(bytes).expect("an ordinary reader accepts it");
    assert_eq!(ours, theirs);
    let written = ours.to_string();
    assert_eq!(read(written.as_bytes(), &Limits::default()).expect("it reads what it wrote"), ours);
});
