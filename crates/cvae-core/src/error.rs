//! Errors, one small enum per stage.

use thiserror::Error;

use crate::objective::Term;
use crate::spec::{Activation, Part};

/// A specification, objective or optimiser that breaks a rule.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A part has no layers.
    #[error("the {part} needs at least two widths (its input and its output), got {widths}")]
    TooFewWidths {
        /// Which half.
        part: Part,
        /// How many were given.
        widths: usize,
    },
    /// A width of zero.
    #[error("width 0 at position {layer} of the {part}: every width must be at least 1")]
    ZeroWidth {
        /// Which half.
        part: Part,
        /// Position in the list of widths, 0 being the input.
        layer: usize,
    },
    /// The decoder's input is not the code.
    #[error("the decoder starts at width {decoder}, but the code has width {latent}")]
    DecoderInput {
        /// Width of the code.
        latent: usize,
        /// First width of the decoder.
        decoder: usize,
    },
    /// The decoder's output is not the input's size.
    #[error("the decoder ends at width {decoder}, but the input has width {input}")]
    DecoderOutput {
        /// Width of the input.
        input: usize,
        /// Last width of the decoder.
        decoder: usize,
    },
    /// More parameters than offsets can address.
    #[error("the model has {params} parameters, more than the {max} that are supported")]
    TooManyParams {
        /// Parameters of the specification.
        params: usize,
        /// Largest number supported.
        max: usize,
    },
    /// A weight must be finite and not negative.
    #[error("`{name}` must be a finite number of at least 0, got {value}")]
    Weight {
        /// Name of the field.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// A value must be finite and positive.
    #[error("`{name}` must be a finite number above 0, got {value}")]
    NotPositive {
        /// Name of the field.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// A decay must lie in [0, 1).
    #[error("`{name}` must be at least 0 and below 1, got {value}")]
    Decay {
        /// Name of the field.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// Cross-entropy is computed from logits and so needs a sigmoid output.
    #[error("the bce reconstruction needs a sigmoid output, but the decoder ends in `{output}`")]
    BceOutput {
        /// The decoder's last activation.
        output: Activation,
    },
    /// Two regularisers of the decoder's derivative.
    #[error("`spectral_norm` does not go with a gradient penalty")]
    SpectralPenalty,
    /// Patches that do not tile the rows.
    #[error(
        "patches of {size} pixels in images {image} pixels wide with {channels} channels do not fit rows of {width}"
    )]
    Patch {
        /// Side of a patch.
        size: usize,
        /// Width of the image.
        image: usize,
        /// Values of a pixel.
        channels: usize,
        /// Values of a row.
        width: usize,
    },
    /// Moves of images that do not fit the rows.
    #[error(
        "moves by {distance} pixels in images {image} pixels wide with {channels} channels do not fit rows of {width}"
    )]
    Shift {
        /// Farthest move.
        distance: usize,
        /// Width of the image.
        image: usize,
        /// Values of a pixel.
        channels: usize,
        /// Values of a row.
        width: usize,
    },
    /// A group of no columns.
    #[error("column group {group} (counted from 0) has no columns")]
    EmptyColumns {
        /// Position of the group.
        group: usize,
    },
    /// The groups do not cover the rows.
    #[error("the column groups cover {columns} columns, but the input has width {width}")]
    ColumnsWidth {
        /// Columns of all groups.
        columns: usize,
        /// Width of the input.
        width: usize,
    },
    /// Numeric columns compared by cross-entropy.
    #[error("with column groups the reconstruction cannot be bce: declare those columns binary")]
    ColumnsBce,
    /// Binary and categorical columns are computed from logits.
    #[error("binary and categorical columns need an identity output, but the decoder ends in `{output}`")]
    ColumnsOutput {
        /// The decoder's last activation.
        output: Activation,
    },
    /// A learnt variance is that of squared errors of the whole row.
    #[error("`sigma_floor` needs the mse_sum reconstruction and no column groups")]
    SigmaReconstruction,
    /// More elements of the code kept than there are, or none.
    #[error("`top_k` must be at least 1 and at most the code's {latent} dimensions, got {k}")]
    TopK {
        /// Elements to keep.
        k: usize,
        /// Width of the code.
        latent: usize,
    },
    /// A sampled code has no largest elements to keep.
    #[error("`top_k` does not go with a variational latent term")]
    TopKSampled,
    /// More linear layers at the end of the encoder than make sense.
    #[error("{layers} linear layers at the end of the encoder, at most {max} are supported")]
    LinearCode {
        /// Layers asked for.
        layers: usize,
        /// Most that are supported.
        max: usize,
    },
    /// Parameters of another model.
    #[error("the model has {expected} parameters, got {found}")]
    ParamCount {
        /// Parameters of the model.
        expected: usize,
        /// Parameters given.
        found: usize,
    },
    /// A map of codes that does not pass through the model's layers.
    #[error(
        "codes get other coordinates by an invertible map of {latent} dimensions, in a model with a linear code and biases \
         in the last layer of the encoder and the first of the decoder, and without a log-variance"
    )]
    CodeMap {
        /// Width of the model's code.
        latent: usize,
    },
    /// `max_rows` of zero.
    #[error("a plan must allow at least one row per batch")]
    ZeroRows,
    /// A name that no variant has.
    #[error("unknown {what} `{name}`; known: {known}")]
    Unknown {
        /// Kind of thing.
        what: &'static str,
        /// The name given.
        name: String,
        /// The known names, separated by commas.
        known: String,
    },
}

