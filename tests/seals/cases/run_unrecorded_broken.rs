//! A call that is allowed and not recorded does not run.
use ringfence_core::{Permit, Secret};
use ringfence_tools::{Outcome, Systems, run};

async fn act(permit: Permit, systems: &Systems, token: &Secret) -> Outcome {
    run(permit, systems, token).await
}

fn main() {
    let _ = act;
}
