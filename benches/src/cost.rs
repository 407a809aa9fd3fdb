//! Arithmetic and traffic of a case, counted from its program.

use cvae_core::{Op, Plan};

use crate::case::{Case, Mode};

/// Cost of one step or call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Floating-point operations of the matrix products.
    pub flops: f64,
    /// Bytes that must move if nothing but parameters and their moments exceeds the caches.
    pub bytes: f64,
}

/// The cost of a step or call of `case`.
pub fn cost(case: &Case, plan: &Plan) -> Cost {
    let graph = match case.mode {
        Mode::Train => &plan.program.train,
        Mode::Infer(entry) => plan.program.entry(entry),
    };
    let size = |weight| plan.params.get(weight).map_or(0, |param: &cvae_core::Param| param.size()) as f64;
    let mut cost = Cost { flops: 0.0, bytes: 0.0 };
    for op in &graph.ops {
        match op {
            Op::Linear { weight, .. } | Op::LinearGradInput { weight, .. } => {
                cost.flops += 2.0 * case.rows_per_step() * size(*weight);
                cost.bytes += 4.0 * size(*weight);
            }
            Op::LinearGradWeight { weight, .. } => {
                cost.flops += 2.0 * case.rows_per_step() * size(*weight);
                // Parameter and two moments, read and written.
                cost.bytes += 24.0 * size(*weight);
            }
            _ => {}
        }
    }
    cost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_f_is_728_mflop() {
        let case: Case = "F/train/128".parse().unwrap();
        let cost = cost(&case, &case.plan().unwrap());
        // Three products a layer, but no input gradient of the first.
        let weights = 2.0 * (784.0 * 512.0 + 512.0 * 256.0 + 256.0 * 32.0);
        assert_eq!(cost.flops, 2.0 * 128.0 * (3.0 * weights - 784.0 * 512.0));
    }
}
