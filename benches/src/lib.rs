//! Speed of `cvae` beside what a user would otherwise pick.
//!
//! A measurement is a case ([`case::Case`]) on an engine: one of our backends, run by the program
//! `bench-engine`, or a peer's script in `benches/peers/`. Engines are processes of their own that speak one
//! protocol: they report `ready`, then run one round for each line they are sent, so that the program `bench`
//! can interleave the rounds of all of them. Rules and how to read the tables: docs/BENCHMARKS.md.
//!
//! ```
//! use cvae_bench::case::Case;
//!
//! let case: Case = "F/train/128".parse()?;
//! assert_eq!(case.to_string(), "F/train/128");
//! assert_eq!(case.plan()?.spec.latent(), 32);
//! # Ok::<(), anyhow::Error>(())
//! ```
#![allow(clippy::print_stdout, reason = "measurements go to standard output")]

pub mod case;
pub mod chart;
pub mod compare;
pub mod cost;
pub mod engine;
pub mod peak;
pub mod peers;
pub mod record;
pub mod report;
pub mod session;
pub mod stats;
pub mod table;
pub mod whole;
