//! What may happen: Cedar policies over a schema generated from the action-space. No rule means no, and an error means no.
//!
//! The only crate that knows Cedar.

mod decide;
mod load;
mod request;
mod schema;
mod statements;
#[cfg(test)]
mod tests;

pub use load::{Policies, PolicyFile};
