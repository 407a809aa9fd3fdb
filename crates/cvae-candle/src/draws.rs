//! The random numbers of a batch, from core's generator.

use candle_core::{DType, Device, Result, Tensor};
use cvae_core::rng::{below, chosen};
use cvae_core::{Batch, BatchRows, Noise, Shift, Stream};

use crate::data::rows_tensor;

/// Where the rows of a batch stand in the streams of the generator.
pub(crate) struct Draws {
    seed: u64,
    epoch: u32,
    rows: Vec<u32>,
    dtype: DType,
}

impl Draws {
    /// The draws of a batch of `rows` rows, as tensors of `dtype`.
    pub(crate) fn new(seed: u64, batch: &Batch<'_>, rows: usize, dtype: DType) -> Self {
        let rows = match batch.rows {
            BatchRows::Host { first_row, .. } => (0..rows).map(|row| first_row.wrapping_add(row as u32)).collect(),
            BatchRows::Resident { order, .. } => order.to_vec(),
        };
        Self { seed, epoch: batch.epoch, rows, dtype }
    }

    /// Standard normal numbers, `rows × width`.
    pub(crate) fn normal(&self, stream: Stream, width: usize) -> Result<Tensor> {
        self.fill(stream, width, Noise::normal)
    }

    /// Random signs, `rows × width`.
    pub(crate) fn signs(&self, width: usize) -> Result<Tensor> {
        self.fill(Stream::Probe, width, Noise::signs)
    }

    /// 1 where the unit of a column is chosen with probability `share`, else 0, as bytes: `rows × units.len()`.
    pub(crate) fn marks(&self, share: f64, units: &[u32]) -> Result<Tensor> {
        let marks = self.words(Stream::Corrupt, units).map(|word| u8::from(chosen(word, share))).collect();
        Tensor::from_vec(marks, (self.rows.len(), units.len()), &Device::Cpu)
    }

    /// The row of the batch that each element is taken from when its unit is permuted: `rows × units.len()`.
    pub(crate) fn donors(&self, units: &[u32]) -> Result<Tensor> {
        let count = self.rows.len() as u32;
        let donors = self.words(Stream::Permute, units).map(|word| below(word, count)).collect();
        Tensor::from_vec(donors, (self.rows.len(), units.len()), &Device::Cpu)
    }

    /// The column that each element is taken from when its image is moved, `width` for what comes from outside:
    /// `rows × width`.
    pub(crate) fn moves(&self, shift: Shift, width: usize) -> Result<Tensor> {
        let offsets = self.words(Stream::Permute, &[0]).map(|word| shift.drawn(word));
        let source = |offset, column| shift.source(offset, column, width).unwrap_or(width) as u32;
        let moves = offsets.flat_map(|offset| (0..width).map(move |column| source(offset, column))).collect();
        Tensor::from_vec(moves, (self.rows.len(), width), &Device::Cpu)
    }

    fn noise(&self, stream: Stream) -> Noise {
        Noise::new(self.seed, stream, self.epoch)
    }

    fn fill(&self, stream: Stream, width: usize, fill: impl Fn(Noise, u32, &mut [f32])) -> Result<Tensor> {
        let noise = self.noise(stream);
        let mut values = vec![0.0; self.rows.len() * width];
        for (row, out) in self.rows.iter().zip(values.chunks_exact_mut(width)) {
            fill(noise, *row, out);
        }
        rows_tensor(&values, width, self.dtype)
    }

    fn words<'a>(&'a self, stream: Stream, units: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        let noise = self.noise(stream);
        self.rows.iter().flat_map(move |row| units.iter().map(move |unit| noise.unit_word(*row, *unit)))
    }
}
