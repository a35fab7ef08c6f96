//! Nor can the authority to grant one.
use ringfence_core::{Call, Decider, Permit};

fn allow(call: Call) -> Permit {
    Permit::grant(&Decider(()), call, Vec::new())
}

fn main() {
    let _: fn(Call) -> Permit = allow;
}
