//! The checks by name.

use std::fmt;
use std::sync::Arc;

use crate::checks;
use crate::failure::{Failure, Verdict};
use crate::target::{Subject, Target};

type Body = Arc<dyn Fn(&Target<'_>) -> Verdict + Send + Sync>;

/// What a check needs of a backend beyond the trait; without it, the check is skipped with the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requirement {
    /// Arithmetic in double precision.
    DoublePrecision,
    /// A choice of threads.
    Threads,
}

impl Requirement {
    /// The reason why `target` does not meet the requirement.
    fn unmet(self, target: &Target<'_>) -> Option<&'static str> {
        match self {
            Self::DoublePrecision if !target.is_double() => {
                Some("needs double precision; single precision is held to the reference instead")
            }
            Self::Threads if target.threads.is_none() => Some("this backend has no choice of threads of its own"),
            Self::DoublePrecision | Self::Threads => None,
        }
    }
}

/// One check of the suite.
#[derive(Clone)]
pub struct Check {
    name: String,
    requirement: Option<Requirement>,
    body: Body,
}

impl Check {
    /// A check called `name`: words separated by `::`, the first two being its family.
    pub(crate) fn new(name: impl Into<String>, body: impl Fn(&Target<'_>) -> Verdict + Send + Sync + 'static) -> Self {
        Self { name: name.into(), requirement: None, body: Arc::new(body) }
    }

    /// Skips the check on backends that do not meet `requirement`.
    pub(crate) fn requiring(mut self, requirement: Requirement) -> Self {
        self.requirement = Some(requirement);
        self
    }

    /// The full name, such as `grad::collapsed::rows7_width17_latent1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first two words: one row of the matrix and one recorded tolerance.
    pub fn family(&self) -> &str {
        family(&self.name)
    }

    /// Why the check does not apply to a subject, if so: an unavailable backend, a stated deviation, or a
    /// requirement that is not met.
    pub fn skip_reason(&self, subject: &Subject) -> Option<String> {
        let unmet = || {
            let target = subject.target().ok()?;
            self.requirement?.unmet(&target)
        };
        subject.skip_reason(&self.name).or_else(unmet).map(str::to_owned)
    }

    /// Runs the check on a subject, unless there is a reason to skip it.
    ///
    /// # Errors
    /// [`Failure::Skipped`], or whatever does not hold.
    pub fn run(&self, subject: &Subject) -> Verdict {
        match (subject.skip_reason(&self.name), subject.target()) {
            (Some(reason), _) | (None, Err(reason)) => Err(Failure::skipped(reason)),
            (None, Ok(target)) => self.run_on(&target),
        }
    }

    /// Runs the check on a backend, unless it lacks what the check requires.
    pub(crate) fn run_on(&self, target: &Target<'_>) -> Verdict {
        match self.requirement.and_then(|requirement| requirement.unmet(target)) {
            Some(reason) => Err(Failure::skipped(reason)),
            None => (self.body)(target),
        }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The first two words of a check's name.
pub(crate) fn family(name: &str) -> &str {
    name.match_indices("::").nth(1).map_or(name, |(end, _)| &name[..end])
}

/// Every check, in the order of the matrix.
pub fn all() -> Vec<Check> {
    let mut all = Vec::new();
    checks::values::add(&mut all);
    checks::gradients::add(&mut all);
    checks::differences::add(&mut all);
    checks::family::add(&mut all);
    checks::steps::add(&mut all);
    checks::training::add(&mut all);
    checks::data::add(&mut all);
    checks::contract::add(&mut all);
    checks::memory::add(&mut all);
    checks::generated::add(&mut all);
    checks::closed::add(&mut all);
    checks::closed_family::add(&mut all);
    checks::golden::add(&mut all);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_have_families() {
        let checks = all();
        let mut names: Vec<_> = checks.iter().map(Check::name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(checks.iter().all(|check| check.family().split("::").count() == 2), "{checks:?}");
    }
}
