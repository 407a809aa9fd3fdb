//! Rung 0 for gradients: the sweep, and every activation and term alone, against the reference.

use std::sync::{Arc, OnceLock};

use cvae_core::{Activation, Entry, Latent, Objective, OptimizerSpec, Reconstruction, SpecError};

use crate::case::{Case, mlp, with_code_activation};
use crate::check::Check;
use crate::checks::values;
use crate::failure::{Failure, Verdict, expect};
use crate::probe::Probe;
use crate::sweep::{self, DECODER_L2, LATENT_TERMS, RECONSTRUCTIONS};
use crate::target::Target;

/// Adds `grad::*`, `activation::*` and `term::*`.
pub(crate) fn add(all: &mut Vec<Check>) {
    for case in sweep::cases() {
        let name = format!("grad::{}::{}", sweep::latent_name(case.plan.objective.latent), case.name);
        all.push(Check::new(name, move |target| gradients(target, case)));
    }
    for case in activation_cases() {
        let name = format!("activation::{}", case.name);
        all.push(Check::new(name, move |target| {
            let values = values::infer(target, case, Entry::Reconstruct)?;
            Ok(values.worse(gradients(target, case)?))
        }));
    }
    for case in term_cases() {
        let name = format!("term::{}", case.name);
        all.push(Check::new(name, move |target| Ok(values::loss(target, case)?.worse(gradients(target, case)?))));
    }
    all.push(Check::new("grad::clamp::log_variance_beyond_its_bounds", clamp));
    for kind in [Reconstruction::MseSum, Reconstruction::L1] {
        all.push(Check::new(format!("grad::kink::relu_{}", kind.name()), move |target| kink(target, kind)));
    }
}

/// `gradients` equals the reference's, updates nothing, and reads the same in both precisions.
pub(crate) fn gradients(target: &Target<'_>, case: &Case) -> Verdict {
    let expected = &case.expected()?.gradients;
    let mut probe = case.probe(target.backend)?;
    let before = probe.snapshot()?;
    let found = probe.gradients(&case.batch())?;
    expect(probe.snapshot()? == before, "`gradients` to update nothing", || "a changed state".to_owned())?;
    let narrow = probe.read_f32(cvae_core::State::Grads)?;
    let same = narrow.iter().zip(&found).all(|(narrow, wide)| (*wide as f32).to_bits() == narrow.to_bits());
    expect(same, "`read` to be `read_f64` rounded", || "other numbers".to_owned())?;
    case.measure(target).params("the gradient of", &case.plan.params, &found, expected)
}

/// Each activation inside, on the code and on the output: 8 functions, rows that fill and do not fill a vector.
pub(crate) fn activation_cases() -> &'static [Case] {
    static CASES: OnceLock<Vec<Case>> = OnceLock::new();
    CASES.get_or_init(|| {
        let make = |activation: Activation, rows: usize| -> Result<Case, SpecError> {
            let spec = mlp([19, 21, 5, 18], 2, activation, activation)?;
            let spec = with_code_activation(spec, activation);
            let objective = Objective { decoder_l2: 0.02, ..Objective::ae() };
            let name = format!("{activation}::rows{rows}");
            Case::new(name, spec, objective, OptimizerSpec::default(), rows, 100 + rows as u64)
        };
        let pairs = Activation::ALL.into_iter().flat_map(|activation| [1, 8, 13].map(|rows| (activation, rows)));
        pairs.filter_map(|(activation, rows)| make(activation, rows).ok()).collect()
    })
}

/// Each combination of reconstruction, latent term and regulariser on one small smooth model. Square layers,
/// so that a transposed matrix has the right shape.
pub(crate) fn term_cases() -> &'static [Case] {
    static CASES: OnceLock<Vec<Case>> = OnceLock::new();
    CASES.get_or_init(|| {
        let make = |reconstruction: Reconstruction, latent: Latent, decoder_l2: f64| -> Result<Case, SpecError> {
            let output = match reconstruction {
                Reconstruction::Bce => Activation::Sigmoid,
                _ => Activation::Identity,
            };
            let spec = mlp([9, 9, 4, 9], 2, Activation::Tanh, output)?;
            let l2 = if decoder_l2 > 0.0 { "_l2" } else { "" };
            let name = format!("{}::{}{l2}_rows6", reconstruction.name(), sweep::latent_name(latent));
            let objective = Objective { reconstruction, latent, decoder_l2, ..Objective::ae() };
            Case::new(name, spec, objective, OptimizerSpec::default(), 6, 200)
        };
        let mut cases = Vec::new();
        for reconstruction in RECONSTRUCTIONS {
            for latent in LATENT_TERMS {
                cases.extend(DECODER_L2.iter().filter_map(|l2| make(reconstruction, latent, *l2).ok()));
            }
        }
        cases
    })
}

