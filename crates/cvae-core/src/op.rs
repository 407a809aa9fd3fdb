//! The operations of a program. Formulas: docs/MATH.md.

use crate::columns::ColumnGroup;
use crate::corruption::Shift;
use crate::objective::{KlBound, Reconstruction};
use crate::program::{ParamId, ValueId};
use crate::rng::Stream;
use crate::spec::Activation;

/// One operation. `rows` is the number of rows of the batch; every formula is in docs/MATH.md.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `output = input · Wᵀ + b`
    Linear {
        /// `rows × in`.
        input: ValueId,
        /// `W`, `[out, in]`.
        weight: ParamId,
        /// `b`, `[out]`.
        bias: Option<ParamId>,
        /// `rows × out`.
        output: ValueId,
    },
    /// `output = act(input)`, elementwise.
    Act {
        /// Which function.
        activation: Activation,
        /// Pre-activation.
        input: ValueId,
        /// Same shape.
        output: ValueId,
    },
    /// Standard normal noise of the batch's rows.
    Noise {
        /// What it is drawn for.
        stream: Stream,
        /// Filled with noise.
        output: ValueId,
    },
    /// `output = mean + e^(s/2) · noise`, with `s` the log-variance clamped to its bounds.
    Reparameterize {
        /// μ.
        mean: ValueId,
        /// s before clamping.
        logvar: ValueId,
        /// ε.
        noise: ValueId,
        /// Sampled code.
        output: ValueId,
    },
    /// Marks of the units of columns that [`crate::Corruption`] changes: 1 where a unit is chosen, else 0.
    ///
    /// Column `j` of row `r` is chosen if [`crate::rng::chosen`] says so of word `u mod 4` of block `u / 4` of
    /// row `r` of [`Stream::Corrupt`], with `u = units[j]`.
    Mask {
        /// Probability of a unit.
        share: f64,
        /// Unit of each column.
        units: Vec<u32>,
        /// 0 or 1.
        output: ValueId,
    },
    /// `output = input` where `mask` is 0, else 0.
    Erase {
        /// Clean rows.
        input: ValueId,
        /// 0 or 1.
        mask: ValueId,
        /// Corrupted rows.
        output: ValueId,
    },
    /// `output = input` where `mask` is 0, else the same column of another row of the batch.
    ///
    /// Column `j` of row `r` takes row [`crate::rng::below`]`(word, rows)` of the batch, with word `u mod 4` of
    /// block `u / 4` of row `r` of [`Stream::Permute`] and `u = units[j]`.
    Permute {
        /// Clean rows.
        input: ValueId,
        /// 0 or 1.
        mask: ValueId,
        /// Unit of each column.
        units: Vec<u32>,
        /// Corrupted rows.
        output: ValueId,
    },
    /// `output = input` where `mask` is 0, else the image of the same row after move [`crate::rng::below`]`(word, moves)`,
    /// with 0 where it moved away from: [`Shift::source`]. The word is word 0 of block 0 of the row of
    /// [`Stream::Permute`].
    Shift {
        /// Clean rows.
        input: ValueId,
        /// 0 or 1.
        mask: ValueId,
        /// The images and their moves.
        shift: Shift,
        /// Corrupted rows.
        output: ValueId,
    },
    /// `output = input` with 0 for NaN; `weights` are 0 for NaN, else 1.
    Observe {
        /// Rows with missing values.
        input: ValueId,
        /// Rows without.
        output: ValueId,
        /// What was observed.
        weights: Option<ValueId>,
    },
    /// `output = a ⊙ b`
    Multiply {
        /// First operand.
        a: ValueId,
        /// Second operand.
        b: ValueId,
        /// Product.
        output: ValueId,
    },
    /// The `k` elements of each row with the largest magnitudes, 0 elsewhere. Of equal magnitudes the lower
    /// column goes first.
    TopK {
        /// Elements to keep.
        k: usize,
        /// The code.
        input: ValueId,
        /// The sparse code.
        output: ValueId,
    },
    /// `output = grad` where `code` is not 0, else 0: the gradient through [`Op::TopK`].
    TopKGrad {
        /// The sparse code.
        code: ValueId,
        /// Its gradient.
        grad: ValueId,
        /// Gradient of the code before.
        output: ValueId,
    },
    /// The reconstruction term, averaged over rows, and its gradient (1/rows included). Both are multiplied by
    /// `weights` element by element; nothing else depends on the weights.
    Reconstruction {
        /// Which comparison. For [`Reconstruction::Bce`] the prediction is the logits.
        kind: Reconstruction,
        /// `x'`.
        prediction: ValueId,
        /// `x`.
        target: ValueId,
        /// Factor of each element, 0 or 1; absent for 1 everywhere.
        weights: Option<ValueId>,
        /// `∂loss/∂prediction`.
        grad: ValueId,
    },
    /// The reconstruction term of a learnt variance: with `N = Σ weights` over the batch and
    /// `M = Σ weights·e²/N`, the term is `N/(2·rows)·ln(M + floor)` and the gradient
    /// `weights·e/(rows·(M + floor))`. Both are 0 if `N` is 0.
    SigmaReconstruction {
        /// Least variance.
        floor: f64,
        /// `x'`.
        prediction: ValueId,
        /// `x`.
        target: ValueId,
        /// Factor of each element, 0 or 1; absent for 1 everywhere.
        weights: Option<ValueId>,
        /// `∂loss/∂prediction`.
        grad: ValueId,
    },
    /// The reconstruction term of groups of columns, averaged over rows, and its gradient. Numeric columns are
    /// compared by `kind`, whose `width` is that of the row; binary ones by cross-entropy from logits; a
    /// categorical group by `Σ t·(ln Σ e^u − u)`. Each group counts with its weight; a categorical group only
    /// where all its `weights` are 1.
    MixedReconstruction {
        /// Comparison of numeric columns.
        kind: Reconstruction,
        /// The groups, which cover the row.
        columns: Vec<ColumnGroup>,
        /// `x'`, logits in binary and categorical columns.
        prediction: ValueId,
        /// `x`.
        target: ValueId,
        /// Factor of each element, 0 or 1; absent for 1 everywhere.
        weights: Option<ValueId>,
        /// `∂loss/∂prediction`.
        grad: ValueId,
    },
    /// From the decoder's output to a row: numeric columns as they are, the sigmoid of binary ones, the softmax
    /// of each categorical group.
    MixedOutput {
        /// The groups, which cover the row.
        columns: Vec<ColumnGroup>,
        /// Decoder's output.
        input: ValueId,
        /// Row.
        output: ValueId,
    },
    /// Adds the collapsed prior: term `beta·½‖z‖²`, gradient `output = grad + beta·z/rows`.
    CollapsedPrior {
        /// Weight.
        beta: f64,
        /// The code.
        code: ValueId,
        /// Gradient so far.
        grad: ValueId,
        /// Gradient with the prior.
        output: ValueId,
    },
    /// Adds the divergence: term `beta·½Σ(μ² + e^s − 1 − s)`; `mean_output = mean_grad + beta·μ/rows`,
    /// `logvar_output = logvar_grad + beta·½(e^s − 1)/rows` where `s` lies inside its bounds.
    KlDivergence {
        /// Weight.
        beta: f64,
        /// μ.
        mean: ValueId,
        /// s before clamping.
        logvar: ValueId,
        /// Gradient of μ so far.
        mean_grad: ValueId,
        /// Gradient of s so far.
        logvar_grad: ValueId,
        /// Gradient of μ with the divergence.
        mean_output: ValueId,
        /// Gradient of s with the divergence.
        logvar_output: ValueId,
    },
    /// Adds a bounded divergence. With `K_j` the divergence of dimension `j` averaged over the rows of the batch,
    /// the term is that of `bound` and `f_j` its slope by `K_j`: `gamma·sign(Σ K − capacity)`, or `beta` where
    /// `K_j > floor` and 0 elsewhere. The outputs are those of [`Op::KlDivergence`] with `f_j` for `beta`.
    KlBounded {
        /// Which bound.
        bound: KlBound,
        /// μ.
        mean: ValueId,
        /// s before clamping.
        logvar: ValueId,
        /// Gradient of μ so far.
        mean_grad: ValueId,
        /// Gradient of s so far.
        logvar_grad: ValueId,
        /// Gradient of μ with the divergence.
        mean_output: ValueId,
        /// Gradient of s with the divergence.
        logvar_output: ValueId,
    },
    /// Adds `weight·Σ|z|`, averaged over rows: `output = grad + weight·sign(z)/rows`, with sign 0 at 0.
    CodeL1 {
        /// Weight.
        weight: f64,
        /// The code.
        code: ValueId,
        /// Gradient so far.
        grad: ValueId,
        /// Gradient with the penalty.
        output: ValueId,
    },
    /// Adds `weight·MMD²` between the rows of `code` and of `prior`: the mean of the kernel over pairs of
    /// different rows of each, less twice its mean over all pairs between them. The kernel is
    /// `Σ_s C/(C + ‖a − b‖²)`, `C = 2·latent·s`, over [`crate::Latent::MMD_SCALES`]. A batch of one row has no
    /// pairs: the term is then 0, and `output = grad`.
    Mmd {
        /// Weight.
        weight: f64,
        /// The code.
        code: ValueId,
        /// Draws of the prior.
        prior: ValueId,
        /// Gradient so far.
        grad: ValueId,
        /// Gradient with the discrepancy.
        output: ValueId,
    },
    /// Random signs, −1 or 1, by [`crate::rng::Noise::signs`].
    Signs {
        /// What they are drawn for.
        stream: Stream,
        /// Filled with signs.
        output: ValueId,
    },
    /// Rows of the unit vector: 1 in column `index`, 0 elsewhere.
    UnitVector {
        /// Column of the 1.
        index: usize,
        /// Filled.
        output: ValueId,
    },
    /// The term `weight·‖input‖²`, averaged over rows, and its gradient `output = 2·weight·input/rows`. A graph
    /// may have several; their terms add up.
    JacobianNorm {
        /// Weight.
        weight: f64,
        /// A cotangent pulled back to the input of its part: `Jᵀv`.
        input: ValueId,
        /// Gradient of the term.
        output: ValueId,
    },
    /// `output = grad + act''(·) ⊙ cotangent ⊙ adjoint`: what the derivative of an activation, when it is itself
    /// differentiated, adds to the gradient of the pre-activation.
    ActGradGrad {
        /// Which function; one with a second derivative.
        activation: Activation,
        /// The activation's output if [`Activation::derivative_from_output`], else its input.
        saved: ValueId,
        /// What [`Op::ActGrad`] multiplied.
        cotangent: ValueId,
        /// Gradient of what [`Op::ActGrad`] gave.
        adjoint: ValueId,
        /// Gradient of the pre-activation so far.
        grad: ValueId,
        /// Gradient with the second derivative.
        output: ValueId,
    },
    /// The largest singular value σ of a weight `W`, by power iteration, as values whose rows are all equal.
    ///
    /// `v` starts as [`crate::rng::Noise::signs`] of row `weight` of [`Stream::Spectral`] under seed 0 in epoch 0;
    /// then `iterations` times `u = W·v/‖W·v‖`, `v = Wᵀ·u/‖Wᵀ·u‖`; at last `σ = ‖W·v‖` and `u = W·v/σ`. If a norm
    /// is 0, `scale` is 1 and `left` and `right` are 0.
    SpectralScale {
        /// `W`, `[out, in]`.
        weight: ParamId,
        /// Iterations.
        iterations: u32,
        /// `1/σ`, one element a row.
        scale: ValueId,
        /// `u` of `out` elements, where the backward pass needs it.
        left: Option<ValueId>,
        /// `v` of `in` elements, where the backward pass needs it.
        right: Option<ValueId>,
    },
    /// `output = input · scale`, with one `scale` a row.
    ScaleRows {
        /// Any width.
        input: ValueId,
        /// One element a row.
        scale: ValueId,
        /// As `input`.
        output: ValueId,
    },
    /// `output = −scale·(Σ grad ⊙ input)·left`: with `right`, the pair that the division by σ adds to the
    /// gradient of its weight.
    SpectralGrad {
        /// Gradient of the scaled input.
        grad: ValueId,
        /// The scaled input of the layer.
        input: ValueId,
        /// One element a row.
        scale: ValueId,
        /// `u`.
        left: ValueId,
        /// As `left`.
        output: ValueId,
    },
    /// The term `(coefficient/2)·Σ‖θ‖²` over `params`; its gradient is [`Op::LinearGradWeight`]'s `decay`.
    ParamNorm {
        /// λ.
        coefficient: f64,
        /// The parameters.
        params: Vec<ParamId>,
    },
    /// `output = grad ⊙ act'(·)`.
    ActGrad {
        /// Which function.
        activation: Activation,
        /// The activation's output if [`Activation::derivative_from_output`], else its input.
        saved: ValueId,
        /// Gradient of the activation's output.
        grad: ValueId,
        /// Gradient of the activation's input.
        output: ValueId,
    },
    /// Gradient of the log-variance through sampling: `output = grad · noise · ½e^(s/2)` inside the bounds.
    ReparameterizeGrad {
        /// Gradient of the sampled code.
        grad: ValueId,
        /// s before clamping.
        logvar: ValueId,
        /// ε.
        noise: ValueId,
        /// Gradient of s.
        output: ValueId,
    },
    /// `output = grad · W`
    LinearGradInput {
        /// `rows × out`.
        grad: ValueId,
        /// `W`, `[out, in]`.
        weight: ParamId,
        /// `rows × in`.
        output: ValueId,
    },
    /// The parameter gradients `gradᵀ · input + Σ_extra gradᵀ · input + decay·W` and `Σ_rows grad + decay·b`.
    LinearGradWeight {
        /// `rows × in`.
        input: ValueId,
        /// `rows × out`.
        grad: ValueId,
        /// `W`.
        weight: ParamId,
        /// `b`.
        bias: Option<ParamId>,
        /// λ of the parameter regulariser.
        decay: f64,
        /// Further pairs (input, grad) of the weight's gradient; the bias takes none of them.
        extra: Vec<(ValueId, ValueId)>,
    },
    /// `output = a + scale · b`
    AddScaled {
        /// First operand.
        a: ValueId,
        /// Second operand.
        b: ValueId,
        /// Factor of `b`.
        scale: f64,
        /// Sum.
        output: ValueId,
    },
    /// One optimiser step on every parameter; the last op of a training graph.
    Update,
}
