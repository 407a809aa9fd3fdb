//! The `cvae` command line.
#![forbid(unsafe_code)]

mod args;
mod report;

fn main() {}
