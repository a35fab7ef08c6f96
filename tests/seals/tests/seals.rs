//! What must not compile does not, and each case has a twin that does: the compiler's message is about the seal, and nothing else.

// The twins are part of this test: they compile, or nothing does.
#[path = "../cases/decider_twin.rs"]
mod decider_twin;
#[path = "../cases/permit_twin.rs"]
mod permit_twin;
#[path = "../cases/run_twin.rs"]
mod run_twin;
#[path = "../cases/secret_twin.rs"]
mod secret_twin;
#[path = "../cases/ticket_twin.rs"]
mod ticket_twin;

#[test]
fn the_seals_hold() {
    trybuild::TestCases::new().compile_fail("cases/*_broken.rs");
}

#[test]
fn and_their_twins_compile() {
    decider_twin::main();
    permit_twin::main();
    run_twin::main();
    secret_twin::main();
    ticket_twin::main();
}
