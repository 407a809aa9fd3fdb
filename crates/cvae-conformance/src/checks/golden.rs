//! Rung 3: fixtures made by PyTorch's autograd and optimisers in double precision.
//!
//! `benches/peers/golden.py` writes them and describes their contents; their metadata names its versions.

use std::sync::{Arc, OnceLock};

use cvae_core::{Batch, BatchRows, Entry, ModelSpec, Noise, Objective, OptimizerSpec, Plan, Stream};
use safetensors::{Dtype, SafeTensors};

use crate::case::reduction;
use crate::check::Check;
use crate::compare::{Measure, identical};
use crate::failure::{Failure, Verdict, expect};
use crate::probe::Probe;
use crate::target::Target;

/// Names and bytes of the fixtures.
macro_rules! fixtures {
    ($($name:literal)*) => {
        [$(($name, include_bytes!(concat!("../../fixtures/", $name, ".safetensors")).as_slice()),)*]
    };
}

const FIXTURES: [(&str, &[u8]); 54] = fixtures![
    "activation_elu" "activation_gelu" "activation_identity" "activation_leaky_relu" "activation_relu"
    "activation_sigmoid" "activation_silu" "activation_tanh" "bce_collapsed" "bce_none" "bce_variational"
    "family_capacity" "family_columns" "family_columns_missing" "family_columns_permutation" "family_contractive"
    "family_contractive_estimated" "family_contractive_top_k" "family_free_bits" "family_gaussian"
    "family_gradient_penalty" "family_gradient_penalty_logits" "family_learnt_variance"
    "family_learnt_variance_missing" "family_linear_code" "family_masked" "family_masked_patches" "family_masking"
    "family_missing" "family_missing_permutation" "family_mmd" "family_permutation" "family_shift" "family_sparse" "family_top_k"
    "huber_collapsed" "huber_none" "huber_variational" "l1_collapsed" "l1_none" "l1_variational" "logvar_clamped"
    "mse_mean_collapsed" "mse_mean_none" "mse_mean_variational" "mse_sum_collapsed" "mse_sum_none"
    "mse_sum_variational" "shape_deep_ragged" "shape_no_hidden" "shape_no_hidden_variational" "shape_row1_latent1"
    "shape_wide_code" "shape_width17"
];

/// Optimisers that every fixture has results of.
const OPTIMIZERS: [&str; 5] = ["adam", "adam_clipped", "adamw", "sgd", "sgd_clipped"];

/// Steps that the fixtures take.
const STEPS: u32 = 3;

/// How much the errors of the first step may grow over the others, which start from a state that differs.
const FREE_RUNNING: f64 = 4.0;

/// Adds `golden::*`.
pub(crate) fn add(all: &mut Vec<Check>) {
    for (name, bytes) in FIXTURES {
        all.push(Check::new(format!("golden::passes::{name}"), move |target| passes(target, fixture(name, bytes)?)));
        for optimizer in OPTIMIZERS {
            all.push(Check::new(format!("golden::{optimizer}::{name}"), move |target| {
                steps(target, fixture(name, bytes)?, optimizer)
            }));
        }
    }
}

/// A parsed fixture.
struct Fixture {
    name: &'static str,
    tensors: SafeTensors<'static>,
    plan: Plan,
    optimizers: serde_json::Map<String, serde_json::Value>,
    rows: Vec<f32>,
    params: Vec<f32>,
}

/// Every fixture, parsed once.
fn fixture(name: &'static str, bytes: &'static [u8]) -> Result<Arc<Fixture>, Failure> {
    static PARSED: [OnceLock<Result<Arc<Fixture>, String>>; FIXTURES.len()] =
        [const { OnceLock::new() }; FIXTURES.len()];
    let index = FIXTURES.iter().position(|(known, _)| *known == name).unwrap_or(0);
    let parsed = PARSED[index].get_or_init(|| Fixture::parse(name, bytes).map(Arc::new));
    parsed.clone().map_err(|problem| Failure::Fixture { name: name.to_owned(), problem })
}

impl Fixture {
    fn parse(name: &'static str, bytes: &'static [u8]) -> Result<Self, String> {
        let problem = |error: &dyn std::error::Error| error.to_string();
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| problem(&error))?;
        let metadata = metadata.metadata().clone().ok_or("has no metadata")?;
        let field = |key: &str| metadata.get(key).ok_or_else(|| format!("has no `{key}`"));
        let spec: ModelSpec = serde_json::from_str(field("spec")?).map_err(|error| problem(&error))?;
        let objective: Objective = serde_json::from_str(field("objective")?).map_err(|error| problem(&error))?;
        let optimizers = serde_json::from_str(field("optimizers")?).map_err(|error| problem(&error))?;
        let seed: u64 = field("seed")?.parse().map_err(|error| problem(&error))?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| problem(&error))?;
        let rows = narrow(&read(&tensors, "rows")?);
        let count = rows.len() / spec.width().max(1);
        let plan =
            Plan::new(spec, objective, OptimizerSpec::default(), seed, count).map_err(|error| problem(&error))?;
        let params = narrow(&read_params(&tensors, "params", &plan)?);
        Ok(Self { name, tensors, plan, optimizers, rows, params })
    }

    fn count(&self) -> usize {
        self.rows.len() / self.plan.spec.width()
    }

    fn tensor(&self, name: &str) -> Result<Vec<f64>, Failure> {
        read(&self.tensors, name).map_err(|problem| self.failure(problem))
    }

    /// The tensors `prefix/NAME` in the order of the layout.
    fn flat(&self, prefix: &str) -> Result<Vec<f64>, Failure> {
        read_params(&self.tensors, prefix, &self.plan).map_err(|problem| self.failure(problem))
    }

    fn failure(&self, problem: String) -> Failure {
        Failure::Fixture { name: self.name.to_owned(), problem }
    }

    fn batch(&self, epoch: u32) -> Batch<'_> {
        Batch { rows: BatchRows::Host { values: &self.rows, first_row: 0 }, epoch }
    }

    /// The plan with one of the fixture's optimisers.
    fn plan_with(&self, optimizer: &str) -> Result<Arc<Plan>, Failure> {
        let value = self.optimizers.get(optimizer).cloned().unwrap_or_default();
        let optimizer: OptimizerSpec =
            serde_json::from_value(value).map_err(|error| self.failure(error.to_string()))?;
        let plan = &self.plan;
        Ok(Arc::new(Plan::new(plan.spec.clone(), plan.objective.clone(), optimizer, plan.seed, plan.max_rows)?))
    }

    fn measure(&self, target: &Target<'_>) -> Measure {
        Measure { epsilon: target.epsilon, reduction: reduction(&self.plan, self.count()) }
    }
}

