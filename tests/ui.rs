//! What a user of the derive reads who made a mistake: every message in full, under the tokens at fault.
//!
//! `TRYBUILD=overwrite cargo test --test ui` writes the `.stderr` files anew.

/// The macro's own messages are the same on every compiler.
#[test]
fn messages_of_the_macro() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    for topic in ["attributes", "bound", "conflicts", "crate_path", "paths", "recipe", "several", "shapes"] {
        cases.compile_fail(format!("tests/ui/{topic}/*.rs"));
    }
}

/// Here the compiler reports what the macro leaves to it: its wording changes between releases.
#[rustversion::attr(
    not(stable(1.95)),
    ignore = "the compiler's own wording is pinned for Rust 1.95: run this test with `cargo +1.95.0 test --test ui`"
)]
#[test]
fn messages_of_the_compiler() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/compiler/*/*.rs");
}