impl SpecError {
    /// An [`SpecError::Unknown`] listing the known names.
    pub fn unknown<'a>(what: &'static str, name: &str, known: impl Iterator<Item = &'a str>) -> Self {
        Self::Unknown { what, name: name.to_owned(), known: known.collect::<Vec<_>>().join(", ") }
    }
}

/// A program that breaks an invariant; reported by [`crate::program::Graph::verify`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("op {op}: {rule}")]
pub struct VerifyError {
    /// Index of the op in its graph.
    pub op: usize,
    /// The broken rule.
    pub rule: VerifyRule,
}

/// The invariants of a program.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VerifyRule {
    /// A value is read before any op defines it.
    #[error("reads %{0} before it is defined")]
    UndefinedValue(u32),
    /// A value is defined twice.
    #[error("defines %{0} a second time")]
    Redefinition(u32),
    /// Shapes of operands do not fit.
    #[error("expects {expected} elements a row for %{value}, found {found}")]
    Size {
        /// The value.
        value: u32,
        /// Elements that the op needs.
        expected: usize,
        /// Elements that the value has.
        found: usize,
    },
    /// A parameter is not in the layout, or has another shape.
    #[error("parameter #{0} does not fit the op")]
    Param(u32),
    /// A table of columns, or a position in a row, does not fit the value.
    #[error("expects a row of {expected} columns, found {found}")]
    Columns {
        /// Columns that the op names.
        expected: usize,
        /// Columns of the value.
        found: usize,
    },
    /// A parameter receives no gradient, or more than one.
    #[error("parameter #{param} receives {count} gradients, expected 1")]
    GradientCount {
        /// The parameter.
        param: u32,
        /// Gradients written.
        count: usize,
    },
}

/// Why a backend cannot run a plan.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unsupported {
    /// The machine lacks an instruction set or a device.
    #[error("{backend} is not available on this machine: {missing} not found")]
    Unavailable {
        /// The backend's id.
        backend: String,
        /// What is missing.
        missing: String,
    },
    /// An op has no kernel.
    #[error("{backend} has no kernel for {op}")]
    Op {
        /// The backend's id.
        backend: String,
        /// The op.
        op: String,
    },
    /// A part of the objective is not computed.
    #[error("{backend} does not compute the objective's {part}")]
    Objective {
        /// The backend's id.
        backend: String,
        /// The part, such as `corruption masking`.
        part: String,
    },
    /// A size is beyond what the backend can address.
    #[error("{backend} supports {what} up to {max}, the plan asks for {asked}")]
    TooLarge {
        /// The backend's id.
        backend: String,
        /// What is too large.
        what: &'static str,
        /// Largest supported value.
        max: usize,
        /// What the plan asks for.
        asked: usize,
    },
}

/// A failure while turning a plan into an executable.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The backend does not support the plan.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// Memory could not be had.
    #[error("cannot allocate {bytes} bytes for {what}")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// Purpose.
        what: &'static str,
    },
    /// Worker threads could not be started.
    #[error("cannot start {threads} worker threads")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// A failure of a device or its driver.
#[derive(Debug, Error)]
#[error("{device}: {operation} failed")]
pub struct DeviceError {
    /// The device.
    pub device: String,
    /// What was being done.
    pub operation: &'static str,
    /// The driver's reason.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A failure while running an executable.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// A batch with more rows than the plan allows, or none.
    #[error("a batch of {rows} rows; this plan takes 1 to {max_rows}")]
    Rows {
        /// Rows given.
        rows: usize,
        /// The plan's limit.
        max_rows: usize,
    },
    /// A slice of the wrong length.
    #[error("{what} has {found} elements, expected {expected}")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Length needed.
        expected: usize,
        /// Length given.
        found: usize,
    },
    /// A data set that this executable does not hold.
    #[error("no uploaded data set has the id {0}")]
    UnknownData(usize),
    /// A row index beyond the data set.
    #[error("row index {index} is beyond the data set's {rows} rows")]
    RowIndex {
        /// The index.
        index: u32,
        /// Rows of the data set.
        rows: usize,
    },
    /// Gradients are asked for, or applied, before [`crate::backend::Executable::gradients`] ran.
    #[error("no gradients have been computed")]
    NoGradients,
    /// Gradients are written: they are a result.
    #[error("gradients are computed, they cannot be written")]
    ReadOnly,
    /// The loss or a parameter is no longer finite.
    #[error("the {term} term became non-finite at step {step}")]
    NonFinite {
        /// Step, counted from 1.
        step: u64,
        /// First term to do so.
        term: Term,
    },
    /// Memory could not be had.
    #[error("cannot allocate {bytes} bytes for {what}")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// Purpose.
        what: &'static str,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}
