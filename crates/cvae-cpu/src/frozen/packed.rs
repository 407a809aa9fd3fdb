//! Weights in the layout that kernels want.

use std::ops::Range;
use std::sync::Arc;

use cvae_core::{Activation, CompileError, Entry, KernelChoice, Unsupported};

use super::error::FreezeError;
use super::model::{FrozenLayer, FrozenModel, FrozenPrecision, FrozenWeights};
use super::workspace::Workspace;
use crate::arena::{Arena, Offsets};
use crate::backend::Level;
use crate::kernels::dense_i8::Quantizer;
use crate::kernels::table::Kernels;
use crate::simd::bf16::Bf16;
use crate::simd::int8::{GROUP, joint};

/// Bytes of a float.
const FLOAT: usize = size_of::<f32>();

/// A frozen model packed for one instruction set; cloning it shares the weights.
#[derive(Clone)]
pub struct Frozen {
    packed: Arc<Packed>,
}

impl std::fmt::Debug for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Packed { level, layers, encoder, .. } = &*self.packed;
        f.debug_struct("Frozen")
            .field("level", level)
            .field("precision", &self.precision())
            .field("encoder", encoder)
            .field("layers", &layers.len())
            .finish()
    }
}

impl Frozen {
    /// Checks a model and packs it for `level`.
    ///
    /// # Errors
    /// Whatever [`FrozenModel::validate`] finds, a processor without the level, or no memory.
    pub fn new(model: &FrozenModel, level: Level) -> Result<Self, FreezeError> {
        model.validate()?;
        let layers: Vec<&FrozenLayer> = model.layers().collect();
        Ok(Self { packed: Arc::new(Packed::new(&layers, model.encoder.len(), model.precision(), level)?) })
    }

    /// The instruction set it is packed for.
    pub fn level(&self) -> Level {
        self.packed.level
    }

    /// How weights are stored.
    pub fn precision(&self) -> FrozenPrecision {
        self.packed.precision
    }

    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.packed.widths(Entry::Reconstruct).0
    }

    /// Elements of a code.
    pub fn latent(&self) -> usize {
        self.packed.widths(Entry::Decode).0
    }

    /// The kernel of each layer, the encoder's first.
    pub fn kernels(&self) -> Vec<KernelChoice> {
        let packed = &*self.packed;
        let choice = |layer: &Layer| {
            let kernel = match layer.weights {
                Weights::F32 => "dense",
                Weights::Bf16 => "dense_bf16",
                Weights::Int8 { joint, .. } => packed.kernels.dense_i8_names[usize::from(joint)],
            };
            KernelChoice {
                op: format!("dense {} -> {}, {}", layer.inputs, layer.units, layer.activation),
                kernel: format!("{}::{kernel}", packed.level),
            }
        };
        packed.layers.iter().map(choice).collect()
    }

    /// Buffers and `threads − 1` worker threads (0 counts as 1) for one caller.
    ///
    /// # Errors
    /// No memory, no threads, or more threads than [`crate::CpuBackend::MAX_THREADS`].
    pub fn workspace(&self, threads: usize) -> Result<Workspace, FreezeError> {
        Ok(Workspace::new(Arc::clone(&self.packed), threads)?)
    }
}

/// The weights of a layer; offsets are floats of the arena.
#[derive(Clone, Copy)]
pub(super) enum Weights {
    /// `[panel][input][PW]` floats.
    F32,
    /// `[panel][pair][PW][2]` halves.
    Bf16,
    /// `[panel][group][PW][4]` bytes.
    Int8 {
        /// `[panel][PW]` integers: what sums begin with.
        start: usize,
        /// `[panel][PW]` floats.
        scale: usize,
        /// How inputs become bytes.
        quantizer: Quantizer,
        /// Groups of a panel: those of the inputs, and zeros.
        panel_groups: usize,
        /// Whether all weights are small enough to be multiplied two groups at a time.
        joint: bool,
    },
}

/// A packed layer; offsets are floats of the arena.
pub(super) struct Layer {
    pub(super) inputs: usize,
    pub(super) units: usize,
    pub(super) activation: Activation,
    /// Panels of outputs.
    pub(super) panels: usize,
    pub(super) w: usize,
    /// `[panel][PW]`
    pub(super) bias: usize,
    pub(super) weights: Weights,
    /// Bytes of the weights.
    pub(super) bytes: usize,
}

