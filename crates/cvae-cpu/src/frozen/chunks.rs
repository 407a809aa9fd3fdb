//! How many rows pass through all layers at a time.

use super::model::FrozenPrecision;
use super::packed::{Packed, Weights};
use crate::cache;
use crate::kernels::table::Kernels;

/// Bytes of quantised activations that a thread works on at a time, so that they stay in a second-level cache beside
/// the weights that pass by.
const BYTES_INT8: usize = 256 * 1024;
/// The same where a unit multiplies tiles of bytes, and what surrounds its products is the larger part of the time.
const BYTES_TILES: usize = 64 * 1024;
/// The share of the second-level cache that other activations take: their weights are larger.
const SHARE: usize = 8;
/// Bytes of weights that stay in a third-level cache from one chunk to the next. More come from memory every time, and
/// chunks are larger for it.
pub(super) const NEAR_WEIGHTS: usize = 8 * 1024 * 1024;
/// How many times as large as a chunk such weights are.
const WEIGHTS_OVER_CHUNK: usize = 32;
/// Most rows of a chunk.
const ROWS: usize = 512;
/// Bytes of a float.
const FLOAT: usize = size_of::<f32>();

/// Rows whose activations beside a layer stay in a second-level cache.
#[derive(Clone, Copy)]
pub(super) struct Chunks {
    /// Rows of the largest chunk.
    pub(super) most: usize,
    /// Rows that kernels take at a time, of which every chunk but the last has a multiple.
    whole: usize,
}

impl Chunks {
    pub(super) fn new(packed: &Packed) -> Self {
        let bytes = |index: usize| {
            let layer = &packed.layers[index];
            let next = packed.layers.get(index + 1).map(|layer| layer.weights);
            row_bytes(Some(layer.weights), layer.inputs) + row_bytes(next, layer.units)
        };
        let widest = (0..packed.layers.len()).map(bytes).max().unwrap_or(1);
        let weights: usize = packed.layers.iter().map(|layer| layer.bytes).sum();
        let Kernels { tile, byte_rows, byte_tile, .. } = *packed.kernels;
        // A model with any layer of bytes is an int8 one.
        let (whole, at_a_time) = match packed.precision {
            FrozenPrecision::Int8 if byte_rows > 1 => (byte_tile, BYTES_TILES),
            FrozenPrecision::Int8 => (byte_tile, BYTES_INT8),
            FrozenPrecision::F32 | FrozenPrecision::Bf16 if weights > NEAR_WEIGHTS => {
                (tile, weights / WEIGHTS_OVER_CHUNK)
            }
            FrozenPrecision::F32 | FrozenPrecision::Bf16 => (tile, cache::second_level() / SHARE),
        };
        Self { most: (at_a_time / widest).clamp(2 * whole, ROWS).next_multiple_of(whole), whole }
    }

    /// First row and rows of chunks of about the same size that cover `rows`, at least one.
    pub(super) fn of(self, rows: usize) -> impl Iterator<Item = (usize, usize)> {
        let count = rows.div_ceil(self.most).max(1);
        let size = rows.div_ceil(count).next_multiple_of(self.whole);
        (0..rows).step_by(size).map(move |first| (first, size.min(rows - first)))
    }
}

/// Bytes that a row of `units` activations takes for its reader.
fn row_bytes(reader: Option<Weights>, units: usize) -> usize {
    match reader {
        Some(Weights::Int8 { .. }) => units,
        Some(Weights::F32 | Weights::Bf16) | None => units * FLOAT,
    }
}
