//! The `cvae` command line.
fn main() {}
