//! Putting scores on a common scale, and thresholds with a stated false-positive rate.

use serde::{Deserialize, Serialize};

use super::ScoreError;
use crate::metrics::MetricError;

/// How scores are put on a common scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CalibrationKind {
    /// The score as it is, for a single term whose units are to be kept.
    None,
    /// `−ln p` with `p` the conformal p-value of the score among held-out ones, `(1 + #{held ≥ s})/(n + 1)`.
    /// Insensitive to outliers; scores above all held-out ones are equal.
    Rank,
    /// `(s − mean)/deviation` of held-out scores. Keeps the order of extreme scores.
    Standard,
}

/// A monotone map from a score to a common scale, fitted on held-out scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored", rename_all = "lowercase")]
pub enum Calibration {
    /// See [`CalibrationKind::None`].
    None,
    /// See [`CalibrationKind::Rank`].
    Rank {
        /// Held-out scores in rising order.
        held_out: Vec<f64>,
    },
    /// See [`CalibrationKind::Standard`].
    Standard {
        /// Mean of the held-out scores.
        mean: f64,
        /// Their standard deviation, 1 when they are all equal.
        deviation: f64,
    },
}

/// The stored form, before it is checked.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Stored {
    None,
    Rank { held_out: Vec<f64> },
    Standard { mean: f64, deviation: f64 },
}

impl TryFrom<Stored> for Calibration {
    type Error = ScoreError;

    fn try_from(stored: Stored) -> Result<Self, ScoreError> {
        match stored {
            Stored::None => Ok(Self::None),
            Stored::Rank { held_out } => Self::fit(CalibrationKind::Rank, &held_out),
            Stored::Standard { mean, deviation } => {
                if !(mean.is_finite() && deviation.is_finite() && deviation > 0.0) {
                    return Err(ScoreError::Stored("a calibration is not finite"));
                }
                Ok(Self::Standard { mean, deviation })
            }
        }
    }
}

impl Calibration {
    /// Fits the map on held-out scores.
    ///
    /// # Errors
    ///
    /// [`ScoreError::TooFewScores`] without scores, [`ScoreError::Metric`] when one is not finite.
    pub fn fit(kind: CalibrationKind, held_out: &[f64]) -> Result<Self, ScoreError> {
        let sorted = sorted(held_out)?;
        if sorted.is_empty() {
            return Err(ScoreError::TooFewScores { needed: 1, scores: 0 });
        }
        Ok(match kind {
            CalibrationKind::None => Self::None,
            CalibrationKind::Rank => Self::Rank { held_out: sorted },
            CalibrationKind::Standard => {
                let count = sorted.len() as f64;
                let mean = sorted.iter().sum::<f64>() / count;
                let variance = sorted.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / count;
                let deviation = if variance > 0.0 { variance.sqrt() } else { 1.0 };
                Self::Standard { mean, deviation }
            }
        })
    }

    /// A score on the common scale.
    pub fn apply(&self, score: f64) -> f64 {
        match self {
            Self::None => score,
            Self::Rank { held_out } => {
                let at_least = held_out.len() - held_out.partition_point(|&held| held < score);
                -(((1 + at_least) as f64) / ((held_out.len() + 1) as f64)).ln()
            }
            Self::Standard { mean, deviation } => (score - mean) / deviation,
        }
    }
}

/// The smallest threshold for which a row like the held-out ones has a score **above** it with probability
/// at most `rate`: the `⌈(n + 1)·(1 − rate)⌉`-th smallest of `n` held-out scores (split conformal
/// prediction; Vovk, Gammerman, Shafer 2005). The held-out rows must not have served for training or for
/// fitting the score.
///
/// # Errors
///
/// [`ScoreError::Rate`] unless `0 < rate < 1`, [`ScoreError::TooFewScores`] when no held-out score is high
/// enough for the rate, [`ScoreError::Metric`] when a score is not finite.
pub fn conformal_threshold(held_out: &[f64], rate: f64) -> Result<f64, ScoreError> {
    if !(rate > 0.0 && rate < 1.0) {
        return Err(ScoreError::Rate(rate));
    }
    let sorted = sorted(held_out)?;
    // ⌈(n + 1)(1 − rate)⌉ = n + 1 − ⌊(n + 1)·rate⌋; the factor absorbs the rounding of a decimal rate.
    let above = ((sorted.len() + 1) as f64 * rate * (1.0 + 1e-12)).floor() as usize;
    let rank = sorted.len() + 1 - above.min(sorted.len());
    match sorted.get(rank - 1) {
        Some(&threshold) => Ok(threshold),
        None => {
            let needed = (1.0 / (rate * (1.0 + 1e-12))).ceil() as usize - 1;
            Err(ScoreError::TooFewScores { needed: needed.max(1), scores: sorted.len() })
        }
    }
}

