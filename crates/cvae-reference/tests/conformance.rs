//! The conformance suite on the reference: finite differences, closed forms, fixtures, and its own contract.

use std::process::ExitCode;
use std::sync::Arc;

use cvae_conformance::Subject;
use cvae_reference::ReferenceBackend;

fn main() -> ExitCode {
    cvae_conformance::main(vec![Subject::new(Arc::new(ReferenceBackend))])
}
