//! A secret is taken out by name.
use ringfence_core::Secret;

pub(crate) fn main() {
    assert_eq!(Secret::new("no secret".into()).expose(), "no secret");
}
