//! How two results are compared.

use cvae_core::ParamLayout;

use crate::failure::{Failure, Score, Unit};

/// Largest error of any backend, in [`Unit::Ulps`]; the recorded tolerances are far below.
pub(crate) const LIMIT_ULPS: f64 = 64.0;

/// Magnitudes below this fraction of the largest in a comparison are compared with that fraction instead.
const FLOOR: f64 = 1e-3;

/// Number format and reduction length that an error is measured by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    /// Unit roundoff of the backend's number format, times two.
    pub(crate) epsilon: f64,
    /// Terms in the longest sum of the computation.
    pub(crate) reduction: usize,
}

impl Measure {
    /// Compares `found` with `expected` in pieces: the error of a piece is relative to its largest magnitude.
    pub(crate) fn pieces(
        self,
        what: &str,
        ranges: impl Iterator<Item = (String, std::ops::Range<usize>)>,
        found: &[f64],
        expected: &[f64],
    ) -> Result<Score, Failure> {
        let overall = magnitude(expected);
        let mut worst = Score::EXACT;
        for (name, range) in ranges {
            let (found, expected) = (&found[range.clone()], &expected[range]);
            let scale = magnitude(expected).max(FLOOR * overall).max(f64::from(f32::MIN_POSITIVE));
            let (index, error) = worst_difference(found, expected);
            let ulps = error / (scale * self.epsilon * (self.reduction.max(1) as f64).sqrt());
            if ulps.is_nan() || ulps > LIMIT_ULPS {
                return Err(Failure::Tolerance {
                    what: format!("{what} {name}"),
                    error: ulps,
                    limit: LIMIT_ULPS,
                    unit: Unit::Ulps,
                    detail: format!("element {index} is {:e}, expected {:e}", found[index], expected[index]),
                });
            }
            worst = worst.worse(Score { error: ulps, unit: Unit::Ulps });
        }
        Ok(worst)
    }

    /// Compares two flat buffers of `layout`, parameter by parameter.
    pub(crate) fn params(
        self,
        what: &str,
        layout: &ParamLayout,
        found: &[f64],
        expected: &[f64],
    ) -> Result<Score, Failure> {
        let ranges = layout.params().iter().map(|param| (param.name.clone(), param.range()));
        self.pieces(what, ranges, found, expected)
    }

    /// Compares two arrays as one piece.
    pub(crate) fn whole(self, what: &str, found: &[f64], expected: &[f64]) -> Result<Score, Failure> {
        self.pieces(what, std::iter::once((String::new(), 0..expected.len())), found, expected)
    }
}

/// Compares in [`Unit::Relative`] with a limit of its own.
pub(crate) fn relative(what: &str, found: f64, expected: f64, limit: f64) -> Result<Score, Failure> {
    let error = (found - expected).abs() / expected.abs().max(f64::MIN_POSITIVE);
    let error = if found == expected { 0.0 } else { error };
    within(what, error, limit, || format!("{found:e}, expected {expected:e}"))
}

/// Checks an error in [`Unit::Relative`] against a limit.
pub(crate) fn within(what: &str, error: f64, limit: f64, detail: impl FnOnce() -> String) -> Result<Score, Failure> {
    match error <= limit {
        true => Ok(Score { error, unit: Unit::Relative }),
        false => {
            Err(Failure::Tolerance { what: what.to_owned(), error, limit, unit: Unit::Relative, detail: detail() })
        }
    }
}

/// Fails unless both arrays hold the same bits.
pub(crate) fn identical(what: &str, left: &[f64], right: &[f64]) -> Result<(), Failure> {
    let differs = |index: &usize| left[*index].to_bits() != right[*index].to_bits();
    let mut differing = (0..left.len().min(right.len())).filter(differs);
    match differing.next() {
        None if left.len() == right.len() => Ok(()),
        first => {
            let first = first.unwrap_or(left.len().min(right.len()));
            let value = |values: &[f64]| values.get(first).copied().unwrap_or(f64::NAN);
            Err(Failure::NotIdentical {
                what: what.to_owned(),
                differing: differing.count() + 1,
                len: left.len(),
                first,
                left: value(left),
                right: value(right),
            })
        }
    }
}

/// Largest absolute value; 0 for none.
fn magnitude(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

/// Index and size of the largest difference; infinite where one value is not finite and the other differs.
fn worst_difference(found: &[f64], expected: &[f64]) -> (usize, f64) {
    let mut worst = (0, 0.0);
    for (index, (f, e)) in found.iter().zip(expected).enumerate() {
        let error = if f == e || (f.is_nan() && e.is_nan()) { 0.0 } else { (f - e).abs() };
        let error = if error.is_nan() { f64::INFINITY } else { error };
        if error > worst.1 {
            worst = (index, error);
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEASURE: Measure = Measure { epsilon: 1e-6, reduction: 4 };

    #[test]
    fn errors_are_scaled_by_magnitude_and_reduction() {
        let score = MEASURE.whole("x", &[10.0, 1.0 + 4e-5], &[10.0, 1.0]).unwrap();
        assert!((score.error - 2.0).abs() < 1e-6, "{score:?}");
    }

    #[test]
    fn a_nan_is_beyond_any_tolerance() {
        assert!(matches!(MEASURE.whole("x", &[f64::NAN], &[1.0]), Err(Failure::Tolerance { .. })));
        assert!(matches!(MEASURE.whole("x", &[1.0], &[f64::NAN]), Err(Failure::Tolerance { .. })));
        assert!(matches!(relative("x", f64::NAN, 1.0, 1.0), Err(Failure::Tolerance { .. })));
    }

    #[test]
    fn bits_are_compared() {
        assert!(identical("x", &[0.0, f64::NAN], &[0.0, f64::NAN]).is_ok());
        assert!(identical("x", &[0.0], &[-0.0]).is_err());
        assert!(identical("x", &[0.0], &[0.0, 1.0]).is_err());
    }
}
