//! What must not compile stands in `cases`; `tests/seals.rs` sees to it.
