//! A call that is allowed and not recorded does not run.
use ringfence_core::{Permit, Secret};
use ringfence_tools::{Outcome, Systems, Watch, run};

async fn act(permit: Permit, systems: &Systems, token: Option<&Secret>, watch: &Watch) -> Outcome {
    run(permit, systems, token, watch).await
}

fn main() {
    let _ = act;
}
