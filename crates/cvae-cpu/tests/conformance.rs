//! The conformance suite on every instruction-set level.

use std::process::ExitCode;
use std::sync::Arc;

use cvae_conformance::Subject;
use cvae_cpu::{CpuBackend, Level};

fn main() -> ExitCode {
    let subject = |level: Level| match CpuBackend::new(level, 2) {
        Ok(backend) => {
            let subject = Subject::new(Arc::new(backend));
            let subject = subject.with_threads(move |threads| Ok(Arc::new(CpuBackend::new(level, threads)?)));
            level.deviations().iter().fold(subject, |subject, (check, reason)| subject.with_deviation(check, reason))
        }
        Err(reason) => Subject::unavailable(level.id().as_str(), reason.to_string()),
    };
    cvae_conformance::main(Level::ALL.into_iter().chain(Level::BF16).map(subject).collect())
}
