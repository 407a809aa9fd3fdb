//! The conformance suite on the emulated driver, in every precision.

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use std::sync::Arc;

    use cvae_conformance::Subject;
    use cvae_cuda::{CudaBackend, Precision};
    use cvae_cuda_emu::Emulator;

    Emulator::install().expect("the emulated driver loads");
    let subject = |precision| {
        let backend = CudaBackend::new(precision).expect("the emulated GPU");
        let deviations = backend.deviations();
        let subject = Subject::new(Arc::new(backend));
        deviations.iter().fold(subject, |subject, (check, reason)| subject.with_deviation(check, reason))
    };
    cvae_conformance::main(Precision::ALL.map(subject).into())
}

#[cfg(not(target_os = "linux"))]
fn main() {}
