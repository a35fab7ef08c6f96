//! The way out of a sandbox: a proxy on sockets that live in the sandbox's network namespace and are held outside.
//!
//! Nothing passes but what a rule allows, and nothing leaves before the decision is on record. Inside there is no route, no
//! resolver and no secret: names are answered with addresses that mean nothing, and resolved here after the rules said yes.
//! Knows nothing of Ringfence.

mod address;
mod authority;
mod body;
mod carry;
mod client_hello;
mod conversation;
mod credential;
mod decision;
mod declared;
mod dns;
mod exchange;
mod head;
mod host;
mod meter;
mod names;
mod passage;
mod path;
mod replay;
mod request;
mod resolve;
mod rules;
mod search;
mod secret;
mod serve;
mod target;
#[cfg(test)]
mod tests;
mod trust;

pub use decision::{Decision, Quoted, Reason, Unrecorded, Verdict, Via, Watch};
pub use declared::{Declared, DeclaredCredential, DeclaredRule, Entry, Limits};
pub use host::{Host, NotAHost};
pub use meter::Totals;
pub use passage::Outside;
pub use resolve::{Resolver, SystemResolver};
pub use rules::{Problems, Rules};
pub use search::Finder;
pub use secret::{NotASecret, Secret};
pub use serve::{Egress, Listeners, NotServed, serve};
pub use trust::{NoAuthority, Trust};
