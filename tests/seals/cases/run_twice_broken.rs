//! A ticket runs once.
use ringfence_core::{Secret, Ticket};
use ringfence_tools::{Outcome, Systems, run};

async fn act(ticket: Ticket, systems: &Systems, token: &Secret) -> [Outcome; 2] {
    [run(ticket, systems, token).await, run(ticket, systems, token).await]
}

fn main() {
    let _ = act;
}