/// Values, losses and gradients at the initial parameters.
fn passes(target: &Target<'_>, fixture: Arc<Fixture>) -> Verdict {
    let measure = fixture.measure(target);
    let mut worst = noise(&fixture)?;
    let plan = fixture.plan_with("adam")?;
    let mut probe = Probe::with_params(target.backend, &plan, &fixture.params)?;
    let code = probe.infer(Entry::Encode, &fixture.rows)?;
    worst = worst.worse(measure.whole("the code", &code, &fixture.tensor("code")?)?);
    let output = probe.infer(Entry::Reconstruct, &fixture.rows)?;
    worst = worst.worse(measure.whole("the reconstruction", &output, &fixture.tensor("reconstruction")?)?);
    let gradients = probe.gradients(&fixture.batch(0))?;
    let losses = probe.losses()?.last;
    worst = worst.worse(measure.whole("the losses", &losses, &fixture.tensor("losses")?)?);
    let expected = fixture.flat("grads")?;
    Ok(worst.worse(measure.params("the gradient of", &plan.params, &gradients, &expected)?))
}

/// Three steps of an optimiser from zero moments.
fn steps(target: &Target<'_>, fixture: Arc<Fixture>, optimizer: &str) -> Verdict {
    let measure = fixture.measure(target);
    let measure = Measure { epsilon: FREE_RUNNING * measure.epsilon, ..measure };
    let plan = fixture.plan_with(optimizer)?;
    let mut probe = Probe::with_params(target.backend, &plan, &fixture.params)?;
    for epoch in 0..STEPS {
        probe.train_step(&fixture.batch(epoch))?;
    }
    let found = probe.snapshot()?;
    expect(found.step == u64::from(STEPS), "three steps done", || found.step.to_string())?;
    let compare = |what: &str, part: &str, values: &[f64]| {
        measure.params(what, &plan.params, values, &fixture.flat(&format!("{optimizer}/{part}"))?)
    };
    let params = compare("the parameters of", "params", &found.params)?;
    let first = compare("the first moment of", "moment1", &found.moment1)?;
    let second = compare("the second moment of", "moment2", &found.moment2)?;
    Ok(params.worse(first).worse(second))
}

/// The fixture's noise, from another implementation of the generator, is ours bit for bit.
fn noise(fixture: &Fixture) -> Verdict {
    if fixture.plan.objective.latent.is_variational() {
        let latent = fixture.plan.spec.latent();
        let mut ours = vec![0.0f32; STEPS as usize * fixture.count() * latent];
        for (index, row) in ours.chunks_exact_mut(latent).enumerate() {
            let (epoch, row_index) = (index / fixture.count(), index % fixture.count());
            Noise::new(fixture.plan.seed, Stream::Reparameterize, epoch as u32).normal(row_index as u32, row);
        }
        let ours: Vec<f64> = ours.into_iter().map(f64::from).collect();
        identical("the noise", &ours, &fixture.tensor("noise")?)?;
    }
    Ok(crate::failure::Score::EXACT)
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

fn read(tensors: &SafeTensors<'_>, name: &str) -> Result<Vec<f64>, String> {
    let view = tensors.tensor(name).map_err(|error| format!("{name}: {error}"))?;
    if view.dtype() != Dtype::F64 {
        return Err(format!("{name} is {:?}, not F64", view.dtype()));
    }
    let (chunks, _) = view.data().as_chunks::<8>();
    Ok(chunks.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
}

fn read_params(tensors: &SafeTensors<'_>, prefix: &str, plan: &Plan) -> Result<Vec<f64>, String> {
    let mut flat = Vec::with_capacity(plan.params.len());
    for param in plan.params.params() {
        let name = format!("{prefix}/{}", param.name);
        let values = read(tensors, &name)?;
        if values.len() != param.size() {
            return Err(format!("{name} has {} elements, expected {}", values.len(), param.size()));
        }
        flat.extend(values);
    }
    Ok(flat)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_committed_fixture_is_listed_and_readable() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|name| name.strip_suffix(".safetensors").map(str::to_owned))
            .collect();
        files.sort_unstable();
        let listed: Vec<&str> = FIXTURES.iter().map(|(name, _)| *name).collect();
        assert_eq!(files, listed);
        for (name, bytes) in FIXTURES {
            let fixture = fixture(name, bytes).unwrap();
            for optimizer in OPTIMIZERS {
                fixture.plan_with(optimizer).unwrap();
            }
            assert_eq!(fixture.optimizers.len(), OPTIMIZERS.len(), "{name} has other optimisers");
        }
    }
}
