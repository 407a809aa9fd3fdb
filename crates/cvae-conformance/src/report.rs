//! What a run found, and the matrix that shows it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::check::Check;
use crate::failure::{Failure, Verdict};
use crate::target::Subject;
use crate::tolerance::Tolerances;

/// How one check ended on one backend.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It held.
    Passed {
        /// The measured error, 0 for a check of bits or statements.
        error: f64,
    },
    /// It did not.
    Failed {
        /// Why.
        message: String,
    },
    /// It does not apply.
    Skipped {
        /// Why not.
        reason: String,
    },
}

/// One cell of the run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// The backend's id.
    pub backend: String,
    /// The check's full name.
    pub check: String,
    /// The check's family: the row of the matrix.
    pub family: String,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The results of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Every check on every backend, in the order run.
    pub records: Vec<Record>,
}

/// Results counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Checks that held.
    pub passed: usize,
    /// Checks that did not.
    pub failed: usize,
    /// Checks that do not apply.
    pub skipped: usize,
}

impl Counts {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Passed { .. } => self.passed += 1,
            Outcome::Failed { .. } => self.failed += 1,
            Outcome::Skipped { .. } => self.skipped += 1,
        }
    }
}

impl Report {
    /// Runs the checks whose name contains `filter` on a subject and adds the results; errors are held to
    /// `tolerances` too, unless there are none.
    pub fn run(&mut self, subject: &Subject, checks: &[Check], filter: &str, tolerances: Option<&Tolerances>) {
        for check in checks.iter().filter(|check| check.name().contains(filter)) {
            self.push(subject.id(), check, verdict(check, subject, tolerances));
        }
    }

    /// Adds how `check` ended on `backend`.
    pub(crate) fn push(&mut self, backend: &str, check: &Check, verdict: Verdict) {
        let outcome = outcome(verdict);
        let (check, family) = (check.name().to_owned(), check.family().to_owned());
        self.records.push(Record { backend: backend.to_owned(), check, family, outcome });
    }

    /// Totals over all backends.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.records.iter().for_each(|record| counts.add(&record.outcome));
        counts
    }

    /// Totals of one backend.
    pub fn counts_of(&self, backend: &str) -> Counts {
        let mut counts = Counts::default();
        self.records.iter().filter(|record| record.backend == backend).for_each(|record| counts.add(&record.outcome));
        counts
    }

    /// Whether no check failed.
    pub fn passed(&self) -> bool {
        self.counts().failed == 0
    }

    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = (&Record, &str)> {
        self.records.iter().filter_map(|record| match &record.outcome {
            Outcome::Failed { message } => Some((record, message.as_str())),
            Outcome::Passed { .. } | Outcome::Skipped { .. } => None,
        })
    }

    /// Reasons for skips, with how many checks each covers, per backend.
    pub fn skips(&self) -> BTreeMap<(&str, &str), usize> {
        let mut skips = BTreeMap::new();
        for record in &self.records {
            if let Outcome::Skipped { reason } = &record.outcome {
                *skips.entry((record.backend.as_str(), reason.as_str())).or_default() += 1;
            }
        }
        skips
    }

    /// The worst error of each family on a backend, in the order of the families' names.
    pub fn worst_errors(&self, backend: &str) -> BTreeMap<String, f64> {
        let mut worst: BTreeMap<String, f64> = BTreeMap::new();
        for record in self.records.iter().filter(|record| record.backend == backend) {
            if let Outcome::Passed { error } = record.outcome {
                let entry = worst.entry(record.family.clone()).or_default();
                *entry = entry.max(error);
            }
        }
        worst
    }

    /// The backends of the run, in order.
    pub fn backends(&self) -> Vec<&str> {
        distinct(self.records.iter().map(|record| record.backend.as_str()))
    }
}

/// Runs one check, recorded tolerance included.
pub(crate) fn verdict(check: &Check, subject: &Subject, tolerances: Option<&Tolerances>) -> Verdict {
    let score = check.run(subject)?;
    if let Some(tolerances) = tolerances {
        tolerances.check(subject.id(), check.family(), score)?;
    }
    Ok(score)
}

fn outcome(verdict: Verdict) -> Outcome {
    match verdict {
        Ok(score) => Outcome::Passed { error: score.error },
        Err(Failure::Skipped { reason }) => Outcome::Skipped { reason },
        Err(failure) => Outcome::Failed { message: failure.chain() },
    }
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

/// The matrix: a row per family, a column per backend; then totals, failures and the reasons for skips.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backends = self.backends();
        let families = distinct(self.records.iter().map(|record| record.family.as_str()));
        let mut cells: BTreeMap<(&str, &str), (Counts, f64)> = BTreeMap::new();
        for record in &self.records {
            let (counts, worst) = cells.entry((&record.family, &record.backend)).or_default();
            counts.add(&record.outcome);
            if let Outcome::Passed { error } = record.outcome {
                *worst = worst.max(error);
            }
        }
        let first = families.iter().map(|name| name.len()).max().unwrap_or(0).max("check".len());
        let widths: Vec<usize> = backends.iter().map(|name| name.len().max(14)).collect();
        write!(f, "{:first$}", "check")?;
        for (backend, width) in backends.iter().zip(&widths) {
            write!(f, "  {backend:>width$}")?;
        }
        writeln!(f)?;
        for family in families {
            write!(f, "{family:first$}")?;
            for (backend, width) in backends.iter().zip(&widths) {
                let text = cells
                    .get(&(family, *backend))
                    .map_or_else(|| "-".to_owned(), |(counts, worst)| cell(*counts, *worst));
                write!(f, "  {text:>width$}")?;
            }
            writeln!(f)?;
        }
        write!(f, "{:first$}", "passed/failed/skipped")?;
        for (backend, width) in backends.iter().zip(&widths) {
            let Counts { passed, failed, skipped } = self.counts_of(backend);
            write!(f, "  {:>width$}", format!("{passed}/{failed}/{skipped}"))?;
        }
        writeln!(f)?;
        for (record, message) in self.failures() {
            writeln!(f, "FAILED {}::{}: {message}", record.backend, record.check)?;
        }
        for ((backend, reason), count) in self.skips() {
            writeln!(f, "skipped {backend} ({count} checks): {reason}")?;
        }
        Ok(())
    }
}

/// `12 ok 3.1e0`: how many passed and their worst error; a failure or a skip takes its place.
fn cell(counts: Counts, worst: f64) -> String {
    match counts {
        Counts { failed: 0, passed: 0, .. } => "skip".to_owned(),
        Counts { failed: 0, passed, .. } if worst == 0.0 => format!("{passed} ok"),
        Counts { failed: 0, passed, .. } => format!("{passed} ok {worst:.1e}"),
        Counts { failed, passed, .. } => format!("FAIL {failed}/{}", failed + passed),
    }
}
