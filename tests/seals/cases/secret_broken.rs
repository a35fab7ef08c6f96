//! A secret is not printed by accident.
use ringfence_core::Secret;

fn main() {
    println!("{:?}", Secret::new("no secret".into()));
}
