//! A ticket runs once.
use ringfence_core::{Secret, Ticket};
use ringfence_tools::{Outcome, Systems, Watch, run};

async fn act(ticket: Ticket, systems: &Systems, token: Option<&Secret>, watch: &Watch) -> [Outcome; 2] {
    [run(ticket, systems, token, watch).await, run(ticket, systems, token, watch).await]
}

fn main() {
    let _ = act;
}
