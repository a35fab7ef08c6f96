//! With the decider's authority, a permit can be granted.
use ringfence_core::{Call, Decider, Permit};

fn allow(decider: &Decider, call: Call) -> Permit {
    Permit::grant(decider, call, Vec::new())
}

pub(crate) fn main() {
    let _: fn(&Decider, Call) -> Permit = allow;
}
