//! The objective family: terms that work on whole rows, whole batches or derivatives, and what the encoder reads.

use std::sync::OnceLock;

use cvae_core::{
    Activation, ColumnGroup, ColumnKind, Corruption, Jacobian, Latent, Objective, OptimizerSpec, Patch, Reconstruction,
    Shift, SpecError,
};

use crate::case::{Case, mlp};

/// Width of a row.
pub(crate) const WIDTH: usize = 12;

/// Square layers at the end of the encoder of `linear_code`.
const LINEAR_LAYERS: usize = 2;

/// Shapes that every objective is tried on: rows of the batch, latent width, hidden layers of each part.
const SHAPES: [(usize, usize, usize); 4] = [(1, 3, 1), (9, 5, 2), (6, 17, 1), (2, 1, 0)];

/// Groups of columns of every kind.
pub(crate) fn columns() -> Vec<ColumnGroup> {
    vec![
        ColumnGroup { weight: 2.0, ..ColumnGroup::new(ColumnKind::Numeric, 3) },
        ColumnGroup { weight: 0.5, ..ColumnGroup::new(ColumnKind::Categorical, 5) },
        ColumnGroup::new(ColumnKind::Binary, 4),
    ]
}

/// Every objective of the family by name, for rows of [`WIDTH`] values.
pub(crate) fn objectives() -> Vec<(&'static str, Objective)> {
    let collapsed = Objective::collapsed(0.05, 0.01);
    let corrupted = |corruption| Objective { corruption, ..collapsed.clone() };
    let missing = |objective| Objective { missing: true, ..objective };
    let latent = |latent| Objective { latent, ..Objective::ae() };
    let gaussian = Corruption::Gaussian { std: 0.3 };
    let permutation = Corruption::Permutation { share: 0.4 };
    let masked = Corruption::Masked { share: 0.5, patch: None };
    let patches = Corruption::Masked { share: 0.5, patch: Some(Patch { size: 2, width: 4, channels: 1 }) };
    let shift = Corruption::Shift { share: 0.6, shift: Shift { distance: 1, width: 4, channels: 1 } };
    let penalty = Jacobian::GradientPenalty { weight: 0.3 };
    let contractive = Jacobian::Contractive { weight: 0.3 };
    let learnt = Objective { sigma_floor: Some(1e-3), ..collapsed.clone() };
    let mixed = Objective { columns: columns(), ..collapsed.clone() };
    let logits = Objective { reconstruction: Reconstruction::Bce, ..collapsed.clone() };
    vec![
        ("gaussian", corrupted(gaussian)),
        ("masking", corrupted(Corruption::Masking { share: 0.4 })),
        ("permutation", corrupted(permutation)),
        ("masked_columns", corrupted(masked)),
        ("masked_patches", corrupted(patches)),
        ("missing", missing(collapsed.clone())),
        ("missing_gaussian", missing(corrupted(gaussian))),
        ("missing_permutation", missing(corrupted(permutation))),
        ("missing_masked", missing(corrupted(masked))),
        ("top_k", Objective { top_k: Some(2), ..collapsed.clone() }),
        ("top_k_sparse", Objective { top_k: Some(2), ..Objective::sparse(0.2) }),
        ("learnt_variance", learnt.clone()),
        ("learnt_variance_missing", missing(learnt)),
        ("sparse", Objective::sparse(0.2)),
        ("capacity_below", latent(Latent::Capacity { gamma: 2.0, capacity: 20.0 })),
        ("capacity_above", latent(Latent::Capacity { gamma: 2.0, capacity: 1e-3 })),
        ("free_bits", latent(Latent::FreeBits { beta: 0.7, floor: 0.05 })),
        ("mmd", Objective::wae_mmd(3.0)),
        ("gradient_penalty", Objective { jacobian: penalty, ..collapsed.clone() }),
        ("gradient_penalty_logits", Objective { jacobian: penalty, ..logits }),
        ("gradient_penalty_sampled", Objective { jacobian: penalty, ..Objective::vae(0.3) }),
        ("contractive", Objective { jacobian: contractive, ..Objective::ae() }),
        ("contractive_sampled", Objective { jacobian: contractive, ..Objective::vae(0.3) }),
        ("contractive_top_k", Objective { jacobian: contractive, top_k: Some(2), ..corrupted(gaussian) }),
        ("spectral_norm", Objective { spectral_norm: true, ..collapsed.clone() }),
        ("mixed", mixed.clone()),
        ("mixed_missing", missing(mixed.clone())),
        ("mixed_permutation", Objective { corruption: permutation, ..mixed.clone() }),
        ("mixed_l1", Objective { reconstruction: Reconstruction::L1, jacobian: penalty, ..mixed }),
        ("linear_code", Objective { jacobian: contractive, ..collapsed.clone() }),
        // A member's place chooses its numbers: later ones go here.
        ("shift", corrupted(shift)),
        ("missing_shift", missing(corrupted(shift))),
    ]
}