impl Layer {
    /// Groups of inputs of an int8 layer.
    pub(super) fn groups(&self) -> usize {
        self.inputs.div_ceil(GROUP)
    }
}

/// Every layer, packed into one allocation that is never written again.
pub(super) struct Packed {
    pub(super) level: Level,
    pub(super) kernels: &'static Kernels,
    pub(super) precision: FrozenPrecision,
    pub(super) layers: Vec<Layer>,
    /// Layers of the encoder.
    encoder: usize,
    pub(super) arena: Arena,
}

impl Packed {
    /// Packs layers that have been checked.
    pub(super) fn new(
        layers: &[&FrozenLayer],
        encoder: usize,
        precision: FrozenPrecision,
        level: Level,
    ) -> Result<Self, CompileError> {
        match level.kernels() {
            Some(kernels) => Self::with_kernels(layers, encoder, precision, level, kernels),
            None => {
                let (backend, missing) = (level.id().to_string(), level.requirement().to_owned());
                Err(Unsupported::Unavailable { backend, missing }.into())
            }
        }
    }

    /// Packs for kernels that the processor can run.
    fn with_kernels(
        layers: &[&FrozenLayer],
        encoder: usize,
        precision: FrozenPrecision,
        level: Level,
        kernels: &'static Kernels,
    ) -> Result<Self, CompileError> {
        let width = kernels.panel();
        let mut offsets = Offsets::default();
        let placed: Vec<Layer> = layers.iter().map(|layer| place(layer, kernels, &mut offsets)).collect();
        let arena = Arena::new(offsets.len(), "the frozen weights")?;
        for (layer, numbers) in placed.iter().zip(layers) {
            pack(layer, numbers, width, &arena);
        }
        Ok(Self { level, kernels, precision, layers: placed, encoder, arena })
    }

    /// The layers of an entry.
    pub(super) fn entry(&self, entry: Entry) -> Range<usize> {
        match entry {
            Entry::Encode => 0..self.encoder,
            Entry::Decode => self.encoder..self.layers.len(),
            Entry::Reconstruct => 0..self.layers.len(),
        }
    }

    /// Elements of an input row and of an output row.
    pub(super) fn widths(&self, entry: Entry) -> (usize, usize) {
        let layers = self.entry(entry);
        (self.layers[layers.start].inputs, self.layers[layers.end - 1].units)
    }
}

/// Reserves the parts of a layer.
fn place(layer: &FrozenLayer, kernels: &Kernels, offsets: &mut Offsets) -> Layer {
    let (inputs, units, width) = (layer.inputs, layer.units, kernels.panel());
    let panels = units.div_ceil(width);
    let lanes = panels * width;
    let (bytes, weights) = match &layer.weights {
        FrozenWeights::F32(_) => (lanes * inputs * FLOAT, Weights::F32),
        FrozenWeights::Bf16(_) => (lanes * inputs.next_multiple_of(2) * size_of::<Bf16>(), Weights::Bf16),
        FrozenWeights::Int8 { input, values, .. } => {
            let joint = values.chunks_exact(inputs).all(joint);
            let quantizer = Quantizer { inverse: input.step.recip(), zero: f32::from(input.zero) };
            let panel_groups = inputs.div_ceil(GROUP).next_multiple_of(kernels.byte_groups);
            let (start, scale) = (offsets.take(lanes), offsets.take(lanes));
            (lanes * panel_groups * GROUP, Weights::Int8 { start, scale, quantizer, panel_groups, joint })
        }
    };
    let (w, bias) = (offsets.take(bytes / FLOAT), offsets.take(lanes));
    Layer { inputs, units, activation: layer.activation, panels, w, bias, weights, bytes }
}

