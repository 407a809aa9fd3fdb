//! Frozen models: what freezing costs on real data, their file, and what they refuse.
#![cfg(feature = "cpu")]

use std::fs;
use std::path::Path;

use cvae::checkpoint::Model;
use cvae::{
    Autoencoder, BackendConfig, CheckpointError, Config, Existing, FrozenAutoencoder, FrozenPrecision, ModelError,
    RunFolder, Trainer, registry,
};
use cvae_core::{Activation, Initializer, ModelSpec};
use cvae_data::{Dataset, FittedScaling, LoadOptions, Scaling};

/// A model that has not been trained, of rows of 6 values.
fn untrained() -> (Model, Vec<f32>) {
    let spec = ModelSpec::mlp(&[6, 5, 2], Activation::Gelu, Activation::Identity).unwrap();
    let config =
        Config { data: cvae::DataConfig { scaling: Scaling::Standardize, ..Default::default() }, ..Config::new(spec) };
    let rows: Vec<f32> = (0..40 * 6).map(|i| (i * i % 23) as f32).collect();
    let plan = config.plan().unwrap();
    let params = plan.params.initial(Initializer::Torch, 1);
    let scaling = FittedScaling::fit(Scaling::Standardize, &rows, 6).unwrap();
    (Model { config, plan, scaling, params }, rows)
}

fn mean_score(model: &Autoencoder, data: &Dataset) -> f64 {
    let scores = model.score(&data.to_f32()).unwrap();
    scores.iter().map(|score| f64::from(*score)).sum::<f64>() / scores.len() as f64
}

#[test]
fn freezing_keeps_the_error_on_digits() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { epochs: 40, ..Config::digits() };
    let rows = config.load_rows(&LoadOptions::default()).unwrap();
    let test = rows.test.unwrap();
    let trained = Trainer::new(config).run_folder(folder.path(), Existing::Refuse).fit(&rows.train).unwrap();
    let expected = mean_score(&trained.model, &test);
    let model = RunFolder::new(folder.path()).read_model().unwrap();

    let floats = FrozenAutoencoder::new(&model, FrozenPrecision::F32, &[]).unwrap();
    let found = mean_score(&floats.compile(&BackendConfig::default()).unwrap(), &test);
    assert!((found / expected - 1.0).abs() < 1e-5, "f32: {found} against {expected}");

    let halves = FrozenAutoencoder::new(&model, FrozenPrecision::Bf16, &[]).unwrap();
    let found = mean_score(&halves.compile(&BackendConfig::default()).unwrap(), &test);
    assert!((found / expected - 1.0).abs() < 2e-3, "bf16: {found} against {expected}");
    assert!(found != expected, "nothing was rounded");

    let bytes = FrozenAutoencoder::new(&model, FrozenPrecision::Int8, &rows.train.to_f32()).unwrap();
    let found = mean_score(&bytes.compile(&BackendConfig::default()).unwrap(), &test);
    assert!(found < 1.02 * expected, "int8: {found} against {expected}");
    assert!(found != expected, "nothing was quantised");
}

#[test]
fn files_give_back_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frozen.safetensors");
    let (model, rows) = untrained();
    for precision in FrozenPrecision::ALL {
        let frozen = FrozenAutoencoder::new(&model, precision, &rows).unwrap();
        frozen.write(&path).unwrap();
        let read = FrozenAutoencoder::read(&path).unwrap();
        assert_eq!(read, frozen);
        assert_eq!(read.model().precision(), precision);
        let model = read.compile(&BackendConfig::default()).unwrap();
        let codes = model.encode(&rows).unwrap();
        assert_eq!(model.decode(&codes).unwrap(), model.reconstruct(&rows).unwrap());
        let suffix = match precision {
            FrozenPrecision::F32 => "",
            FrozenPrecision::Bf16 => "-bf16-weights",
            FrozenPrecision::Int8 => "-int8",
        };
        let level = registry::select(&BackendConfig::default()).unwrap().backend.id();
        assert_eq!(model.backend().as_str(), format!("{level}{suffix}"));
        assert_eq!(model.kernels().len(), 4);
    }
}

