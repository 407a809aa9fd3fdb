//! `state.safetensors`: all that training needs to go on exactly where it stopped.

use cvae_core::ParamLayout;
use cvae_data::FittedScaling;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::error::CheckpointError;
use super::folder::RunFolder;
use super::model::{check_finite, head, read_head, read_params, tensors};
use super::tensors::{Elements, Tensor, TensorFile, write};
use crate::config::Config;
use crate::density::Density;
use crate::train::EpochRecord;

/// Metadata entry with the scalars of training.
const PROGRESS: &str = "progress";
/// Tensor with the lines of `metrics.jsonl`.
const METRICS: &str = "metrics";
/// Tensor with the densities of the codes, in JSON.
const DENSITIES: &str = "densities";
/// Prefixes of the tensors that hold one value per parameter.
const PARAMS: &str = "params.";
const MOMENT1: &str = "moment1.";
const MOMENT2: &str = "moment2.";
const BEST: &str = "best.";

/// The state of training after a whole number of epochs.
///
/// Every random number of later epochs is a function of the seed, the epoch and the row, so that the number
/// of epochs is the position of the random numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingState {
    /// Optimiser steps done.
    pub step: u64,
    /// Parameters.
    pub params: Vec<f32>,
    /// The optimiser's first moment.
    pub moment1: Vec<f32>,
    /// The optimiser's second moment.
    pub moment2: Vec<f32>,
    /// The best epoch so far, when training watches a validation loss.
    pub best: Option<Best>,
    /// One record for each finished epoch.
    pub history: Vec<EpochRecord>,
    /// Digest of the data trained on.
    pub data: String,
    /// The backend that trained last.
    pub backend: String,
}

/// The epoch with the lowest validation loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Best {
    /// Number of the epoch, from 1.
    pub epoch: u32,
    /// Its validation loss.
    pub loss: f64,
    /// Parameters after it.
    pub params: Vec<f32>,
}

impl TrainingState {
    /// Epochs finished.
    pub fn epoch(&self) -> u32 {
        self.history.len() as u32
    }
}

/// What `state.safetensors` holds.
#[derive(Clone, Debug)]
pub struct StateFile {
    /// The configuration of the run.
    pub config: Config,
    /// How features are scaled.
    pub scaling: FittedScaling,
    /// The state of training; absent when a model was saved without it.
    pub training: Option<TrainingState>,
    /// Densities fitted to the codes of the training rows.
    pub densities: Vec<Density>,
}

/// The scalars of [`TrainingState`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    step: u64,
    epoch: u32,
    best_epoch: Option<u32>,
    best_loss: Option<f64>,
    data: String,
    backend: String,
}

impl RunFolder {
    /// Reads and verifies `state.safetensors`.
    ///
    /// # Errors
    /// Anything wrong with the file, by name.
    pub fn read_state(&self) -> Result<StateFile, CheckpointError> {
        let mut file = TensorFile::open(&self.file(Self::STATE))?;
        let (config, plan, scaling) = read_head(&file)?;
        let progress: Option<Progress> = file.json(PROGRESS)?;
        let prefixes: &[&str] = match &progress {
            None => &[],
            Some(Progress { best_epoch: None, .. }) => &[PARAMS, MOMENT1, MOMENT2],
            Some(_) => &[PARAMS, MOMENT1, MOMENT2, BEST],
        };
        let names: Vec<(String, &[usize])> = prefixes
            .iter()
            .flat_map(|prefix| plan.params.params().iter().map(move |p| (format!("{prefix}{}", p.name), &p.shape[..])))
            .collect();
        let floats = names.iter().map(|(name, shape)| (name.as_str(), Dtype::F32, Some(*shape)));
        let metrics = progress.is_some().then_some((METRICS, Dtype::U8, None));
        let bytes = metrics.into_iter().chain([(DENSITIES, Dtype::U8, None)]);
        file.expect(floats.chain(bytes))?;
        let training = match progress {
            None => None,
            Some(progress) => Some(read_training(&mut file, &plan.params, progress)?),
        };
        let densities = read_densities(&mut file, plan.spec.latent())?;
        Ok(StateFile { config, scaling, training, densities })
    }

    /// Reads the densities of `state.safetensors` alone; none when there is no such file. `latent` is the
    /// latent size of the model.
    ///
    /// # Errors
    /// Anything wrong with the header or the densities, by name.
    pub fn read_densities(&self, latent: usize) -> Result<Vec<Density>, CheckpointError> {
        let path = self.file(Self::STATE);
        match path.exists() {
            true => read_densities(&mut TensorFile::open(&path)?, latent),
            false => Ok(vec![]),
        }
    }

