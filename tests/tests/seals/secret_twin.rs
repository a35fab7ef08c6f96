//! A secret is taken out by name.
use ringfence_core::Secret;

fn main() {
    println!("{}", Secret::new("no secret".into()).expose());
}
