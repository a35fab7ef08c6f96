//! A permit cannot be made by hand.
use ringfence_core::{Call, Permit};

fn allow(call: Call) -> Permit {
    Permit { call, rules: Vec::new() }
}

fn main() {
    let _: fn(Call) -> Permit = allow;
}
