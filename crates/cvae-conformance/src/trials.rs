//! The suite as tests of a backend's crate.

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use crate::check;
use crate::report::verdict;
use crate::target::Subject;
use crate::tolerance::Tolerances;

/// Runs every check on every subject as a test named `BACKEND::CHECK`, so that cargo's filters work. For a test
/// target with `harness = false`.
///
/// A skip shows as ignored, with its reason in brackets.
pub fn main(subjects: Vec<Subject>) -> ExitCode {
    let arguments = Arguments::from_args();
    let tolerances = match Tolerances::committed() {
        Ok(tolerances) => Arc::new(tolerances),
        Err(error) => {
            eprintln!("error: the recorded tolerances cannot be read: {error}");
            return ExitCode::FAILURE;
        }
    };
    let checks = check::all();
    let mut trials = Vec::new();
    for subject in subjects {
        for check in &checks {
            let name = format!("{}::{}", subject.id(), check.name());
            let reason = check.skip_reason(&subject);
            let (check, subject, tolerances) = (check.clone(), subject.clone(), Arc::clone(&tolerances));
            let trial = Trial::test(name, move || {
                verdict(&check, &subject, Some(&tolerances)).map(drop).map_err(|failure| failure.chain().into())
            });
            trials.push(match reason {
                Some(reason) => trial.with_ignored_flag(true).with_kind(format!("skipped: {reason}")),
                None => trial,
            });
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
