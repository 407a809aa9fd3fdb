//! From floats to bytes: scales of the weights, and levels of the activations from sample rows.
//!
//! Formulas: docs/MATH.md, "Eight-bit inference".

use std::sync::Arc;

use cvae_core::Entry;

use super::error::FreezeError;
use super::model::{ByteLevels, FrozenLayer, FrozenModel, FrozenPrecision, FrozenWeights};
use super::packed::Packed;
use super::workspace::Workspace;
use crate::backend::Level;
use crate::simd::int8::{GROUP, JOINT_WEIGHTS, MAX_ACTIVATION};

/// Smallest distance of neighbouring values, so that products of two stay normal numbers.
const LEAST_STEP: f32 = 1e-18;
/// Activations that a choice of levels is measured on, at most.
const MEASURED: usize = 1 << 16;
/// Parts of the range that are tried.
const SHARES: usize = 40;

impl FrozenModel {
    /// The model with weights and activations in bytes. `samples` are some rows, `rows × width` values in the
    /// scale that the model takes: a few hundred typical ones fix the levels of the activations.
    ///
    /// # Errors
    /// [`FreezeError::NotF32`] for a model that was rounded or quantised before, [`FreezeError::Samples`] for values that
    /// are no rows, [`FreezeError::Value`] for activations that are not finite, [`FreezeError::TooWide`] for a
    /// layer with more inputs than the sums allow.
    pub fn quantize(&self, samples: &[f32]) -> Result<Self, FreezeError> {
        self.validate()?;
        let width = self.width();
        if samples.is_empty() || !samples.len().is_multiple_of(width) {
            return Err(FreezeError::Samples { values: samples.len(), width });
        }
        let mut activations = samples.to_vec();
        let mut position = 0;
        let mut part = |layers: &[FrozenLayer]| {
            let mut quantized = Vec::with_capacity(layers.len());
            for layer in layers {
                let finite = activations.iter().all(|value| value.is_finite());
                if !finite {
                    let what = "an activation of the calibration rows";
                    return Err(FreezeError::Value { layer: position, what, rule: "finite" });
                }
                quantized.push(quantize_layer(layer, &activations)?);
                activations = apply(layer, &activations)?;
                position += 1;
            }
            Ok(quantized)
        };
        let model = Self { encoder: part(&self.encoder)?, decoder: part(&self.decoder)? };
        model.validate()?;
        Ok(model)
    }
}

/// The layer in bytes, for inputs like `rows`.
fn quantize_layer(layer: &FrozenLayer, rows: &[f32]) -> Result<FrozenLayer, FreezeError> {
    let FrozenWeights::F32(weights) = &layer.weights else { return Err(FreezeError::NotF32) };
    let (mut values, mut scales) = (Vec::with_capacity(weights.len()), Vec::with_capacity(layer.units));
    for row in weights.chunks_exact(layer.inputs) {
        let (scale, bytes) = byte_weights(row);
        values.extend(bytes);
        scales.push(scale);
    }
    let weights = FrozenWeights::Int8 { values, scales, input: levels(rows) };
    Ok(FrozenLayer { weights, ..layer.clone() })
}

/// The nearest multiples of `scale` within ±127, the largest of those that meet in 16 bits cut until they are
/// [`joint`](crate::simd::int8::joint).
fn multiples(row: &[f32], scale: f32) -> Vec<i8> {
    let nearest = |weight: &f32| (weight / scale).round_ties_even().clamp(-127.0, 127.0) as i8;
    let mut bytes: Vec<i8> = row.iter().map(nearest).collect();
    for groups in bytes.chunks_mut(2 * GROUP) {
        for half in 0..2 {
            let members = |k: &usize| k % GROUP / 2 == half;
            let size = |k: usize, groups: &[i8]| u16::from(groups[k].unsigned_abs());
            let sum: u16 = (0..groups.len()).filter(members).map(|k| size(k, groups)).sum();
            for _ in JOINT_WEIGHTS..sum {
                if let Some(k) = (0..groups.len()).filter(members).max_by_key(|k| size(*k, groups)) {
                    groups[k] -= groups[k].signum();
                }
            }
        }
    }
    bytes
}

/// The scale of an output's weights with the least squared error, and the weights: large ones may be cut for the
/// others, or steps be wider so that fewer are.
fn byte_weights(row: &[f32]) -> (f32, Vec<i8>) {
    let largest = 2.0 * row.iter().fold(0f32, |m, w| m.max(w.abs()));
    best_share(|share| {
        let scale = (largest * share / 127.0).max(LEAST_STEP);
        let bytes = multiples(row, scale);
        let error = |(byte, w): (&i8, &f32)| (f64::from(f32::from(*byte) * scale) - f64::from(*w)).powi(2);
        (bytes.iter().zip(row).map(error).sum(), (scale, bytes))
    })
}

/// The levels with the least squared error over some values: the range may be cut for finer steps.
fn levels(values: &[f32]) -> ByteLevels {
    // 0 has a byte of its own, since many activations are exactly 0.
    let least = values.iter().fold(0f32, |m, v| m.min(*v));
    let largest = values.iter().fold(0f32, |m, v| m.max(*v));
    let max = f32::from(MAX_ACTIVATION);
    // An odd stride, so that it meets every column.
    let stride = (values.len() / MEASURED) | 1;
    best_share(|share| {
        let step = ((largest - least) * share / max).max(LEAST_STEP);
        let zero = (-least * share / step).round_ties_even().clamp(0.0, max);
        let error = |v: &f32| {
            let byte = (v / step + zero).round_ties_even().clamp(0.0, max);
            (f64::from((byte - zero) * step) - f64::from(*v)).powi(2)
        };
        let error = values.iter().step_by(stride).map(error).sum();
        (error, ByteLevels { step, zero: zero as u8 })
    })
}

/// The choice with the least error among shares of a range, from the whole of it down to a quarter.
fn best_share<T>(choice: impl Fn(f32) -> (f64, T)) -> T {
    let (mut least, mut best) = choice(1.0);
    for index in 1..SHARES {
        let (error, other) = choice(1.0 - 0.75 * index as f32 / SHARES as f32);
        if error < least {
            (least, best) = (error, other);
        }
    }
    best
}

/// The layer's outputs for some rows, in floats.
fn apply(layer: &FrozenLayer, rows: &[f32]) -> Result<Vec<f32>, FreezeError> {
    let packed = Packed::new(&[layer], 1, FrozenPrecision::F32, Level::best())?;
    let mut workspace = Workspace::new(Arc::new(packed), 1)?;
    let mut out = vec![0.0; rows.len() / layer.inputs * layer.units];
    match workspace.infer(Entry::Encode, rows, &mut out) {
        Ok(()) => Ok(out),
        Err(_) => Err(FreezeError::Samples { values: rows.len(), width: layer.inputs }),
    }
}