fn sorted(scores: &[f64]) -> Result<Vec<f64>, ScoreError> {
    if let Some(index) = scores.iter().position(|score| !score.is_finite()) {
        return Err(MetricError::NonFiniteScore { index }.into());
    }
    let mut sorted = scores.to_vec();
    sorted.sort_by(f64::total_cmp);
    Ok(sorted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, normal_rows};
    use proptest::prelude::*;

    #[test]
    fn thresholds_are_the_stated_rank() {
        let scores: Vec<f64> = (1..=99).rev().map(f64::from).collect();
        // n + 1 = 100: ranks 99, 90, 50 and 1.
        for (rate, expected) in [(0.01, 99.0), (0.1, 90.0), (0.5, 50.0), (0.29, 71.0), (0.999, 1.0)] {
            assert_eq!(conformal_threshold(&scores, rate).unwrap(), expected, "{rate}");
        }
        assert!(matches!(
            conformal_threshold(&scores[..98], 0.01),
            Err(ScoreError::TooFewScores { needed: 99, scores: 98 })
        ));
    }

    #[test]
    fn the_stated_rate_holds_on_new_rows() {
        // Over many draws of 200 held-out scores, the mean false-positive rate of a fresh row is
        // ⌊201·rate⌋/201 exactly; 1000 draws of 500 fresh rows leave a sampling error below 0.002.
        for rate in [0.01, 0.05, 0.2] {
            let draws = 1000;
            let mut flagged = 0;
            for draw in 0..draws {
                let scores = normal_rows(draw, Purpose::PriorRows, 700, 1);
                let (held_out, fresh) = scores.split_at(200);
                let threshold = conformal_threshold(held_out, rate).unwrap();
                flagged += fresh.iter().filter(|&&score| score > threshold).count();
            }
            let found = flagged as f64 / (draws * 500) as f64;
            let expected = (201.0 * rate).floor() / 201.0;
            assert!((found - expected).abs() < 0.004, "{rate}: {found} {expected}");
            assert!(found <= rate + 0.002, "{rate}: {found}");
        }
    }

    proptest! {
        #[test]
        fn calibrations_keep_the_order(
            held_out in prop::collection::vec(-5.0..5.0f64, 1..40),
            a in -6.0..6.0f64,
            b in -6.0..6.0f64,
        ) {
            for kind in [CalibrationKind::Rank, CalibrationKind::Standard] {
                let calibration = Calibration::fit(kind, &held_out).unwrap();
                let (low, high) = if a < b { (a, b) } else { (b, a) };
                prop_assert!(calibration.apply(low) <= calibration.apply(high));
                let json = serde_json::to_string(&calibration).unwrap();
                prop_assert_eq!(serde_json::from_str::<Calibration>(&json).unwrap(), calibration);
            }
        }

        #[test]
        fn no_held_out_set_exceeds_the_rate_on_itself(
            scores in prop::collection::vec(0u8..20, 1..200),
            rate in 0.001..0.999f64,
        ) {
            let scores: Vec<f64> = scores.into_iter().map(f64::from).collect();
            match conformal_threshold(&scores, rate) {
                Ok(threshold) => {
                    let above = scores.iter().filter(|&&score| score > threshold).count();
                    prop_assert!(above as f64 <= rate * (scores.len() + 1) as f64 + 1e-9);
                }
                Err(ScoreError::TooFewScores { needed, scores: count }) => prop_assert!(count < needed),
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
    }

    #[test]
    fn calibrated_values_of_a_worked_example() {
        let held_out = [3.0, 1.0, 2.0, 2.0];
        let rank = Calibration::fit(CalibrationKind::Rank, &held_out).unwrap();
        for (score, p) in [(0.0, 1.0), (1.5, 0.8), (2.0, 0.8), (2.5, 0.4), (9.0, 0.2)] {
            assert!((rank.apply(score) + f64::ln(p)).abs() < 1e-12, "{score}");
        }
        let standard = Calibration::fit(CalibrationKind::Standard, &held_out).unwrap();
        assert!((standard.apply(3.0) - 2f64.sqrt()).abs() < 1e-12);
        let constant = Calibration::fit(CalibrationKind::Standard, &[4.0; 3]).unwrap();
        assert_eq!(constant.apply(5.0), 1.0);
    }

    #[test]
    fn bad_input_is_an_error() {
        for rate in [0.0, 1.0, -0.1, f64::NAN] {
            assert!(matches!(conformal_threshold(&[1.0], rate), Err(ScoreError::Rate(_))));
        }
        assert!(matches!(conformal_threshold(&[], 0.5), Err(ScoreError::TooFewScores { needed: 1, scores: 0 })));
        assert!(matches!(conformal_threshold(&[f64::NAN], 0.5), Err(ScoreError::Metric(_))));
        for kind in [CalibrationKind::Rank, CalibrationKind::Standard] {
            assert!(matches!(Calibration::fit(kind, &[]), Err(ScoreError::TooFewScores { .. })));
            assert!(matches!(Calibration::fit(kind, &[f64::INFINITY]), Err(ScoreError::Metric(_))));
        }
        for json in [r#"{"rank":{"held_out":[]}}"#, r#"{"standard":{"mean":0.0,"deviation":0.0}}"#] {
            assert!(serde_json::from_str::<Calibration>(json).is_err());
        }
    }
}
