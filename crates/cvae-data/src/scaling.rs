//! Feature scaling, fitted on training rows and kept beside the model.

use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::error::DataError;

/// How features are brought to a common range before training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scaling {
    /// Values are used as they are.
    #[default]
    None,
    /// Each feature is mapped to \[0, 1\]: `(x − min) / (max − min)`.
    MinMax,
    /// Each feature gets mean 0 and (population) variance 1: `(x − mean) / deviation`.
    Standardize,
}

/// Why scaling cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScalingError {
    /// The values are not whole rows of the fitted width.
    #[error("{values} values are not a whole number of rows of the {width} features the scaling was fitted on")]
    Width {
        /// Values given.
        values: usize,
        /// Features fitted.
        width: usize,
    },
    /// Shift and scale do not have one entry per feature.
    #[error("the scaling has {shift} shifts and {scale} scales; it needs one of each per feature")]
    Lengths {
        /// Number of shifts.
        shift: usize,
        /// Number of scales.
        scale: usize,
    },
    /// A shift or scale that no fit produces.
    #[error(
        "the scaling of feature {feature} (counted from 0) is not usable: shift and scale must be finite, and the scale positive"
    )]
    Value {
        /// The feature.
        feature: usize,
    },
}

/// A scaling with its fitted numbers: feature `j` becomes `(x − shift[j]) · scale[j]`.
///
/// It serialises to plain numbers; reading it back checks that they are usable.
///
/// ```
/// use cvae_data::{FittedScaling, Scaling};
///
/// let mut rows = vec![0.0, 5.0, 10.0, 5.0]; // two rows; the second feature is constant
/// let fitted = FittedScaling::fit(Scaling::MinMax, &rows, 2)?;
/// fitted.apply(&mut rows)?;
/// assert_eq!(rows, [0.0, 0.0, 1.0, 0.0]);
/// fitted.invert(&mut rows)?;
/// assert_eq!(rows, [0.0, 5.0, 10.0, 5.0]);
/// # Ok::<(), cvae_data::ScalingError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct FittedScaling {
    kind: Scaling,
    shift: Vec<f32>,
    scale: Vec<f32>,
}

/// The serialised form before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    kind: Scaling,
    shift: Vec<f32>,
    scale: Vec<f32>,
}

impl TryFrom<Unchecked> for FittedScaling {
    type Error = ScalingError;

    fn try_from(raw: Unchecked) -> Result<Self, ScalingError> {
        FittedScaling::new(raw.kind, raw.shift, raw.scale)
    }
}

impl FittedScaling {
    /// A scaling from its numbers, one shift and one scale per feature.
    ///
    /// # Errors
    /// [`ScalingError::Lengths`] and [`ScalingError::Value`] when the numbers are not usable.
    pub fn new(kind: Scaling, shift: Vec<f32>, scale: Vec<f32>) -> Result<Self, ScalingError> {
        if shift.len() != scale.len() || shift.is_empty() {
            return Err(ScalingError::Lengths { shift: shift.len(), scale: scale.len() });
        }
        let usable = |j: usize| shift[j].is_finite() && scale[j].is_finite() && scale[j] > 0.0;
        match (0..shift.len()).find(|&j| !usable(j)) {
            Some(feature) => Err(ScalingError::Value { feature }),
            None => Ok(Self { kind, shift, scale }),
        }
    }

    /// Fits `kind` to rows in memory (`rows × width`).
    ///
    /// # Errors
    /// [`ScalingError::Width`] when the values are not whole rows.
    pub fn fit(kind: Scaling, rows: &[f32], width: usize) -> Result<Self, ScalingError> {
        let mut fit = ScalingFit::new(width);
        fit.update(rows)?;
        fit.finish(kind)
    }

    /// Fits `kind` to a data set; bytes are converted block by block.
    ///
    /// # Errors
    /// [`DataError::Scaling`] when a feature holds values no scaling can be fitted to, such as infinities.
    pub fn fit_dataset(kind: Scaling, data: &Dataset) -> Result<Self, DataError> {
        const BLOCK: usize = 1024;
        let mut fit = ScalingFit::new(data.width());
        let mut block = Vec::new();
        let mut start = 0;
        while start < data.rows() && kind != Scaling::None {
            let end = (start + BLOCK).min(data.rows());
            data.copy_rows(start..end, &mut block)?;
            fit.update(&block)?;
            start = end;
        }
        Ok(fit.finish(kind)?)
    }

    /// Which scaling this is.
    pub fn kind(&self) -> Scaling {
        self.kind
    }

