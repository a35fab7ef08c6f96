//! What must not compile does not, and each case has a twin that does: the compiler's message is about the seal, and nothing else.

#[test]
fn the_seals_hold() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/seals/*_twin.rs");
    cases.compile_fail("tests/seals/*_broken.rs");
}
