//! The `trilut` command.
fn main() {}