    /// How many features it was fitted on.
    pub fn width(&self) -> usize {
        self.shift.len()
    }

    /// What is subtracted from each feature.
    pub fn shift(&self) -> &[f32] {
        &self.shift
    }

    /// What each shifted feature is multiplied with; always positive.
    pub fn scale(&self) -> &[f32] {
        &self.scale
    }

    /// Scales rows in place (`rows × width`).
    ///
    /// # Errors
    /// [`ScalingError::Width`] when the values are not whole rows.
    pub fn apply(&self, rows: &mut [f32]) -> Result<(), ScalingError> {
        self.each(rows, |x, shift, scale| (x - shift) * scale)
    }

    /// Undoes [`apply`](Self::apply) in place, up to rounding.
    ///
    /// # Errors
    /// [`ScalingError::Width`] when the values are not whole rows.
    pub fn invert(&self, rows: &mut [f32]) -> Result<(), ScalingError> {
        self.each(rows, |y, shift, scale| y / scale + shift)
    }

    fn each(&self, rows: &mut [f32], f: impl Fn(f32, f32, f32) -> f32) -> Result<(), ScalingError> {
        check_width(rows.len(), self.width())?;
        if self.kind == Scaling::None {
            return Ok(());
        }
        for row in rows.chunks_exact_mut(self.width()) {
            for ((value, &shift), &scale) in row.iter_mut().zip(&self.shift).zip(&self.scale) {
                *value = f(*value, shift, scale);
            }
        }
        Ok(())
    }
}

/// Collects what a scaling needs from rows that arrive in chunks, in 64-bit arithmetic.
///
/// NaN stands for a missing value and is left out of the statistics.
#[derive(Debug, Clone)]
pub struct ScalingFit {
    features: Vec<Feature>,
}

/// Welford's running mean and sum of squared deviations, and the range, of one feature.
#[derive(Debug, Clone, Copy)]
struct Feature {
    count: f64,
    mean: f64,
    squares: f64,
    min: f32,
    max: f32,
}

impl ScalingFit {
    /// Nothing seen yet of rows with `width` features.
    pub fn new(width: usize) -> Self {
        let nothing = Feature { count: 0.0, mean: 0.0, squares: 0.0, min: f32::INFINITY, max: f32::NEG_INFINITY };
        Self { features: vec![nothing; width] }
    }

    /// Takes in further rows (`rows × width`).
    ///
    /// # Errors
    /// [`ScalingError::Width`] when the values are not whole rows.
    pub fn update(&mut self, rows: &[f32]) -> Result<(), ScalingError> {
        check_width(rows.len(), self.features.len())?;
        for row in rows.chunks_exact(self.features.len()) {
            for (feature, &value) in self.features.iter_mut().zip(row) {
                feature.update(value);
            }
        }
        Ok(())
    }

    /// The fitted scaling. A feature without spread (constant, or never seen) is only shifted: its scale
    /// is 1, so that it becomes 0 and comes back exactly.
    ///
    /// # Errors
    /// [`ScalingError::Lengths`] for zero features, [`ScalingError::Value`] when the values seen were
    /// infinite.
    pub fn finish(&self, kind: Scaling) -> Result<FittedScaling, ScalingError> {
        let fitted = self.features.iter().map(|feature| match kind {
            Scaling::None => (0.0, 1.0),
            Scaling::MinMax => feature.min_max(),
            Scaling::Standardize => feature.standardize(),
        });
        let (shift, scale) = fitted.unzip();
        FittedScaling::new(kind, shift, scale)
    }
}

impl Feature {
    fn update(&mut self, value: f32) {
        if value.is_nan() {
            return;
        }
        self.count += 1.0;
        let before = f64::from(value) - self.mean;
        self.mean += before / self.count;
        self.squares += before * (f64::from(value) - self.mean);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    fn min_max(&self) -> (f32, f32) {
        if self.count == 0.0 {
            return (0.0, 1.0);
        }
        let range = f64::from(self.max) - f64::from(self.min);
        (self.min, reciprocal(range))
    }

    fn standardize(&self) -> (f32, f32) {
        if self.count == 0.0 {
            return (0.0, 1.0);
        }
        if self.min == self.max {
            return (self.min, 1.0);
        }
        (self.mean as f32, reciprocal((self.squares / self.count).sqrt()))
    }
}

/// 1 / spread, and 1 where the spread is zero or too small for its reciprocal to be a 32-bit float.
fn reciprocal(spread: f64) -> f32 {
    let scale = (1.0 / spread) as f32;
    if scale.is_normal() { scale } else { 1.0 }
}

fn check_width(values: usize, width: usize) -> Result<(), ScalingError> {
    if width != 0 && values.is_multiple_of(width) {
        return Ok(());
    }
    Err(ScalingError::Width { values, width })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn standardize_gives_mean_zero_and_variance_one() {
        let mut rows = vec![1.0, -4.0, 2.0, 0.0, 6.0, 7.0, 7.0, 9.0];
        let fitted = FittedScaling::fit(Scaling::Standardize, &rows, 2).unwrap();
        fitted.apply(&mut rows).unwrap();
        for j in 0..2 {
            let column: Vec<f32> = rows.iter().skip(j).step_by(2).copied().collect();
            let mean = column.iter().sum::<f32>() / 4.0;
            let variance = column.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / 4.0;
            assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-6, "{column:?}");
        }
    }

