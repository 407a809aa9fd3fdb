//! From arguments to a configuration and its rows.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use cvae::{BackendConfig, CodeBasis, Config, LoadedRows, Precision, RunFolder};
use cvae_core::{Activation, LayerSpec, ModelSpec, Objective, Reconstruction};
use cvae_data::{LoadOptions, Scaling, Source};

use crate::args::{TrainArgs, Widths};
use crate::objective;

/// Linear layers of the objective irmae where nothing else is said.
const IRMAE_LAYERS: usize = 4;

/// The configuration that the arguments describe, and the rows it names.
///
/// # Errors
/// A preset, file, name, number or source that cannot be used.
pub(crate) fn training(args: &TrainArgs) -> Result<(Config, LoadedRows)> {
    let base = base(args)?;
    let mut config = match &base {
        Some(config) => config.clone(),
        // The rows decide most of it; until they are read, any model will do.
        None => Config { objective: Objective::default(), ..Config::digits() },
    };
    data(&mut config, args)?;
    let options = LoadOptions { allow_nan: config.objective.missing || args.objective.missing, ..Default::default() };
    let rows = config.load_rows(&options)?;
    if base.is_none() {
        let chosen = match rows.train.image_shape() {
            Some(shape) if objective::is_collapsed(&args.objective) => Config::for_images(rows.train.rows(), shape)?,
            _ => Config::for_data(rows.train.rows(), rows.train.width())?,
        };
        let scaled = args.scaling.is_some() || rows.train.image_shape().is_some();
        let scaling = if scaled { config.data.scaling } else { chosen.data.scaling };
        config = Config { data: cvae::DataConfig { scaling, ..config.data }, ..chosen };
    }
    training_options(&mut config, args)?;
    config.model = model(&config.model, args)?;
    let shape = objective::Rows { latent: config.model.latent(), image: rows.train.image_shape() };
    config.objective = objective::objective(&config.objective, &args.objective, shape)?;
    codes(&mut config, args)?;
    if base.is_none() {
        if config.objective.reconstruction == Reconstruction::Bce && args.scaling.is_none() {
            // Cross-entropy compares probabilities, which are not to be moved.
            config.data.scaling = Scaling::None;
        }
        config.descend(rows.train.rows());
    }
    config.validate()?;
    Ok((config, rows))
}

/// The configuration to start from, if the arguments name one.
fn base(args: &TrainArgs) -> Result<Option<Config>> {
    if let Some(name) = &args.preset {
        let Some(config) = Config::preset(name) else {
            bail!("unknown preset `{name}`; known: {}", Config::PRESETS.join(", "));
        };
        return Ok(Some(config));
    }
    if let Some(path) = &args.config {
        return Ok(Some(Config::load(path)?));
    }
    if let (true, Some(out)) = (args.resume, &args.out)
        && out.join(RunFolder::CONFIG).exists()
    {
        return Ok(Some(RunFolder::new(out).config()?));
    }
    if args.source.as_deref().is_none_or(|source| source == "digits") && args.layers.is_none() {
        return Ok(Some(Config::digits()));
    }
    Ok(None)
}

/// Sources, split and scaling.
fn data(config: &mut Config, args: &TrainArgs) -> Result<()> {
    if let Some(source) = &args.source {
        if *source != config.data.source {
            config.data.test = None;
        }
        config.data.source.clone_from(source);
    }
    if let Some(test) = &args.test {
        config.data.test = Some(test.clone());
    }
    // A name that is no source is refused before anything is read.
    for name in std::iter::once(&config.data.source).chain(&config.data.test) {
        name.parse::<Source>()?;
    }
    if let Some(share) = args.validation {
        config.data.validation_fraction = share;
    }
    if let Some(name) = &args.scaling {
        config.data.scaling = match name.as_str() {
            "none" => Scaling::None,
            "min-max" => Scaling::MinMax,
            "standardize" => Scaling::Standardize,
            _ => bail!("unknown scaling `{name}`; known: none, min-max, standardize"),
        };
    }
    Ok(())
}

/// Epochs, batches, learning rate, seed and backend.
fn training_options(config: &mut Config, args: &TrainArgs) -> Result<()> {
    config.epochs = args.epochs.unwrap_or(config.epochs);
    config.batch_size = args.batch_size.unwrap_or(config.batch_size);
    config.optimizer.learning_rate = args.lr.unwrap_or(config.optimizer.learning_rate);
    config.seed = args.seed.unwrap_or(config.seed);
    config.patience = args.patience.or(config.patience);
    if let Some(name) = &args.engine.backend {
        config.backend.name.clone_from(name);
    }
    if let Some(name) = &args.precision {
        let Some(precision) = Precision::ALL.into_iter().find(|precision| precision.name() == name) else {
            bail!("unknown precision `{name}`; known: {}", Precision::ALL.map(Precision::name).join(", "));
        };
        config.backend.precision = precision;
    }
    Ok(())
}

