//! Generated specifications: what no table thought of.

use cvae_core::{
    Activation, ColumnGroup, ColumnKind, Corruption, Entry, Jacobian, Latent, LayerSpec, ModelSpec, Objective,
    OptimizerSpec, Reconstruction, Shape, Shift,
};
use cvae_reference::ReferenceBackend;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::case::Case;
use crate::check::Check;
use crate::checks::{gradients, steps, values};
use crate::failure::{Failure, Score, Verdict};
use crate::sweep::{LATENT_TERMS, RECONSTRUCTIONS};
use crate::target::Target;

/// Checks, each over [`CASES`] specifications from a seed of its own.
const SEEDS: u8 = 8;
/// Specifications of one check.
const CASES: u64 = 6;

/// Adds `generated::*`.
pub(crate) fn add(all: &mut Vec<Check>) {
    for seed in 0..SEEDS {
        all.push(Check::new(format!("generated::models::seed{seed}"), move |target| models(target, seed)));
    }
}

/// Parts of an objective beyond reconstruction, latent term and regulariser.
type Parts = (Corruption, Jacobian, bool, bool, Option<usize>, Option<f64>, Option<ColumnKind>);

fn parts() -> impl Strategy<Value = Parts> {
    let corruptions = vec![
        Corruption::None,
        Corruption::Gaussian { std: 0.4 },
        Corruption::Masking { share: 0.3 },
        Corruption::Permutation { share: 0.3 },
        Corruption::Shift { share: 0.6, shift: Shift { distance: 2, width: 1, channels: 1 } },
        Corruption::Masked { share: 0.6, patch: None },
    ];
    let jacobians =
        vec![Jacobian::None, Jacobian::GradientPenalty { weight: 0.2 }, Jacobian::Contractive { weight: 0.2 }];
    let kinds = vec![ColumnKind::Numeric, ColumnKind::Binary, ColumnKind::Categorical];
    (
        prop::sample::select(corruptions),
        prop::sample::select(jacobians),
        any::<bool>(),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.3, 1usize..9),
        prop::option::weighted(0.3, Just(1e-2)),
        prop::option::weighted(0.3, prop::sample::select(kinds)),
    )
}

/// Every latent term that is generated.
fn latents() -> Vec<Latent> {
    let bounded = [Latent::Capacity { gamma: 0.5, capacity: 2.0 }, Latent::FreeBits { beta: 0.5, floor: 0.1 }];
    let further = [Latent::Sparse { weight: 0.2 }, Latent::Mmd { weight: 1.0 }];
    LATENT_TERMS.into_iter().chain(bounded).chain(further).collect()
}

/// Layers of different widths and activations, anything at the ends, any objective, any number of rows.
fn strategy() -> impl Strategy<Value = (ModelSpec, Objective, usize)> {
    let layer = || (1..40usize, prop::sample::select(Activation::ALL.to_vec()));
    let stack = || prop::collection::vec(layer(), 0..3);
    let objective = (
        prop::sample::select(RECONSTRUCTIONS.to_vec()),
        prop::sample::select(latents()),
        prop::sample::select(vec![0.0, 0.1]),
        parts(),
    );
    (1..50usize, stack(), layer(), stack(), prop::sample::select(Activation::ALL.to_vec()), objective, 1..40usize)
        .prop_map(|(width, encoder, code, decoder, output, (reconstruction, latent, decoder_l2, parts), rows)| {
            let (corruption, jacobian, missing, spectral, top_k, sigma_floor, kind) = parts;
            let columns = match kind {
                // A group of the chosen kind, and the other columns numeric.
                Some(kind) if reconstruction != Reconstruction::Bce => {
                    let groups = [(kind, width.div_ceil(2)), (ColumnKind::Numeric, width / 2)];
                    let groups = groups.into_iter().filter(|(_, width)| *width > 0);
                    groups.map(|(kind, width)| ColumnGroup::new(kind, width)).collect()
                }
                _ => vec![],
            };
            let output = match reconstruction {
                Reconstruction::Bce => Activation::Sigmoid,
                _ if !columns.is_empty() => Activation::Identity,
                _ => output,
            };
            let dense = |(units, activation)| LayerSpec::Dense { units, activation };
            let objective = Objective {
                reconstruction,
                latent,
                decoder_l2,
                sigma_floor: sigma_floor.filter(|_| reconstruction == Reconstruction::MseSum && columns.is_empty()),
                missing,
                top_k: top_k.filter(|k| *k <= code.0 && !latent.is_variational()),
                corruption,
                jacobian,
                spectral_norm: spectral && !matches!(jacobian, Jacobian::GradientPenalty { .. }),
                columns,
            };
            let spec = ModelSpec {
                input: Shape::flat(width),
                encoder: encoder.into_iter().chain([code]).map(dense).collect(),
                decoder: decoder.into_iter().chain([(width, output)]).map(dense).collect(),
            };
            (spec, objective, rows)
        })
}

/// Values, losses, gradients and one step of generated models against the reference.
fn models(target: &Target<'_>, seed: u8) -> Verdict {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut worst = Score::EXACT;
    for index in 0..CASES {
        let tree = strategy().new_tree(&mut runner).map_err(|reason| Failure::Expectation {
            expected: "a generated specification".to_owned(),
            found: reason.to_string(),
        })?;
        let (spec, objective, rows) = tree.current();
        let described = format!("{rows} rows of {spec:?} under {objective:?}");
        let result = model(target, spec, objective, rows, u64::from(seed) * CASES + index);
        let score = result.map_err(|failure| Failure::Expectation { expected: described, found: failure.chain() })?;
        worst = worst.worse(score);
    }
    Ok(worst)
}

fn model(target: &Target<'_>, spec: ModelSpec, objective: Objective, rows: usize, seed: u64) -> Verdict {
    let optimizer = OptimizerSpec { clip_norm: Some(1.0), ..OptimizerSpec::adamw(1e-2, 0.1) };
    let case = Case::new("generated", spec, objective, optimizer, rows, 300 + seed)?;
    let mut worst = values::loss(target, &case)?.worse(gradients::gradients(target, &case)?);
    for entry in Entry::ALL {
        worst = worst.worse(values::infer(target, &case, entry)?);
    }
    let start = case.start()?;
    let (mut probe, mut reference) = (case.probe(target.backend)?, case.probe(&ReferenceBackend)?);
    for probe in [&mut probe, &mut reference] {
        probe.start(&start)?;
        probe.train_step(&case.batch())?;
    }
    let (found, expected) = (probe.snapshot()?, reference.snapshot()?);
    Ok(worst.worse(steps::compare(target, &case, &found, &expected)?))
}
