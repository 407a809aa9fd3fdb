//! Why a model cannot be frozen.

use cvae_core::{CompileError, Unsupported};
use thiserror::Error;

/// A model that cannot be frozen, or frozen numbers that make no model.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FreezeError {
    /// The model has an op that frozen models do not know.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// Memory or threads could not be had.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The parameters are not those of the plan.
    #[error("{found} parameters, but the model has {expected}")]
    Parameters {
        /// Parameters of the model.
        expected: usize,
        /// Parameters given.
        found: usize,
    },
    /// The encoder or the decoder has no layers.
    #[error("the {part} has no layers")]
    NoLayers {
        /// `encoder` or `decoder`.
        part: &'static str,
    },
    /// A part of a layer has another size than its neighbours ask for.
    #[error("layer {layer} (counted from 0): {what} has {found} elements, expected {expected}")]
    Size {
        /// Position among all layers, the encoder's first.
        layer: usize,
        /// What has the wrong size.
        what: &'static str,
        /// Elements needed.
        expected: usize,
        /// Elements found.
        found: usize,
    },
    /// A number that no freezing produces.
    #[error("layer {layer} (counted from 0): {what} is not usable: it must be {rule}")]
    Value {
        /// Position among all layers, the encoder's first.
        layer: usize,
        /// Which number.
        what: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// The sums of a layer could overflow 32-bit integers.
    #[error("layer {layer} (counted from 0) has {inputs} inputs; int8 sums are exact up to {max}")]
    TooWide {
        /// Position among all layers, the encoder's first.
        layer: usize,
        /// Inputs of the layer.
        inputs: usize,
        /// Most inputs.
        max: usize,
    },
    /// The calibration samples are not whole rows, or there are none.
    #[error("{values} calibration values are not one or more rows of width {width}")]
    Samples {
        /// Values given.
        values: usize,
        /// Width of a row.
        width: usize,
    },
    /// Rounding and calibration need the weights as they were trained.
    #[error("only a model with f32 weights can be rounded or quantised")]
    NotF32,
}