    /// Replaces the densities of `state.safetensors`; nothing else in it changes.
    ///
    /// # Errors
    /// As [`RunFolder::read_state`] and [`RunFolder::write_state`].
    pub fn write_densities(&self, densities: &[Density]) -> Result<(), CheckpointError> {
        let state = self.read_state()?;
        let unusable = |source| CheckpointError::Config { path: self.file(Self::STATE), source };
        let layout = state.config.plan().map_err(unusable)?.params;
        self.write_state(&StateFile { densities: densities.to_vec(), ..state }, &layout)
    }

    /// Writes `state.safetensors`; the parameters have the layout `layout`.
    ///
    /// # Errors
    /// A value that is not finite, or a file that cannot be written.
    pub fn write_state(&self, state: &StateFile, layout: &ParamLayout) -> Result<(), CheckpointError> {
        let path = self.file(Self::STATE);
        let malformed = |source| CheckpointError::Metadata { path: path.clone(), key: PROGRESS, source };
        let mut metadata = head(&state.config, &state.scaling, &path)?;
        let progress = state.training.as_ref().map(|training| Progress {
            step: training.step,
            epoch: training.epoch(),
            best_epoch: training.best.as_ref().map(|best| best.epoch),
            best_loss: training.best.as_ref().map(|best| best.loss),
            data: training.data.clone(),
            backend: training.backend.clone(),
        });
        metadata.push((PROGRESS, serde_json::to_string(&progress).map_err(malformed)?));

        let mut parts: Vec<Tensor<'_>> = vec![];
        let mut lines = vec![];
        if let Some(training) = &state.training {
            parts.extend(tensors(layout, &training.params, PARAMS));
            parts.extend(tensors(layout, &training.moment1, MOMENT1));
            parts.extend(tensors(layout, &training.moment2, MOMENT2));
            if let Some(best) = &training.best {
                parts.extend(tensors(layout, &best.params, BEST));
            }
            lines = metrics_lines(&training.history).map_err(malformed)?;
        }
        check_finite(&path, &parts)?;
        let bytes = |name: &str, bytes| Tensor {
            name: name.to_owned(),
            shape: vec![<[u8]>::len(bytes)],
            elements: Elements::U8(bytes),
        };
        if state.training.is_some() {
            parts.push(bytes(METRICS, &lines));
        }
        let malformed = |source| CheckpointError::Metadata { path: path.clone(), key: DENSITIES, source };
        let densities = serde_json::to_vec(&state.densities).map_err(malformed)?;
        parts.push(bytes(DENSITIES, &densities));
        write(&path, &metadata, &parts)
    }
}

fn read_densities(file: &mut TensorFile, latent: usize) -> Result<Vec<Density>, CheckpointError> {
    let text = file.read_u8(DENSITIES)?;
    let path = || file.path().to_path_buf();
    let densities: Vec<Density> = serde_json::from_slice(&text).map_err(|source| CheckpointError::Metadata {
        path: path(),
        key: DENSITIES,
        source,
    })?;
    match densities.iter().all(|density| density.latent() == latent) {
        true => Ok(densities),
        false => Err(CheckpointError::Inconsistent { path: path(), what: "a density has another latent size" }),
    }
}

fn read_training(
    file: &mut TensorFile,
    layout: &ParamLayout,
    progress: Progress,
) -> Result<TrainingState, CheckpointError> {
    let path = file.path().to_path_buf();
    let inconsistent = |what| CheckpointError::Inconsistent { path: path.clone(), what };
    let lines = file.read_u8(METRICS)?;
    let history: Result<Vec<EpochRecord>, _> = serde_json::Deserializer::from_slice(&lines).into_iter().collect();
    let history = history.map_err(|source| CheckpointError::Metadata { path: path.clone(), key: METRICS, source })?;
    if history.len() != progress.epoch as usize {
        return Err(inconsistent("the number of epochs is not the number of metrics"));
    }
    if history.last().map_or(0, |record| record.step) != progress.step {
        return Err(inconsistent("the number of steps is not the one of the last metrics"));
    }
    let best = match (progress.best_epoch, progress.best_loss) {
        (None, None) => None,
        (Some(epoch), Some(loss)) if (1..=progress.epoch).contains(&epoch) => {
            Some(Best { epoch, loss, params: read_params(file, layout, BEST)? })
        }
        _ => return Err(inconsistent("the best epoch is none of the finished ones")),
    };
    Ok(TrainingState {
        step: progress.step,
        params: read_params(file, layout, PARAMS)?,
        moment1: read_params(file, layout, MOMENT1)?,
        moment2: read_params(file, layout, MOMENT2)?,
        best,
        history,
        data: progress.data,
        backend: progress.backend,
    })
}

/// The lines of `metrics.jsonl`.
pub(crate) fn metrics_lines(history: &[EpochRecord]) -> serde_json::Result<Vec<u8>> {
    let mut lines = vec![];
    for record in history {
        serde_json::to_writer(&mut lines, record)?;
        lines.push(b'\n');
    }
    Ok(lines)
}
