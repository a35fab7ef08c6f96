//! A recorded call runs.
use ringfence_core::{Secret, Ticket};
use ringfence_tools::{Outcome, Systems, run};

async fn act(ticket: Ticket, systems: &Systems, token: &Secret) -> Outcome {
    run(ticket, systems, token).await
}

pub(crate) fn main() {
    let _ = act;
}