/// A log-variance beyond its bounds is clamped in the divergence and in sampling, and receives no gradient.
fn clamp(target: &Target<'_>) -> Verdict {
    let spec = mlp([6, 5, 4, 5], 1, Activation::Tanh, Activation::Identity)?;
    let objective = Objective { decoder_l2: 0.0, ..Objective::vae(1e-3) };
    let mut case = Case::new("clamp", spec, objective, OptimizerSpec::default(), 9, 31)?;
    let layout = case.plan.params.clone();
    let bias = layout.find("logvar.bias").map_or(0..0, |(_, param)| param.range());
    // Latent dimensions: far below, far above, and two inside.
    case.params[bias.clone()].copy_from_slice(&[-45.0, 27.0, -1.0, 0.5]);
    let score = gradients(target, &case)?;
    let mut probe = case.probe(target.backend)?;
    let found = probe.gradients(&case.batch())?;
    let slopes = &found[bias];
    expect(
        slopes[0] == 0.0 && slopes[1] == 0.0 && slopes[2] != 0.0 && slopes[3] != 0.0,
        "no gradient beyond the bounds and some inside",
        || format!("{slopes:?}"),
    )?;
    Ok(score.worse(values::loss(target, &case)?))
}

/// At an exact kink the slope is that of the definition: 0 for relu at 0 and for an absolute error of 0.
fn kink(target: &Target<'_>, reconstruction: Reconstruction) -> Verdict {
    let spec = mlp([5, 4, 2, 4], 1, Activation::Relu, Activation::Identity)?;
    let objective = Objective { reconstruction, ..Objective::ae() };
    let mut case = Case::new("kink", spec, objective, OptimizerSpec::default(), 3, 41)?;
    // Rows of zeros under zero biases: every pre-activation and every error is exactly 0.
    case.rows.fill(0.0);
    for param in case.plan.params.params().iter().filter(|param| param.shape.len() == 1) {
        case.params[param.range()].fill(0.0);
    }
    let decoder_bias = case.plan.params.find("decoder.0.bias").map_or(0..0, |(_, param)| param.range());
    if reconstruction == Reconstruction::MseSum {
        // An error that is not 0, so that a gradient reaches the relus.
        let last = case.plan.params.find("decoder.2.bias").map_or(0..0, |(_, param)| param.range());
        case.params[last].fill(1.0);
    }
    let score = gradients(target, &case)?;
    let mut probe: Probe = case.probe(target.backend)?;
    let found = probe.gradients(&case.batch())?;
    expect(found[decoder_bias.clone()].iter().all(|g| *g == 0.0), "a slope of 0 at the kink", || {
        format!("{:?}", &found[decoder_bias])
    })?;
    Ok(score)
}

/// A case shared by checks of other modules: variational, regularised, with square layers.
pub(crate) fn shared_case() -> Result<Arc<Case>, Failure> {
    static CASE: OnceLock<Option<Arc<Case>>> = OnceLock::new();
    let case = CASE.get_or_init(|| {
        let spec = mlp([17, 17, 5, 17], 2, Activation::Tanh, Activation::Sigmoid).ok()?;
        let objective = Objective { reconstruction: Reconstruction::Bce, decoder_l2: 0.05, ..Objective::vae(0.3) };
        let case = Case::new("shared", spec, objective, OptimizerSpec::adam(1e-2), 11, 7).ok()?;
        Some(Arc::new(case))
    });
    case.clone().ok_or_else(|| Failure::Expectation {
        expected: "a valid shared case".to_owned(),
        found: "a specification that core rejects".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_activation_and_combination_has_its_cases() {
        assert_eq!(activation_cases().len(), 3 * Activation::ALL.len());
        assert_eq!(term_cases().len(), RECONSTRUCTIONS.len() * LATENT_TERMS.len() * DECODER_L2.len());
        assert!(shared_case().is_ok());
    }
}
