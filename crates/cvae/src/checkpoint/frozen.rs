//! A frozen model's file: weights as stored, with the configuration and the scaling.
//!
//! Weights and biases have the names of `model.safetensors`; weights are of type `F32`, `BF16` or `I8`. An int8 layer adds `…scale`, one value per unit, and
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
        FrozenWeights::F32(_) | FrozenWeights::Bf16(_) => None,
    });
    let header = Header { precision: model.precision().name().to_owned(), inputs: inputs.collect() };
    let header = serde_json::to_string(&header).map_err(|source| CheckpointError::Metadata {
        path: path.to_path_buf(),
        key: FROZEN,
        source,
    })?;
    let mut metadata = head(config, scaling, path)?;
    metadata.push((FROZEN, header));
    let (floats, shorter) = tensors(model);
    check_finite(path, &floats)?;
    write(path, &metadata, &[floats, shorter].concat())
}

/// The tensors of 32-bit floats, and those of shorter elements, the longest first.
fn tensors(model: &FrozenModel) -> (Vec<Tensor<'_>>, Vec<Tensor<'_>>) {
    let (mut floats, mut halves, mut bytes) = (vec![], vec![], vec![]);
    for (name, layer) in names(model).zip(model.layers()) {
        let shape = vec![layer.units, layer.inputs];
        let tensor = |part: &str, shape, elements| Tensor { name: format!("{name}.{part}"), shape, elements };
        match &layer.weights {
            FrozenWeights::F32(weights) => floats.push(tensor("weight", shape, Elements::F32(weights))),
            FrozenWeights::Bf16(weights) => halves.push(tensor("weight", shape, Elements::Bf16(weights))),
            FrozenWeights::Int8 { values, scales, .. } => {
                bytes.push(tensor("weight", shape, Elements::I8(values)));
                floats.push(tensor("scale", vec![layer.units], Elements::F32(scales)));
            }
        }
        floats.push(tensor("bias", vec![layer.units], Elements::F32(&layer.bias)));
    }
    halves.append(&mut bytes);
    (floats, halves)
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
        read_layer(&mut file, layer, name, precision, levels)?;
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
        let weight = match precision {
            FrozenPrecision::F32 => Dtype::F32,
            FrozenPrecision::Bf16 => Dtype::BF16,
            FrozenPrecision::Int8 => Dtype::I8,
        };
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
    precision: FrozenPrecision,
    levels: Option<&StoredLevels>,
) -> Result<(), CheckpointError> {
    file.read_f32(&format!("{name}.bias"), &mut layer.bias)?;
    let weight = format!("{name}.weight");
    match (levels, &mut layer.weights) {
        (Some(levels), weights) => {
            let mut scales = vec![0.0; layer.units];
            file.read_f32(&format!("{name}.scale"), &mut scales)?;
            let values = file.read_u8(&weight)?;
            let values = values.into_iter().map(|byte| i8::from_le_bytes([byte])).collect();
            let input = ByteLevels { step: levels.step, zero: levels.zero };
            *weights = FrozenWeights::Int8 { values, scales, input };
        }
        (None, weights) if precision == FrozenPrecision::Bf16 => {
            *weights = FrozenWeights::Bf16(file.read_bf16(&weight)?);
        }
        (None, FrozenWeights::F32(weights)) => file.read_f32(&weight, weights)?,
        (None, FrozenWeights::Bf16(_) | FrozenWeights::Int8 { .. }) => unreachable!("the plan's layers are in floats"),
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

#[cfg(test)]
mod tests {
    use cvae_core::{Activation, Initializer, ModelSpec};
    use cvae_cpu::Bf16;
    use cvae_data::Scaling;

    use super::*;

    /// What reading says of a file with good digests, of precision `precision`, whose first weight is `weight`.
    fn error_of(precision: &str, weight: &dyn Fn(usize) -> FrozenWeights) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("frozen.safetensors");
        let config = Config::new(ModelSpec::mlp(&[6, 2], Activation::Relu, Activation::Identity).unwrap());
        let plan = config.plan().unwrap();
        let params = plan.params.initial(Initializer::Torch, 1);
        let mut model = FrozenModel::new(&plan, &params).unwrap().to_bf16().unwrap();
        model.encoder[0].weights = weight(12);
        let scaling = FittedScaling::fit(Scaling::None, &[0.0; 6], 6).unwrap();
        let mut metadata = head(&config, &scaling, &path).unwrap();
        metadata.push((FROZEN, format!("{{\"precision\":\"{precision}\",\"inputs\":[]}}")));
        let (floats, halves) = tensors(&model);
        write(&path, &metadata, &[floats, halves].concat()).unwrap();
        match read_frozen(&path) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn files_that_contradict_themselves_are_refused() {
        let halves = |count: usize| FrozenWeights::Bf16(vec![Bf16::from_f32(0.5); count]);
        assert_eq!(error_of("bf16", &halves), "");
        for (precision, weight, parts) in [
            ("f32", &halves as &dyn Fn(usize) -> FrozenWeights, ["encoder.0.weight", "BF16"]),
            ("int8", &halves, ["one entry of levels per layer", ""]),
            ("bf17", &halves, ["its precision is unknown", ""]),
            ("bf16", &|count| FrozenWeights::F32(vec![0.5; count]), ["encoder.0.weight", "F32"]),
            (
                "bf16",
                &|count| FrozenWeights::Bf16(vec![Bf16::from_bits(0x7F80); count]),
                ["encoder.0.weight", "finite"],
            ),
            (
                "bf16",
                &|count| FrozenWeights::Bf16(vec![Bf16::from_bits(0x7FC0); count]),
                ["encoder.0.weight", "finite"],
            ),
        ] {
            let error = error_of(precision, weight);
            assert!(
                parts.iter().all(|part| error.contains(part)) && !error.is_empty(),
                "{precision}, {parts:?}: {error}"
            );
        }
    }
}
