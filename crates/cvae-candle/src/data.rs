//! Resident data sets, and batches as tensors.

use candle_core::{DType, Device, Result, Tensor};
use cvae_core::{Batch, BatchRows, DataId, Rows, RunError};

/// The data sets of one executable. Ids are never used twice.
#[derive(Default)]
pub(crate) struct DataSets(Vec<Option<Tensor>>);

impl DataSets {
    /// Adds a data set and returns its id.
    pub(crate) fn push(&mut self, data: Tensor) -> DataId {
        self.0.push(Some(data));
        DataId(self.0.len() - 1)
    }

    /// Removes a data set.
    pub(crate) fn remove(&mut self, data: DataId) -> std::result::Result<(), RunError> {
        let slot = self.0.get_mut(data.0).and_then(Option::take);
        slot.map(drop).ok_or(RunError::UnknownData(data.0))
    }

    fn get(&self, data: DataId) -> std::result::Result<&Tensor, RunError> {
        self.0.get(data.0).and_then(Option::as_ref).ok_or(RunError::UnknownData(data.0))
    }

    /// Checks that the batch's data set exists and holds every row it names.
    pub(crate) fn check(&self, batch: &Batch<'_>) -> std::result::Result<(), RunError> {
        let BatchRows::Resident { data, order } = batch.rows else { return Ok(()) };
        let rows = self.get(data)?.dims().first().copied().unwrap_or(0);
        match order.iter().find(|index| **index as usize >= rows) {
            Some(&index) => Err(RunError::RowIndex { index, rows }),
            None => Ok(()),
        }
    }

    /// The batch's rows, `rows × width`; the batch has been checked.
    pub(crate) fn gather(&self, batch: &Batch<'_>, width: usize, dtype: DType) -> Result<Tensor> {
        match batch.rows {
            BatchRows::Host { values, .. } => rows_tensor(values, width, dtype),
            BatchRows::Resident { data, order } => match self.get(data) {
                Ok(rows) => rows.index_select(&Tensor::from_slice(order, order.len(), &Device::Cpu)?, 0),
                Err(_) => candle_core::bail!("the data set is gone"),
            },
        }
    }
}

/// Row-major values as a tensor of `dtype`.
pub(crate) fn rows_tensor(values: &[f32], width: usize, dtype: DType) -> Result<Tensor> {
    Tensor::from_slice(values, (values.len() / width, width), &Device::Cpu)?.to_dtype(dtype)
}

/// A data set as a tensor of `dtype`; a byte `b` becomes the `f32` nearest to `b · scale`.
pub(crate) fn upload(rows: Rows<'_>, dtype: DType) -> Result<Tensor> {
    match rows {
        Rows::F32 { values, width } => rows_tensor(values, width, dtype),
        Rows::U8 { values, width, scale } => {
            let values: Vec<f32> = values.iter().map(|byte| f32::from(*byte) * scale).collect();
            rows_tensor(&values, width, dtype)
        }
    }
}
