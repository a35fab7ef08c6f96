//! A recorded call runs.
use ringfence_core::{Secret, Ticket};
use ringfence_tools::{Outcome, Systems, Watch, run};

async fn act(ticket: Ticket, systems: &Systems, token: Option<&Secret>, watch: &Watch) -> Outcome {
    run(ticket, systems, token, watch).await
}

pub(crate) fn main() {
    let _ = act;
}
