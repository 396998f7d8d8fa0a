//! Mistakes in `kernels!` are reported at the token, with the rule.

#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