#[test]
fn floats_agree_with_the_backend() {
    let (model, rows) = untrained();
    let frozen = FrozenAutoencoder::new(&model, FrozenPrecision::F32, &[]).unwrap();
    let frozen = frozen.compile(&BackendConfig::default()).unwrap();
    let backend = registry::select(&BackendConfig::default()).unwrap().backend;
    let model = Autoencoder::new(model, backend.as_ref()).unwrap();
    for (a, b) in frozen.reconstruct(&rows).unwrap().iter().zip(model.reconstruct(&rows).unwrap()) {
        assert!((a - b).abs() < 1e-5 * b.abs().max(1.0), "{a} against {b}");
    }
}

#[test]
fn damaged_and_foreign_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frozen.safetensors");
    let (model, rows) = untrained();
    FrozenAutoencoder::new(&model, FrozenPrecision::Int8, &rows).unwrap().write(&path).unwrap();
    let good = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let text = String::from_utf8(good[8..header].to_vec()).unwrap();
    let step = 8 + text.find("\\\"step\\\":").unwrap() + 12;

    let check = |what: &str, bytes: &[u8], part: &str| {
        fs::write(&path, bytes).unwrap();
        let error = FrozenAutoencoder::read(&path).unwrap_err().to_string();
        assert!(error.contains("frozen.safetensors") && error.contains(part), "{what}: {error}");
    };
    check("empty", b"", "truncated");
    check("short", &good[..good.len() - 3], "truncated or appended to");
    check("long", &[&good[..], b"x"].concat(), "truncated or appended to");
    for at in [header, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        check("flipped", &bytes, "does not match its checksum");
    }
    let mut bytes = good.clone();
    bytes[step] = if bytes[step] == b'9' { b'8' } else { b'9' };
    check("edited levels", &bytes, "does not match its checksum");

    FrozenAutoencoder::new(&model, FrozenPrecision::Bf16, &[]).unwrap().write(&path).unwrap();
    let good = fs::read(&path).unwrap();
    check("short halves", &good[..good.len() - 1], "truncated or appended to");
    let mut bytes = good.clone();
    *bytes.last_mut().unwrap() ^= 0x80;
    check("a flipped half", &bytes, "does not match its checksum");
    let mut bytes = good.clone();
    let at = good.windows(4).position(|window| window == b"bf16").unwrap();
    bytes[at..at + 4].copy_from_slice(b"int8");
    check("another precision", &bytes, "does not match its checksum");

    let run = folder.path().join("run");
    let backend = registry::select(&BackendConfig::default()).unwrap().backend;
    Autoencoder::new(model, backend.as_ref()).unwrap().save(&run, Existing::Refuse).unwrap();
    let error = FrozenAutoencoder::read(run.join(RunFolder::MODEL)).unwrap_err();
    assert!(matches!(error, CheckpointError::NotFrozen { .. }), "{error}");
    assert!(FrozenAutoencoder::read(Path::new("missing")).unwrap_err().to_string().contains("missing"));
}

#[test]
fn misuse_is_refused() {
    let (model, rows) = untrained();
    for samples in [&[][..], &rows[..7]] {
        let error = FrozenAutoencoder::new(&model, FrozenPrecision::Int8, samples).unwrap_err().to_string();
        assert!(error.contains("calibration values are not one or more rows of width 6"), "{error}");
    }
    let frozen = FrozenAutoencoder::new(&model, FrozenPrecision::F32, &[]).unwrap();
    for name in ["cuda", "candle", "reference", "cpu-avx9"] {
        let backend = BackendConfig { name: name.to_owned(), ..BackendConfig::default() };
        let error = frozen.compile(&backend).unwrap_err();
        assert!(matches!(error, ModelError::FrozenBackend { .. }), "{name}: {error}");
    }
    let compiled = frozen.compile(&BackendConfig::default()).unwrap();
    let error = compiled.parameters().unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(format!("{error}: {source}").contains("a frozen model: reading parameters failed"), "{error}: {source}");
    assert!(matches!(compiled.encode(&[f32::NAN; 6]), Err(ModelError::NonFinite { .. })));
}
