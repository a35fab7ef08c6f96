//! Carries a call from the agent to the tool and back: the pipeline, the limits, the agents' door.

mod agents_door;
mod artifacts;
mod caller;
mod clock;
mod gate;
mod limits;
mod pipeline;
mod reply;
mod runs;
mod shutdown;
mod visible;

pub use agents_door::{DoorSettings, agents_door, health_routes};
pub use artifacts::{Handed, Kept, Link};
pub use caller::{Asked, Caller, NotIdentified, Request, refuse_token_in_query};
pub use clock::Clock;
pub use limits::CallLimits;
pub use pipeline::{Gateway, Parts, Status};
pub use reply::Reply;
pub use ringfence_identity::Application;
pub use ringfence_store::{NoRun, Revocation, Revoked, RunFilter, Scope, StoredRun};
pub use ringfence_tools::{Sink, Watch};
pub use runs::{ApplicationRule, NotRevoked, NotStarted, RunLimits, Start, Started};

#[cfg(test)]
mod tests;