/// The coordinates of codes: those that are named, else those of the configuration where its codes can be in them.
fn codes(config: &mut Config, args: &TrainArgs) -> Result<()> {
    match &args.objective.codes {
        Some(name) => {
            let Some(codes) = CodeBasis::ALL.into_iter().find(|codes| codes.name() == name) else {
                bail!("unknown codes `{name}`; known: {}", CodeBasis::ALL.map(CodeBasis::name).join(", "));
            };
            config.codes = codes;
        }
        None if config.lacks_for_alignment().is_some() => config.codes = CodeBasis::Trained,
        None => {}
    }
    Ok(())
}

/// The model with the widths, activations and linear layers of the arguments; what they leave open stays as in `base`.
fn model(base: &ModelSpec, args: &TrainArgs) -> Result<ModelSpec> {
    let mut plain = base.clone();
    // The linear layers are taken off, so that giving the same arguments again gives the same model.
    while let [.., _, LayerSpec::Linear { .. }] = plain.encoder.as_slice() {
        plain.encoder.pop();
    }
    let had = base.encoder.len() - plain.encoder.len();
    let irmae = args.objective.objective.as_deref() == Some(objective::IRMAE);
    let named = if irmae && had == 0 { IRMAE_LAYERS } else { had };
    Ok(dense(&plain, args)?.with_linear_code(args.linear_layers.unwrap_or(named))?)
}

/// The model of dense layers.
fn dense(base: &ModelSpec, args: &TrainArgs) -> Result<ModelSpec> {
    if args.layers.is_none() && args.decoder.is_none() && args.activation.is_none() && args.output.is_none() {
        return Ok(base.clone());
    }
    let activation = |name: &Option<String>, otherwise: Activation| match name {
        Some(name) => name.parse(),
        None => Ok(otherwise),
    };
    let hidden = activation(&args.activation, hidden_activation(base))?;
    let output = activation(&args.output, base.output_activation())?;
    let mirrored = |widths: &[usize]| widths.iter().rev().copied().collect::<Vec<_>>();
    let (encoder, decoder) = match (&args.layers, &args.decoder) {
        (Some(Widths(layers)), None) => (layers.clone(), mirrored(layers)),
        (Some(Widths(layers)), Some(Widths(decoder))) => (layers.clone(), decoder.clone()),
        (None, Some(Widths(decoder))) => (widths(base.width(), &base.encoder), decoder.clone()),
        (None, None) => (widths(base.width(), &base.encoder), widths(base.latent(), &base.decoder)),
    };
    let spec = ModelSpec::mlp_pair(&encoder, &decoder, hidden, output)?;
    // A base whose last hidden layer differs from the first keeps the difference, unless an activation is given.
    Ok(match (args.activation.is_none(), base.encoder.as_slice()) {
        (true, [_, .., last, _]) => spec.with_activation_before_code(last.activation()),
        _ => spec,
    })
}

/// The activation of the first hidden layer, if there is one.
fn hidden_activation(spec: &ModelSpec) -> Activation {
    let hidden =
        |layers: &[LayerSpec]| layers.split_last().and_then(|(_, hidden)| hidden.first()).map(LayerSpec::activation);
    hidden(&spec.encoder).or_else(|| hidden(&spec.decoder)).unwrap_or(Activation::Relu)
}

/// The widths of a stack of layers, its input first.
fn widths(input: usize, layers: &[LayerSpec]) -> Vec<usize> {
    std::iter::once(input).chain(layers.iter().map(LayerSpec::units)).collect()
}

/// What to compute on: the configuration's backend, with the threads of the arguments. These are not part of
/// the configuration, because nothing that is computed depends on them.
pub(crate) fn backend(args: &TrainArgs, config: &Config) -> BackendConfig {
    BackendConfig { threads: args.engine.threads.or(config.backend.threads), ..config.backend.clone() }
}

/// A folder under `runs/` that does not exist yet, claimed by creating it.
///
/// # Errors
/// A folder that cannot be created.
pub(crate) fn claim_folder(name: &str) -> Result<PathBuf> {
    let parent = Path::new("runs");
    let refused =
        |path: &Path, error: std::io::Error| anyhow::anyhow!("{}: cannot be created: {error}", path.display());
    std::fs::create_dir_all(parent).map_err(|error| refused(parent, error))?;
    let mut number = 1u64;
    loop {
        let path = parent.join(format!("{name}-{number}"));
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(refused(&path, error)),
        }
    }
}

/// What a run is called: the preset's name, or the first part of the source's.
pub(crate) fn run_name(args: &TrainArgs, config: &Config) -> String {
    let source = config.data.source.as_str();
    let name = args.preset.as_deref().unwrap_or_else(|| {
        let file = Path::new(source).file_name().and_then(|name| name.to_str()).unwrap_or(source);
        file.split([':', '.']).next().unwrap_or(file)
    });
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '-' }).collect();
    if plain.trim_matches('-').is_empty() { "run".to_owned() } else { plain }
}

#[cfg(test)]
mod tests;