/// Fills the parts of a layer; what lies beyond its units and inputs stays 0.
fn pack(layer: &Layer, numbers: &FrozenLayer, width: usize, arena: &Arena) {
    let (inputs, units) = (layer.inputs, layer.units);
    // SAFETY: `place` reserved `count` floats at each of these offsets, nobody else knows the arena yet, and
    // zeroed memory is valid for integers too.
    let part = |offset: usize, count: usize| unsafe { std::slice::from_raw_parts_mut(arena.at(offset), count) };
    part(layer.bias, units).copy_from_slice(&numbers.bias);
    match (&numbers.weights, layer.weights) {
        (FrozenWeights::F32(weights), _) => {
            let w = part(layer.w, layer.bytes / FLOAT);
            for (unit, row) in weights.chunks_exact(inputs).enumerate() {
                for (input, weight) in row.iter().enumerate() {
                    w[(unit / width * inputs + input) * width + unit % width] = *weight;
                }
            }
        }
        (FrozenWeights::Bf16(weights), _) => {
            let count = layer.bytes / size_of::<Bf16>();
            // SAFETY: as above.
            let w = unsafe { std::slice::from_raw_parts_mut(arena.at(layer.w).cast::<Bf16>(), count) };
            let pairs = inputs.div_ceil(2);
            for (unit, row) in weights.chunks_exact(inputs).enumerate() {
                for (input, weight) in row.iter().enumerate() {
                    w[((unit / width * pairs + input / 2) * width + unit % width) * 2 + input % 2] = *weight;
                }
            }
        }
        (FrozenWeights::Int8 { values, scales, input }, Weights::Int8 { start, scale, panel_groups, .. }) => {
            // SAFETY: as above.
            let bytes = unsafe { std::slice::from_raw_parts_mut(arena.at(layer.w).cast::<i8>(), layer.bytes) };
            // SAFETY: as above.
            let start = unsafe { std::slice::from_raw_parts_mut(arena.at(start).cast::<i32>(), units) };
            let scale = part(scale, units);
            for (unit, row) in values.chunks_exact(inputs).enumerate() {
                for (k, value) in row.iter().enumerate() {
                    let group = unit / width * panel_groups + k / GROUP;
                    bytes[(group * width + unit % width) * GROUP + k % GROUP] = *value;
                }
                let sum: i32 = row.iter().map(|value| i32::from(*value)).sum();
                start[unit] = -i32::from(input.zero) * sum;
                scale[unit] = scales[unit] * input.step;
            }
        }
        (FrozenWeights::Int8 { .. }, Weights::F32 | Weights::Bf16) => {
            unreachable!("`place` keeps the kind of the weights")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::tables;
    use crate::frozen::ByteLevels;

    /// A layer whose bytes take every value up to `most`, the largest sums among them.
    fn layer(inputs: usize, units: usize, activation: Activation, zero: u8, most: i32) -> FrozenLayer {
        let byte = |i: usize| ((i * i + i / inputs * 7919) % (2 * most as usize + 1)) as i32 - most;
        let value = |i: usize| match i / inputs {
            0 => most as i8,
            1 => -most as i8,
            _ => byte(i) as i8,
        };
        FrozenLayer {
            inputs,
            units,
            activation,
            weights: FrozenWeights::Int8 {
                values: (0..inputs * units).map(value).collect(),
                scales: (0..units).map(|unit| 1e-4 + unit as f32 * 1e-6).collect(),
                input: ByteLevels { step: 0.03, zero },
            },
            bias: (0..units).map(|unit| unit as f32 * 0.01 - 0.2).collect(),
        }
    }

    #[test]
    fn every_way_of_multiplying_bytes_gives_the_same_bits() {
        // 127 meets its like in 16 bits twice, 64 four times. Of the inputs, some fill tiles of 64 and some do not.
        for (most, joint) in [(127, false), (64, true)] {
            for (inputs, units) in [(203, 75), (256, 64), (64, 130), (9, 7)] {
                let to = layer(inputs, units, Activation::Relu, 0, most);
                every_table_agrees(&[to, layer(units, inputs, Activation::Tanh, 64, most)], joint);
            }
        }
    }

    /// A layer's weights as the kernels know them.
    fn real(values: &FrozenWeights) -> Vec<f32> {
        match values {
            FrozenWeights::F32(values) => values.clone(),
            FrozenWeights::Bf16(values) => values.iter().map(|value| value.to_f32()).collect(),
            FrozenWeights::Int8 { .. } => unreachable!("bytes have tests of their own"),
        }
    }

    #[test]
    fn every_table_computes_layers_whose_last_panel_is_full_half_or_less() {
        let inputs = 37;
        for units in [5, 16, 32, 44, 75] {
            let values: Vec<f32> = (0..inputs * units).map(|i| (i * 7919 % 2003) as f32 / 1001.5 - 1.0).collect();
            let halves = values.iter().map(|value| Bf16::from_f32(*value)).collect();
            for (weights, precision) in [
                (FrozenWeights::F32(values), FrozenPrecision::F32),
                (FrozenWeights::Bf16(halves), FrozenPrecision::Bf16),
            ] {
                let bias: Vec<f32> = (0..units).map(|unit| unit as f32 * 0.1).collect();
                let layer = FrozenLayer { inputs, units, activation: Activation::Identity, weights, bias };
                let w = real(&layer.weights);
                for (name, kernels, missing) in tables() {
                    if let Some(missing) = missing {
                        eprintln!("skipped: {name} needs {missing}");
                        continue;
                    }
                    let packed = Packed::with_kernels(&[&layer], 1, precision, Level::Scalar, kernels).unwrap();
                    let mut workspace = Workspace::new(Arc::new(packed), 2).unwrap();
                    for count in [1, 2, 3, 61] {
                        let rows: Vec<f32> = (0..count * inputs).map(|i| (i * 31 % 97) as f32 / 97.0).collect();
                        let mut found = vec![f32::NAN; count * units];
                        workspace.infer(Entry::Encode, &rows, &mut found).unwrap();
                        for (i, found) in found.iter().enumerate() {
                            let (row, unit) = (&rows[i / units * inputs..], i % units);
                            let product = |k: usize| f64::from(row[k]) * f64::from(w[unit * inputs + k]);
                            let sum = (0..inputs).map(product).sum::<f64>() + f64::from(layer.bias[unit]);
                            let close = (f64::from(*found) - sum).abs() < 1e-4;
                            assert!(close, "{name}, {precision:?}: {found}, not {sum}, at {i} of {units} units");
                        }
                    }
                }
            }
        }
    }

    /// However many rows a call has, and whatever earlier calls left in the buffers.
    fn every_table_agrees(layers: &[FrozenLayer], joint: bool) {
        let layers: Vec<&FrozenLayer> = layers.iter().collect();
        let width = layers[0].inputs;
        let mut rows: Vec<f32> =
            (0..96 * width).map(|i| if i < width { 9.0 } else { (i % 389) as f32 * 0.01 }).collect();
        // What no byte stands for, in the second row and the last.
        let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38, -3e38, 3e9, -3e9, -0.0];
        rows[width..][..odd.len()].copy_from_slice(&odd);
        rows[95 * width..][..odd.len()].copy_from_slice(&odd);
        let mut expected: Vec<f32> = vec![];
        for (name, kernels, missing) in tables() {
            if let Some(missing) = missing {
                eprintln!("skipped: {name} needs {missing}");
                continue;
            }
            let packed = Packed::with_kernels(&layers, 1, FrozenPrecision::Int8, Level::Scalar, kernels).unwrap();
            let found_joint = |layer: &Layer| matches!(layer.weights, Weights::Int8 { joint, .. } if joint);
            assert!(packed.layers.iter().all(|layer| found_joint(layer) == joint));
            let packed = Arc::new(packed);
            for threads in [1, 2, 5] {
                let mut workspace = Workspace::new(Arc::clone(&packed), threads).unwrap();
                assert!(workspace.chunks.most.is_multiple_of(kernels.byte_rows), "{name}: no room for whole blocks");
                for call in [96, 1, 7, 8, 15, 16, 17, 31, 32, 33, 64, 75] {
                    // Calls of a few rows need no more than three of them.
                    let rows = &rows[..width * 96.min(3 * call)];
                    let mut found = vec![f32::NAN; rows.len()];
                    for (input, out) in rows.chunks(call * width).zip(found.chunks_mut(call * width)) {
                        workspace.infer(Entry::Reconstruct, input, out).unwrap();
                    }
                    if expected.is_empty() {
                        expected.clone_from(&found);
                    }
                    let same = found.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{name} differs from portable: {threads} threads, {call} rows a call");
                }
            }
        }
        assert!(expected.iter().all(|value| value.is_finite()));
        assert!(expected.iter().any(|value| *value != expected[0]));
    }
}
