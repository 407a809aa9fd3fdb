//! The complete description that a backend compiles.

use crate::error::SpecError;
use crate::layout::ParamLayout;
use crate::lower;
use crate::objective::Objective;
use crate::optimizer::OptimizerSpec;
use crate::program::Program;
use crate::spec::ModelSpec;

/// Everything a backend may build from: the mathematics, and one lowering of it.
///
/// An independent oracle builds from `spec` and `objective` and never reads `program`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// Layers, widths, activations.
    pub spec: ModelSpec,
    /// What is minimised.
    pub objective: Objective,
    /// How parameters are updated.
    pub optimizer: OptimizerSpec,
    /// Where parameters live.
    pub params: ParamLayout,
    /// Forward and backward passes as ops.
    pub program: Program,
    /// Key of every random number that training draws.
    pub seed: u64,
    /// Any batch of `1..=max_rows` rows must work.
    pub max_rows: usize,
}

impl Plan {
    /// Validates and lowers a model, objective and optimiser.
    ///
    /// # Errors
    /// The first rule that one of them breaks.
    pub fn new(
        spec: ModelSpec,
        objective: Objective,
        optimizer: OptimizerSpec,
        seed: u64,
        max_rows: usize,
    ) -> Result<Self, SpecError> {
        spec.validate()?;
        objective.validate(&spec)?;
        optimizer.validate()?;
        if max_rows == 0 {
            return Err(SpecError::ZeroRows);
        }
        let params = ParamLayout::new(&spec, objective.latent.is_variational());
        let program = lower::lower(&spec, &objective, &params);
        debug_assert_eq!(program.verify(&params), Ok(()), "{program}");
        Ok(Self { spec, objective, optimizer, params, program, seed, max_rows })
    }
}
