//! Recorded tolerances: the worst error seen per backend and family, which may grow fourfold and no more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Score, Unit};

/// How many times the recorded error an error may be.
const GROWTH: f64 = 4.0;
/// Errors below this many [`Unit::Ulps`] never fail: rounding alone moves them.
const FLOOR_ULPS: f64 = 1.0;
/// Errors below this in [`Unit::Relative`] never fail.
const FLOOR_RELATIVE: f64 = 1e-11;

/// The committed file `tolerances.toml`: backend, then family, to the worst error recorded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tolerances(BTreeMap<String, BTreeMap<String, f64>>);

impl Tolerances {
    /// The tolerances that this crate was built with.
    ///
    /// # Errors
    /// A file that is not TOML of this form.
    pub fn committed() -> Result<Self, toml::de::Error> {
        toml::from_str(include_str!("../tolerances.toml"))
    }

    /// The recorded error of a family.
    pub fn get(&self, backend: &str, family: &str) -> Option<f64> {
        self.0.get(backend)?.get(family).copied()
    }

    /// Fails a score that grew beyond what is recorded. A backend that was never recorded, as on a machine
    /// with other instruction sets, is held to the fixed limits alone.
    ///
    /// # Errors
    /// [`Failure::Tolerance`].
    pub fn check(&self, backend: &str, family: &str, score: Score) -> Result<(), Failure> {
        let Some(recorded) = self.get(backend, family) else { return Ok(()) };
        let floor = match score.unit {
            Unit::Ulps => FLOOR_ULPS,
            Unit::Relative => FLOOR_RELATIVE,
        };
        let limit = (GROWTH * recorded).max(floor);
        match score.error <= limit {
            true => Ok(()),
            false => Err(Failure::Tolerance {
                what: format!("{family}, recorded as {recorded:.1e}"),
                error: score.error,
                limit,
                unit: score.unit,
                detail: "run with --bless if the growth is understood".to_owned(),
            }),
        }
    }

    /// Replaces what is recorded of one backend. Families without a measured error are left out.
    pub fn record(&mut self, backend: &str, errors: impl IntoIterator<Item = (String, f64)>) {
        let measured = errors.into_iter().filter(|(_, error)| *error > 0.0).map(|(family, e)| (family, round_up(e)));
        self.0.insert(backend.to_owned(), measured.collect());
    }

    /// The file's text.
    ///
    /// # Errors
    /// A number that TOML cannot hold.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let header = "# The worst error seen per backend and family of checks, in units in the last place divided by\n\
                      # the root of the longest reduction (`difference` and `closed`: relative). A run fails when an\n\
                      # error exceeds four times its record; `cargo xtask conformance --bless` rewrites the file.\n\n";
        Ok(format!("{header}{}", toml::to_string(self)?))
    }
}

/// Two significant digits, rounded up, so that a run never exceeds its own record by rounding.
fn round_up(error: f64) -> f64 {
    let unit = 10f64.powi(error.log10().floor() as i32 - 1);
    let rounded = (error / unit).ceil() * unit;
    // Through text, so that the file shows two digits.
    format!("{rounded:.1e}").parse().unwrap_or(rounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ulps(error: f64) -> Score {
        Score { error, unit: Unit::Ulps }
    }

    #[test]
    fn growth_beyond_fourfold_fails() {
        let mut tolerances = Tolerances::default();
        tolerances.record("a", [("grad::ae".to_owned(), 2.04), ("bits::x".to_owned(), 0.0)]);
        assert_eq!(tolerances.get("a", "grad::ae"), Some(2.1));
        assert_eq!(tolerances.get("a", "bits::x"), None);
        assert!(tolerances.check("a", "grad::ae", ulps(8.3)).is_ok());
        assert!(tolerances.check("a", "grad::ae", ulps(8.5)).is_err());
        assert!(tolerances.check("a", "grad::ae", ulps(f64::NAN)).is_err());
        assert!(tolerances.check("b", "grad::ae", ulps(8.5)).is_ok(), "an unrecorded backend");
    }

    #[test]
    fn the_file_survives_a_round_trip() {
        let mut tolerances = Tolerances::default();
        tolerances.record("a", [("grad::ae".to_owned(), 0.037)]);
        let text = tolerances.to_toml().unwrap();
        assert_eq!(toml::from_str::<Tolerances>(&text).unwrap(), tolerances, "{text}");
    }

    #[test]
    fn the_committed_file_is_readable() {
        Tolerances::committed().unwrap();
    }
}
