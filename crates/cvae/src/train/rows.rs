//! Training rows as the backend sees them: checked, scaled, divided, resident.

use std::borrow::Cow;

use cvae_core::{DataId, Executable, Reconstruction, Rows};
use cvae_data::{DataError, Dataset, FittedScaling, RowsRef, Scaling, ScalingFit, split};
use sha2::{Digest, Sha256};

use super::error::TrainError;
use crate::checkpoint::hex;
use crate::config::Config;

/// Rows at most that go into the digest of a data set.
const DIGEST_ROWS: usize = 1024;
/// Rows scaled or fitted at a time.
const BLOCK_ROWS: usize = 1024;

/// A resident data set, divided into training and validation rows.
#[derive(Debug)]
pub(super) struct TrainingRows {
    pub(super) data: DataId,
    /// Rows to train on, ascending.
    pub(super) train: Vec<u32>,
    /// Rows to watch the loss on, ascending; none when the configuration holds none out.
    pub(super) validation: Vec<u32>,
    pub(super) scaling: FittedScaling,
}

impl TrainingRows {
    /// Checks, divides, scales and uploads `data`. A run that is resumed brings its `scaling`.
    pub(super) fn upload(
        config: &Config,
        data: &Dataset,
        scaling: Option<FittedScaling>,
        executable: &mut dyn Executable,
    ) -> Result<Self, TrainError> {
        data.expect_width(config.model.width())?;
        // NaN marks a missing value where the objective knows of any.
        let missing = config.objective.missing;
        let usable = |value: f32| value.is_finite() || missing && value.is_nan();
        check(data, data.as_rows(), usable, |row, column, _| TrainError::NonFinite {
            data: data.name().to_owned(),
            row,
            column,
        })?;
        let rows = data.rows();
        let (train, validation) = match config.data.validation_fraction {
            0.0 => ((0..rows as u32).collect(), vec![]),
            fraction => split(rows, fraction, config.seed)?,
        };
        let scaling = match scaling {
            Some(scaling) => scaling,
            None => fit(config.data.scaling, data, &train)?,
        };
        let scaled = scale(data, &scaling)?;
        let view = match &scaled {
            None => data.as_rows(),
            Some(values) => RowsRef::F32 { values, width: data.width() },
        };
        // Scaling with the statistics of some rows can overflow on others.
        check(data, view, usable, |row, column, _| TrainError::NonFinite {
            data: format!("{} (scaled)", data.name()),
            row,
            column,
        })?;
        if config.objective.reconstruction == Reconstruction::Bce {
            check(
                data,
                view,
                |value| (0.0..=1.0).contains(&value) || missing && value.is_nan(),
                |row, column, value| TrainError::BceRange { data: data.name().to_owned(), row, column, value },
            )?;
        }
        let view = match view {
            RowsRef::F32 { values, width } => Rows::F32 { values, width },
            RowsRef::U8 { values, width, scale } => Rows::U8 { values, width, scale },
        };
        Ok(Self { data: executable.upload(view)?, train, validation, scaling })
    }
}

/// Fits a scaling to the training rows.
fn fit(kind: Scaling, data: &Dataset, train: &[u32]) -> Result<FittedScaling, TrainError> {
    let mut fit = ScalingFit::new(data.width());
    let mut block = vec![];
    if kind != Scaling::None {
        for rows in train.chunks(BLOCK_ROWS) {
            data.gather(rows, &mut block)?;
            fit.update(&block).map_err(DataError::from)?;
        }
    }
    Ok(fit.finish(kind).map_err(DataError::from)?)
}

/// The scaled values, or `None` when scaling changes nothing.
fn scale<'a>(data: &'a Dataset, scaling: &FittedScaling) -> Result<Option<Cow<'a, [f32]>>, TrainError> {
    if scaling.kind() == Scaling::None {
        return Ok(None);
    }
    let mut values = data.to_f32();
    scaling.apply(values.to_mut()).map_err(DataError::from)?;
    Ok(Some(values))
}

/// Finds the first value that does not hold. Bytes need checking against a rule only once each.
fn check(
    data: &Dataset,
    rows: RowsRef<'_>,
    holds: impl Fn(f32) -> bool,
    error: impl Fn(usize, usize, f32) -> TrainError,
) -> Result<(), TrainError> {
    let found = match rows {
        RowsRef::F32 { values, .. } => {
            values.iter().position(|value| !holds(*value)).map(|index| (index, values[index]))
        }
        RowsRef::U8 { values, scale, .. } => {
            let holds: Vec<bool> = (0..=u8::MAX).map(|byte| holds(f32::from(byte) * scale)).collect();
            let index = values.iter().position(|byte| !holds[usize::from(*byte)]);
            index.map(|index| (index, f32::from(values[index]) * scale))
        }
    };
    match found {
        None => Ok(()),
        Some((index, value)) => Err(error(index / data.width(), index % data.width(), value)),
    }
}

/// A digest of the shape of `data` and of up to [`DIGEST_ROWS`] rows spread over it: enough to notice that a
/// run is resumed on other rows, and cheap for data of any size.
pub(super) fn digest(data: &Dataset) -> Result<String, DataError> {
    let rows = data.rows();
    let count = rows.min(DIGEST_ROWS);
    let picked: Vec<u32> = (0..count).map(|i| (i * (rows - 1) / (count - 1).max(1)) as u32).collect();
    let mut values = vec![];
    data.gather(&picked, &mut values)?;
    let shape = [rows as u64, data.width() as u64].into_iter().flat_map(u64::to_le_bytes);
    let bytes: Vec<u8> = shape.chain(values.iter().flat_map(|value| value.to_le_bytes())).collect();
    Ok(hex(Sha256::new_with_prefix(bytes)))
}
