//! What a check may end in.

use cvae_core::{CompileError, RunError, SpecError, Unsupported};
use thiserror::Error;

/// Why a check did not pass.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Failure {
    /// The check does not apply, with the reason: a result of its own, never a pass.
    #[error("skipped: {reason}")]
    Skipped {
        /// Why it does not apply.
        reason: String,
    },
    /// The suite built a plan that core rejects.
    #[error("the plan of this check is invalid")]
    Spec(#[from] SpecError),
    /// The backend supports the plan but could not compile it.
    #[error("compile failed")]
    Compile(#[from] CompileError),
    /// The backend does not support a plan that every backend must.
    #[error("not supported")]
    Unsupported(#[from] Unsupported),
    /// A call failed that must work.
    #[error("`{call}` failed")]
    Run {
        /// The method.
        call: &'static str,
        /// Its error.
        #[source]
        source: RunError,
    },
    /// A call worked that must fail, or failed in another way.
    #[error("{call}: expected {expected}, got {found}")]
    WrongError {
        /// The call.
        call: &'static str,
        /// The error asked for.
        expected: &'static str,
        /// What came instead.
        found: String,
    },
    /// A call wrote outside of its buffer.
    #[error("`{call}` wrote outside of its buffer, at element {position}")]
    Guard {
        /// The method.
        call: &'static str,
        /// Element, relative to the buffer's start.
        position: isize,
    },
    /// A value is beyond its tolerance.
    #[error("{what}: error {error:.3e} beyond {limit:.3e} ({unit}); {detail}")]
    Tolerance {
        /// What was compared.
        what: String,
        /// Its error.
        error: f64,
        /// The limit.
        limit: f64,
        /// What both are measured in.
        unit: Unit,
        /// The worst element.
        detail: String,
    },
    /// Two results differ that must be the same bits.
    #[error("{what}: {differing} of {len} elements differ, first at {first}: {left:e} and {right:e}")]
    NotIdentical {
        /// What was compared.
        what: String,
        /// Elements that differ.
        differing: usize,
        /// Elements compared.
        len: usize,
        /// Index of the first.
        first: usize,
        /// First value.
        left: f64,
        /// Second value.
        right: f64,
    },
    /// A statement about the results does not hold.
    #[error("expected {expected}, found {found}")]
    Expectation {
        /// The statement.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A fixture cannot be read.
    #[error("fixture {name}: {problem}")]
    Fixture {
        /// The fixture.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Failure {
    /// A skip with its reason.
    pub(crate) fn skipped(reason: impl Into<String>) -> Self {
        Self::Skipped { reason: reason.into() }
    }

    /// The message and that of every cause.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

/// What an error is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Units in the last place of the backend's number format, divided by the root of the longest reduction.
    Ulps,
    /// Relative to the size of what is compared.
    Relative,
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ulps => "ulps per root of the reduction length",
            Self::Relative => "relative",
        })
    }
}

/// What a passed check measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// The worst error; 0 for a check of bits or statements.
    pub error: f64,
    /// Its unit.
    pub unit: Unit,
}

impl Score {
    /// Nothing was measured: bits or statements held.
    pub const EXACT: Self = Self { error: 0.0, unit: Unit::Ulps };

    /// The worse of two scores of one unit.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        if other.error > self.error { other } else { self }
    }
}

/// Result of a check.
pub type Verdict = Result<Score, Failure>;

/// Fails with an [`Failure::Expectation`] unless `holds`.
pub(crate) fn expect(holds: bool, expected: impl Into<String>, found: impl FnOnce() -> String) -> Result<(), Failure> {
    match holds {
        true => Ok(()),
        false => Err(Failure::Expectation { expected: expected.into(), found: found() }),
    }
}
