//! A frozen model's file: weights as stored, with the configuration and the scaling.
//!
//! Weights and biases have the names of `model.safetensors`. An int8 layer adds `…scale`, one value per unit, and
//! its entry in the metadata tells how its inputs become bytes.

use std::path::Path;

use cvae_core::Part;
use cvae_cpu::{ByteLevels, FreezeError, FrozenLayer, FrozenModel, FrozenPrecision, FrozenWeights};
use cvae_data::FittedScaling;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::error::CheckpointError;
use super::model::{check_finite, head, read_head};
use super::tensors::{Elements, Tensor, TensorFile, write};
use crate::config::Config;

/// Metadata entry that makes a file a frozen model's.
const FROZEN: &str = "frozen";

/// How a frozen model is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// A name of [`FrozenPrecision`].
    precision: String,
    /// Per layer, how its inputs become bytes; none in floats.
    inputs: Vec<StoredLevels>,
}

/// [`ByteLevels`] as stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredLevels {
    step: f32,
    zero: u8,
}

/// Writes a frozen model's file.
///
/// # Errors
/// A value that is not finite, or a file that cannot be written.
pub(crate) fn write_frozen(
    path: &Path,
    config: &Config,
    scaling: &FittedScaling,
    model: &FrozenModel,
) -> Result<(), CheckpointError> {
    model.validate().map_err(|source| frozen(path, source))?;
    let inputs = model.layers().filter_map(|layer| match layer.weights {
        FrozenWeights::Int8 { input, .. } => Some(StoredLevels { step: input.step, zero: input.zero }),
        FrozenWeights::F32(_) => None,
    });
    let header = Header { precision: model.precision().name().to_owned(), inputs: inputs.collect() };
    let header = serde_json::to_string(&header).map_err(|source| CheckpointError::Metadata {
        path: path.to_path_buf(),
        key: FROZEN,
        source,
    })?;
    let mut metadata = head(config, scaling, path)?;
    metadata.push((FROZEN, header));
    let (mut floats, mut bytes) = (vec![], vec![]);
    for (name, layer) in names(model).zip(model.layers()) {
        let shape = vec![layer.units, layer.inputs];
        let tensor = |part: &str, shape, elements| Tensor { name: format!("{name}.{part}"), shape, elements };
        match &layer.weights {
            FrozenWeights::F32(weights) => floats.push(tensor("weight", shape, Elements::F32(weights))),
            FrozenWeights::Int8 { values, scales, .. } => {
                bytes.push(tensor("weight", shape, Elements::I8(values)));
                floats.push(tensor("scale", vec![layer.units], Elements::F32(scales)));
            }
        }
        floats.push(tensor("bias", vec![layer.units], Elements::F32(&layer.bias)));
    }
    check_finite(path, &floats)?;
    floats.append(&mut bytes);
    write(path, &metadata, &floats)
}

/// Reads and verifies a frozen model's file.
///
/// # Errors
/// Anything wrong with the file, by name.
pub(crate) fn read_frozen(path: &Path) -> Result<(Config, FittedScaling, FrozenModel), CheckpointError> {
    let mut file = TensorFile::open(path)?;
    if file.text(FROZEN).is_err() {
        return Err(CheckpointError::NotFrozen { path: path.to_path_buf() });
    }
    let header: Header = file.json(FROZEN)?;
    let contradiction = |what| CheckpointError::Inconsistent { path: path.to_path_buf(), what };
    let known = FrozenPrecision::ALL.into_iter().find(|precision| precision.name() == header.precision);
    let precision = known.ok_or_else(|| contradiction("its precision is unknown"))?;
    let (config, plan, scaling) = read_head(&file)?;
    // The plan decides names, shapes and activations; the file has the numbers.
    let zeros = vec![0.0; plan.params.len()];
    let mut model = FrozenModel::new(&plan, &zeros).map_err(|source| frozen(path, source))?;
    let names: Vec<String> = names(&model).collect();
    if header.inputs.len() != if precision == FrozenPrecision::Int8 { names.len() } else { 0 } {
        return Err(contradiction("it has not one entry of levels per layer"));
    }
    expect(&file, &model, &names, precision)?;
    let FrozenModel { encoder, decoder } = &mut model;
    for (index, (layer, name)) in encoder.iter_mut().chain(decoder).zip(&names).enumerate() {
        let levels = header.inputs.get(index);
        read_layer(&mut file, layer, name, levels)?;
    }
    model.validate().map_err(|source| frozen(path, source))?;
    Ok((config, scaling, model))
}

/// Checks that the tensors are exactly those of the model.
fn expect(
    file: &TensorFile,
    model: &FrozenModel,
    names: &[String],
    precision: FrozenPrecision,
) -> Result<(), CheckpointError> {
    let mut tensors = vec![];
    for (name, layer) in names.iter().zip(model.layers()) {
        let int8 = precision == FrozenPrecision::Int8;
        let weight = if int8 { Dtype::I8 } else { Dtype::F32 };
        tensors.push((format!("{name}.weight"), weight, vec![layer.units, layer.inputs]));
        tensors.push((format!("{name}.bias"), Dtype::F32, vec![layer.units]));
        if int8 {
            tensors.push((format!("{name}.scale"), Dtype::F32, vec![layer.units]));
        }
    }
    file.expect(tensors.iter().map(|(name, dtype, shape)| (name.as_str(), *dtype, Some(shape.as_slice()))))
}

/// Reads a layer's numbers in place of those it has.
fn read_layer(
    file: &mut TensorFile,
    layer: &mut FrozenLayer,
    name: &str,
    levels: Option<&StoredLevels>,
) -> Result<(), CheckpointError> {
    file.read_f32(&format!("{name}.bias"), &mut layer.bias)?;
    match (levels, &mut layer.weights) {
        (Some(levels), weights) => {
            let mut scales = vec![0.0; layer.units];
            file.read_f32(&format!("{name}.scale"), &mut scales)?;
            let values = file.read_u8(&format!("{name}.weight"))?;
            let values = values.into_iter().map(|byte| i8::from_le_bytes([byte])).collect();
            let input = ByteLevels { step: levels.step, zero: levels.zero };
            *weights = FrozenWeights::Int8 { values, scales, input };
        }
        (None, FrozenWeights::F32(weights)) => file.read_f32(&format!("{name}.weight"), weights)?,
        (None, FrozenWeights::Int8 { .. }) => unreachable!("the plan's layers are in floats"),
    }
    Ok(())
}

/// Names of the layers, the encoder's first: those of the parameters.
fn names(model: &FrozenModel) -> impl Iterator<Item = String> + use<> {
    let part = |part: Part, layers: usize| (0..layers).map(move |index| format!("{part}.{}", 2 * index));
    part(Part::Encoder, model.encoder.len()).chain(part(Part::Decoder, model.decoder.len()))
}

fn frozen(path: &Path, source: FreezeError) -> CheckpointError {
    CheckpointError::Frozen { path: path.to_path_buf(), source }
}
