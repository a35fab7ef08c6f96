//! Files that calls made: handed over with the result, or kept for a while so that the same run can read them.

mod hand_over;
mod keep;
mod read;
#[cfg(test)]
mod tests;

pub use hand_over::Handed;
pub(crate) use keep::Artifacts;
pub use keep::{Kept, Link};
pub(crate) use read::ArtifactRefused;
