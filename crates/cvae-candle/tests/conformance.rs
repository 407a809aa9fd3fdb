//! The conformance suite on both precisions of candle.

use std::process::ExitCode;
use std::sync::Arc;

use cvae_candle::{CandleBackend, Precision};
use cvae_conformance::Subject;

fn main() -> ExitCode {
    let subject = |precision| {
        let backend = CandleBackend::new(precision);
        let subject = Subject::new(Arc::new(backend));
        backend.deviations().iter().fold(subject, |subject, (check, reason)| subject.with_deviation(check, reason))
    };
    cvae_conformance::main(Precision::ALL.map(subject).into())
}
