//! The conformance suite: what every backend of `cvae` must pass.
//!
//! Four rungs, each independent of more than the one before (docs/CONFORMANCE.md):
//!
//! 0. the `f64` reference, for every value, gradient and step;
//! 1. finite differences of the loss written straight from the specification;
//! 2. candle in `f64`, which shares nothing but the specification: it passes the same suite as a backend;
//! 3. closed forms, and fixtures made by PyTorch.
//!
//! ```
//! let report = cvae_conformance::run(&cvae_reference::ReferenceBackend, "closed::kl");
//! assert!(report.passed(), "{report}");
//! assert_eq!(report.counts().passed, 1);
//! ```
//!
//! A backend's own tests are ten lines, in a test target with `harness = false`:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use cvae_conformance::Subject;
//! use cvae_reference::ReferenceBackend;
//!
//! fn main() -> std::process::ExitCode {
//!     cvae_conformance::main(vec![Subject::new(Arc::new(ReferenceBackend))])
//! }
//! ```
#![forbid(unsafe_code)]

mod case;
mod check;
mod checks;
mod compare;
mod failure;
mod family;
mod faults;
mod guard;
mod kink;
mod pairwise;
mod probe;
mod report;
mod sweep;
mod target;
mod tolerance;
mod trials;

use cvae_core::Backend;

pub use crate::check::{Check, all};
pub use crate::failure::{Failure, Score, Unit, Verdict};
pub use crate::faults::{Catch, Fault, self_test};
pub use crate::report::{Counts, Outcome, Record, Report};
pub use crate::target::{Deviation, Subject, ThreadFactory};
pub use crate::tolerance::Tolerances;
pub use crate::trials::main;

/// Runs the checks whose name contains `filter` on a backend, held to the fixed limits. [`Report::run`] adds
/// recorded tolerances, skips and a choice of threads.
pub fn run(backend: &dyn Backend, filter: &str) -> Report {
    let mut report = Report::default();
    let target = target::Target::new(backend);
    for check in all().iter().filter(|check| check.name().contains(filter)) {
        report.push(backend.id().as_str(), check, check.run_on(&target));
    }
    report
}
