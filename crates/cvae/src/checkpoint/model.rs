//! `model.safetensors`: the parameters under PyTorch's names.

use cvae_core::{ParamLayout, Plan, fold_linear, fold_spectral_norm};
use cvae_data::FittedScaling;
use safetensors::Dtype;

use super::error::CheckpointError;
use super::folder::RunFolder;
use super::tensors::{Elements, Tensor, TensorFile, write};
use crate::config::{Config, ConfigError};

/// Metadata entry with the configuration.
pub(super) const CONFIG: &str = "config";
/// Metadata entry with the feature scaling.
pub(super) const SCALING: &str = "scaling";

/// A trained model, apart from any backend.
#[derive(Clone, Debug)]
pub struct Model {
    /// What was trained, and how.
    pub config: Config,
    /// The lowered model, objective and optimiser.
    pub plan: Plan,
    /// How features were scaled.
    pub scaling: FittedScaling,
    /// The parameters in the plan's layout.
    pub params: Vec<f32>,
}

impl Model {
    /// The same function without what serves training alone: linear layers at the end of the encoder are multiplied
    /// into one ([`fold_linear`]), and weights divided by their largest singular value are stored so
    /// ([`fold_spectral_norm`]).
    ///
    /// # Errors
    /// A model whose parts do not fit together.
    pub fn folded(&self) -> Result<Self, ConfigError> {
        let variational = self.config.objective.latent.is_variational();
        let mut objective = self.config.objective.clone();
        let params = match std::mem::take(&mut objective.spectral_norm) {
            true => fold_spectral_norm(&self.plan.spec, variational, &self.params)?,
            false => self.params.clone(),
        };
        let (model, params) = fold_linear(&self.plan.spec, variational, &params)?;
        let config = Config { model, objective, ..self.config.clone() };
        Ok(Self { plan: config.plan()?, config, scaling: self.scaling.clone(), params })
    }
}

impl RunFolder {
    /// Reads and verifies `model.safetensors`.
    ///
    /// # Errors
    /// Anything wrong with the file, by name.
    pub fn read_model(&self) -> Result<Model, CheckpointError> {
        let mut file = TensorFile::open(&self.file(Self::MODEL))?;
        let (config, plan, scaling) = read_head(&file)?;
        file.expect(expected(&plan.params).iter().map(|(name, shape)| (name.as_str(), Dtype::F32, Some(*shape))))?;
        let params = read_params(&mut file, &plan.params, "")?;
        Ok(Model { config, plan, scaling, params })
    }

    /// Writes `model.safetensors`; `params` has the layout `layout`.
    ///
    /// # Errors
    /// A value that is not finite, or a file that cannot be written.
    pub fn write_model(
        &self,
        config: &Config,
        scaling: &FittedScaling,
        layout: &ParamLayout,
        params: &[f32],
    ) -> Result<(), CheckpointError> {
        let path = self.file(Self::MODEL);
        let tensors = tensors(layout, params, "");
        check_finite(&path, &tensors)?;
        write(&path, &head(config, scaling, &path)?, &tensors)
    }
}

/// The metadata that model and state share.
pub(super) fn head(
    config: &Config,
    scaling: &FittedScaling,
    path: &std::path::Path,
) -> Result<Vec<(&'static str, String)>, CheckpointError> {
    let scaling = serde_json::to_string(scaling).map_err(|source| CheckpointError::Metadata {
        path: path.to_path_buf(),
        key: SCALING,
        source,
    })?;
    Ok(vec![(CONFIG, config.to_toml()?), (SCALING, scaling)])
}

/// Reads the metadata that model and state share.
pub(super) fn read_head(file: &TensorFile) -> Result<(Config, Plan, FittedScaling), CheckpointError> {
    let path = || file.path().to_path_buf();
    let unusable = |source: ConfigError| CheckpointError::Config { path: path(), source };
    let config = Config::from_toml(file.text(CONFIG)?).map_err(unusable)?;
    let plan = config.plan().map_err(unusable)?;
    let scaling: FittedScaling = file.json(SCALING)?;
    let (expected, found) = (plan.spec.width(), scaling.width());
    match expected == found {
        true => Ok((config, plan, scaling)),
        false => Err(CheckpointError::ScalingWidth { path: path(), expected, found }),
    }
}

/// Names and shapes of the parameters.
fn expected(layout: &ParamLayout) -> Vec<(String, &[usize])> {
    layout.params().iter().map(|param| (param.name.clone(), param.shape.as_slice())).collect()
}

/// One tensor per parameter, its name behind `prefix`.
pub(super) fn tensors<'a>(layout: &ParamLayout, flat: &'a [f32], prefix: &str) -> Vec<Tensor<'a>> {
    let tensor = |param: &cvae_core::Param| Tensor {
        name: format!("{prefix}{}", param.name),
        shape: param.shape.clone(),
        elements: Elements::F32(&flat[param.range()]),
    };
    layout.params().iter().map(tensor).collect()
}

/// Reads what [`tensors`] wrote.
pub(super) fn read_params(
    file: &mut TensorFile,
    layout: &ParamLayout,
    prefix: &str,
) -> Result<Vec<f32>, CheckpointError> {
    let mut flat = vec![0.0; layout.len()];
    for param in layout.params() {
        file.read_f32(&format!("{prefix}{}", param.name), &mut flat[param.range()])?;
    }
    Ok(flat)
}

/// Refuses to write what reading would refuse.
pub(super) fn check_finite(path: &std::path::Path, tensors: &[Tensor<'_>]) -> Result<(), CheckpointError> {
    for Tensor { name, elements, .. } in tensors {
        let Elements::F32(values) = elements else { continue };
        if let Some(element) = values.iter().position(|value| !value.is_finite()) {
            return Err(CheckpointError::NonFinite { path: path.to_path_buf(), tensor: name.clone(), element });
        }
    }
    Ok(())
}
