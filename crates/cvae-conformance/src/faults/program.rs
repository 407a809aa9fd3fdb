//! Bugs of the lowering: the reference runs a program with one mistake in it.

use cvae_core::{Graph, KlBound, Op, ParamLayout, Program, ValueId};

use crate::faults::Fault;

/// Plants `fault` in `program`; faults of the executor leave it as it is.
pub(crate) fn plant(fault: Fault, program: &mut Program, layout: &ParamLayout) {
    match fault {
        Fault::TransposedWeight => transpose_weights(program, layout),
        Fault::ActForDerivative => act_for_derivative(program),
        Fault::DerivativeOfInput => derivative_of_input(program),
        Fault::WrongTarget => wrong_target(program),
        Fault::DecodeWithoutActivation => decode_without_activation(program),
        Fault::OnesForSigns => ones_for_signs(program),
        Fault::MaskInverted => mask_inverted(program),
        _ => {
            for op in &mut program.train.ops {
                match (fault, op) {
                    (Fault::SquaredL2, Op::ParamNorm { coefficient, .. }) => *coefficient *= *coefficient,
                    (Fault::SquaredL2, Op::LinearGradWeight { decay, .. }) => *decay *= *decay,
                    (Fault::PriorSign, Op::CollapsedPrior { beta, .. }) => *beta = -*beta,
                    (Fault::KlWithoutHalf, Op::KlDivergence { beta, .. }) => *beta *= 2.0,
                    (Fault::TrunkMissesLogvar, Op::AddScaled { scale, .. }) => *scale = 0.0,
                    (Fault::FloorIgnored, Op::KlBounded { bound: KlBound::FreeBits { floor, .. }, .. }) => *floor = 0.0,
                    (Fault::JacobianWithoutWeights, Op::LinearGradWeight { extra, .. }) => extra.clear(),
                    (
                        Fault::MissingCounted,
                        Op::Reconstruction { weights, .. }
                        | Op::SigmaReconstruction { weights, .. }
                        | Op::MixedReconstruction { weights, .. },
                    ) => *weights = None,
                    (Fault::CurvatureDropped, op @ Op::ActGradGrad { .. }) => {
                        if let Op::ActGradGrad { grad, output, .. } = *op {
                            *op = copy(grad, output);
                        }
                    }
                    (Fault::PermutedWithinRow, op @ Op::Permute { .. }) => {
                        if let Op::Permute { input, output, .. } = *op {
                            *op = copy(input, output);
                        }
                    }
                    (Fault::MovedAsColumn, Op::Shift { shift, .. }) => shift.width = 1,
                    (Fault::DenseGradientOfTopK, op @ Op::TopKGrad { .. }) => {
                        if let Op::TopKGrad { grad, output, .. } = *op {
                            *op = copy(grad, output);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

/// `output = input`
fn copy(input: ValueId, output: ValueId) -> Op {
    Op::AddScaled { a: input, b: input, scale: 0.0, output }
}

/// Adds a value of the shape of `like` to the graph.
fn value_like(graph: &mut Graph, like: ValueId) -> ValueId {
    graph.values.push(graph.values[like.index()].clone());
    ValueId(graph.values.len() as u32 - 1)
}

/// Pushes ops that fill `output` with ones: the sum of all unit vectors.
fn fill_with_ones(graph: &mut Graph, output: ValueId) {
    let width = graph.size(output);
    let mut sum = None;
    for index in 0..width {
        let unit = value_like(graph, output);
        graph.ops.push(Op::UnitVector { index, output: unit });
        let total = if index + 1 == width { output } else { value_like(graph, output) };
        let (a, scale) = sum.map_or((unit, 0.0), |sum| (sum, 1.0));
        graph.ops.push(Op::AddScaled { a, b: unit, scale, output: total });
        sum = Some(total);
    }
}

/// Ones for random signs.
fn ones_for_signs(program: &mut Program) {
    let graph = &mut program.train;
    for op in std::mem::take(&mut graph.ops) {
        match op {
            Op::Signs { output, .. } => fill_with_ones(graph, output),
            op => graph.ops.push(op),
        }
    }
}

/// `1 − mask` where units are erased.
fn mask_inverted(program: &mut Program) {
    let graph = &mut program.train;
    for op in std::mem::take(&mut graph.ops) {
        let Op::Erase { input, mask, output } = op else {
            graph.ops.push(op);
            continue;
        };
        let (ones, inverted) = (value_like(graph, mask), value_like(graph, mask));
        fill_with_ones(graph, ones);
        graph.ops.push(Op::AddScaled { a: ones, b: mask, scale: -1.0, output: inverted });
        graph.ops.push(Op::Erase { input, mask: inverted, output });
    }
}

/// `grad · Wᵀ` for `grad · W`, where `W` is square.
fn transpose_weights(program: &mut Program, layout: &ParamLayout) {
    for op in &mut program.train.ops {
        if let Op::LinearGradInput { grad, weight, output } = *op
            && layout.get(weight).is_some_and(|param| param.fan_in == param.fan_out)
        {
            *op = Op::Linear { input: grad, weight, bias: None, output };
        }
    }
}

/// `grad ⊙ act` for `grad ⊙ act'`, out of the ops there are: the product `grad · noise · ½e^(s/2)` at `s = 0`,
/// taken twice.
fn act_for_derivative(program: &mut Program) {
    let graph = &mut program.train;
    let ops = std::mem::take(&mut graph.ops);
    for op in ops {
        let Op::ActGrad { saved, grad, output, .. } = op else {
            graph.ops.push(op);
            continue;
        };
        let mut like_output = || {
            graph.values.push(graph.values[output.index()].clone());
            ValueId(graph.values.len() as u32 - 1)
        };
        let (zero, half) = (like_output(), like_output());
        graph.ops.push(Op::AddScaled { a: grad, b: grad, scale: -1.0, output: zero });
        graph.ops.push(Op::ReparameterizeGrad { grad, logvar: zero, noise: saved, output: half });
        graph.ops.push(Op::AddScaled { a: half, b: half, scale: 1.0, output });
    }
}

/// The activation's input where its derivative is a function of the output.
fn derivative_of_input(program: &mut Program) {
    let acts: Vec<(ValueId, ValueId)> = program
        .train
        .ops
        .iter()
        .filter_map(|op| match *op {
            Op::Act { input, output, .. } => Some((output, input)),
            _ => None,
        })
        .collect();
    for op in &mut program.train.ops {
        if let Op::ActGrad { saved, .. } = op
            && let Some((_, input)) = acts.iter().find(|(output, _)| output == saved)
        {
            *saved = *input;
        }
    }
}

/// A target of 1.01 times the input.
fn wrong_target(program: &mut Program) {
    let graph = &mut program.train;
    graph.values.push(graph.values[graph.input.index()].clone());
    let corrupted = ValueId(graph.values.len() as u32 - 1);
    let input = graph.input;
    graph.ops.insert(0, Op::AddScaled { a: input, b: input, scale: 0.01, output: corrupted });
    for op in &mut graph.ops {
        if let Op::Reconstruction { target, .. } = op {
            *target = corrupted;
        }
    }
}

/// The last layer's pre-activation for its output.
fn decode_without_activation(program: &mut Program) {
    let graph = &mut program.decode;
    if let Some(Op::Act { input, output, .. }) = graph.ops.last()
        && graph.output == Some(*output)
    {
        graph.output = Some(*input);
    }
}
