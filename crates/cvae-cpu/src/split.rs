//! Which values of a graph threads divide by features: see [`crate::schedule`].

use cvae_core::{Graph, Op};

use crate::elements::Class;

/// Which values of a graph are split, given the split of its input or of its weights.
/// `contracts[id]` is set for a weight whose input is split; with `known` the flags are read instead.
pub(crate) fn assign_split(graph: &Graph, contracts: &mut [bool], known: bool) -> Vec<bool> {
    let mut split = vec![true; graph.values.len()];
    // What is drawn takes the kind of the values it meets; every other operand is decided before it is used.
    let mut drawn = vec![false; graph.values.len()];
    for op in &graph.ops {
        match *op {
            Op::Linear { input, weight, output, .. } => {
                if known {
                    split[input.index()] = contracts[weight.index()];
                } else {
                    contracts[weight.index()] = split[input.index()];
                }
                split[output.index()] = !split[input.index()];
            }
            Op::LinearGradInput { grad, weight, output } => {
                split[grad.index()] = !contracts[weight.index()];
                split[output.index()] = contracts[weight.index()];
            }
            Op::LinearGradWeight { input, ref extra, .. } => {
                extra.iter().for_each(|(other, _)| split[other.index()] = split[input.index()]);
            }
            Op::SpectralGrad { input, left, output, .. } => {
                [left, output].iter().for_each(|value| split[value.index()] = !split[input.index()]);
            }
            Op::ParamNorm { .. } | Op::Update => {}
            _ if Class::of(op) == Class::Drawn => op.writes().iter().for_each(|value| drawn[value.index()] = true),
            _ => {
                let reads = op.reads();
                if let Some(known) = reads.iter().find(|value| !drawn[value.index()]).or(reads.first()) {
                    let kind = split[known.index()];
                    let undecided = reads.iter().filter(|value| drawn[value.index()]);
                    undecided.chain(&op.writes()).for_each(|value| split[value.index()] = kind);
                }
            }
        }
    }
    split
}