    #[test]
    fn chunks_and_missing_values_do_not_change_the_fit() {
        let rows = [1.0, 2.0, f32::NAN, 4.0, 5.0, f32::NAN, 3.0, 3.0];
        let whole = FittedScaling::fit(Scaling::Standardize, &rows, 2).unwrap();
        let mut fit = ScalingFit::new(2);
        fit.update(&rows[..2]).unwrap();
        fit.update(&rows[2..]).unwrap();
        assert_eq!(fit.finish(Scaling::Standardize).unwrap(), whole);
        // Column 0 without its NaN is 1, 5, 3; column 1 is 2, 4, 3.
        assert_eq!(whole.shift(), [3.0, 3.0]);
        assert!((whole.scale()[0] - 1.0 / (8.0f32 / 3.0).sqrt()).abs() < 1e-6);
        assert!((whole.scale()[1] - 1.0 / (2.0f32 / 3.0).sqrt()).abs() < 1e-6);
    }

    #[test]
    fn unusable_numbers_are_refused_on_reading() {
        for text in [
            r#"{"kind":"min-max","shift":[0.0],"scale":[0.0]}"#,
            r#"{"kind":"min-max","shift":[0.0],"scale":[-1.0]}"#,
            r#"{"kind":"min-max","shift":[1e39],"scale":[1.0]}"#,
            r#"{"kind":"min-max","shift":[0.0, 1.0],"scale":[1.0]}"#,
            r#"{"kind":"min-max","shift":[],"scale":[]}"#,
            r#"{"kind":"max","shift":[0.0],"scale":[1.0]}"#,
        ] {
            assert!(serde_json::from_str::<FittedScaling>(text).is_err(), "{text}");
        }
        let fitted = FittedScaling::fit(Scaling::MinMax, &[1.0, 3.0], 1).unwrap();
        let text = serde_json::to_string(&fitted).unwrap();
        assert_eq!(serde_json::from_str::<FittedScaling>(&text).unwrap(), fitted);
    }

    #[test]
    fn other_widths_are_refused() {
        let fitted = FittedScaling::fit(Scaling::None, &[1.0, 2.0, 3.0], 3).unwrap();
        let error = fitted.apply(&mut [0.0; 4]).unwrap_err();
        assert_eq!(error, ScalingError::Width { values: 4, width: 3 });
        assert!(FittedScaling::fit(Scaling::None, &[], 0).is_err());
    }

    proptest! {
        #[test]
        fn invert_undoes_apply(
            rows in prop::collection::vec(-1e4f32..1e4, 12),
            kind in prop::sample::select(vec![Scaling::None, Scaling::MinMax, Scaling::Standardize]),
        ) {
            let fitted = FittedScaling::fit(kind, &rows, 3).unwrap();
            let mut scaled = rows.clone();
            fitted.apply(&mut scaled).unwrap();
            fitted.invert(&mut scaled).unwrap();
            for (before, after) in rows.iter().zip(&scaled) {
                // A few roundings at the size of the largest value in the column.
                prop_assert!((before - after).abs() <= 1e4 * 8.0 * f32::EPSILON);
            }
        }

        #[test]
        fn min_max_lands_in_the_unit_interval(rows in prop::collection::vec(-1e4f32..1e4, 12)) {
            let fitted = FittedScaling::fit(Scaling::MinMax, &rows, 3).unwrap();
            let mut scaled = rows.clone();
            fitted.apply(&mut scaled).unwrap();
            prop_assert!(scaled.iter().all(|x| (-1e-6..=1.0 + 1e-6).contains(x)));
        }
    }
}
