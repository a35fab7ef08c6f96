//! The demo, as whoever runs the tests; `tests/tests/users.rs` runs it as another user.

use std::time::{Duration, Instant};

use ringfence_tests::{nothing_got_through, ringfence};

#[test]
fn nothing_gets_through_and_the_useful_work_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let began = Instant::now();
    nothing_got_through(&ringfence(&["demo", "--json", "--keep", kept.to_str().unwrap()]));
    assert!(began.elapsed() < Duration::from_mins(1), "it hangs");
    assert_eq!(ringfence(&["journal", "verify", kept.to_str().unwrap()]).code, 0);
    let again = ringfence(&["demo", "--keep", kept.to_str().unwrap()]);
    assert_eq!(again.code, 2);
    assert!(again.stderr.contains("is not empty, and nothing was written"), "{}", again.stderr);
}

#[test]
fn without_a_terminal_it_reads_well() {
    let ran = ringfence(&["demo"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!ran.stdout.contains('\u{1b}') && ran.stderr.is_empty(), "{ran:?}");
    let columns: Vec<usize> = ran.stdout.lines().filter_map(|line| line.find("bob")).collect();
    assert!(
        columns.iter().filter(|column| **column == columns[1]).count() > 15,
        "the columns are straight: {columns:?}"
    );
    assert!(ran.stdout.contains("attacks through          0"), "{}", ran.stdout);
}