/// A case of the family, with the name of its objective.
pub(crate) struct Member {
    pub(crate) objective: &'static str,
    pub(crate) case: Case,
}

/// Every objective on every shape, built once.
pub(crate) fn members() -> &'static [Member] {
    static MEMBERS: OnceLock<Vec<Member>> = OnceLock::new();
    MEMBERS.get_or_init(|| {
        let named = objectives().into_iter().enumerate();
        let pairs = named.flat_map(|(index, (name, objective))| {
            SHAPES.into_iter().enumerate().map(move |(shape, _)| (index + shape, shape, name, objective.clone()))
        });
        pairs.filter_map(|(seed, shape, name, objective)| member(seed, shape, name, objective).ok()).collect()
    })
}

/// `objective` on the shape `shape`; `seed` also chooses the activation.
fn member(seed: usize, shape: usize, name: &'static str, mut objective: Objective) -> Result<Member, SpecError> {
    const ACTIVATIONS: [Activation; 5] =
        [Activation::Tanh, Activation::Silu, Activation::Elu, Activation::Gelu, Activation::Sigmoid];
    let (rows, latent, depth) = SHAPES[shape];
    let activation = ACTIVATIONS[seed % ACTIVATIONS.len()];
    objective.top_k = objective.top_k.map(|k| k.min(latent));
    let output = match objective.reconstruction {
        Reconstruction::Bce => Activation::Sigmoid,
        _ if !objective.columns.is_empty() => Activation::Identity,
        _ if shape == 1 => Activation::Tanh,
        _ => Activation::Identity,
    };
    let mut spec = mlp([WIDTH, 9, latent, 10], depth, activation, output)?;
    if name == "linear_code" {
        spec = spec.with_linear_code(LINEAR_LAYERS)?;
    }
    let case_name = format!("rows{rows}_latent{latent}_{depth}x9_{activation}");
    let case = Case::new(case_name, spec, objective, OptimizerSpec::default(), rows, 400 + seed as u64)?;
    Ok(Member { objective: name, case })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_objective_has_every_shape() {
        assert_eq!(members().len(), objectives().len() * SHAPES.len());
    }

    /// Every kind of every part of an objective occurs.
    #[test]
    fn the_family_is_complete() {
        let objectives = objectives();
        let has = |test: &dyn Fn(&Objective) -> bool| objectives.iter().any(|(_, objective)| test(objective));
        assert!(has(&|objective| objective.spectral_norm), "spectral_norm");
        for name in ["gaussian", "masking", "permutation", "shift", "masked"] {
            assert!(has(&|objective| objective.corruption.name() == name), "{name}");
        }
        for name in ["capacity", "free_bits", "sparse", "mmd"] {
            assert!(has(&|objective| objective.latent.name() == name), "{name}");
        }
        for name in ["gradient_penalty", "contractive"] {
            assert!(has(&|objective| objective.jacobian.name() == name), "{name}");
        }
        assert!(has(&|objective| objective.sigma_floor.is_some()) && has(&|objective| objective.top_k.is_some()));
    }
}
