use std::fs;
use std::path::Path;

use cvae_core::{Activation, ModelSpec};
use cvae_data::Scaling;

use super::tensors::{Elements, Tensor, write};
use super::*;
use crate::config::Config;
use crate::density::Density;
use crate::train::EpochRecord;

fn config() -> Config {
    Config::new(ModelSpec::mlp(&[3, 2, 1], Activation::Relu, Activation::Identity).unwrap())
}

fn record(epoch: u32) -> EpochRecord {
    EpochRecord {
        epoch,
        step: 5 * u64::from(epoch),
        loss: 0.1 + 0.2,
        reconstruction: 0.1,
        latent: 0.2,
        decoder_l2: 0.0,
        jacobian: 0.0,
        validation_loss: (epoch == 2).then_some(1.0 / 3.0),
        learning_rate: 1e-3,
        latent_rms: 0.7,
        rows_per_second: 1e6,
        seconds: 0.25,
    }
}

/// A state in which every value is different.
fn state() -> StateFile {
    let config = config();
    let len = config.plan().unwrap().params.len();
    let values = |start: f32| (0..len).map(|i| start + i as f32 / 8.0).collect::<Vec<f32>>();
    let training = TrainingState {
        step: 10,
        params: values(1.0),
        moment1: values(-3.0),
        moment2: values(7.0),
        best: Some(Best { epoch: 1, loss: 1.0 / 7.0, params: values(20.0) }),
        history: vec![record(1), record(2)],
        data: "digest".to_owned(),
        backend: "cpu-scalar".to_owned(),
    };
    let scaling = cvae_data::FittedScaling::fit(Scaling::MinMax, &[0.0, 1.0, 2.0, 0.1, 0.3, 0.7], 3).unwrap();
    StateFile { config, scaling, training: Some(training), densities: vec![Density::prior(1).unwrap()] }
}

/// A folder with all files.
fn folder() -> (tempfile::TempDir, RunFolder) {
    let guard = tempfile::tempdir().unwrap();
    let folder = RunFolder::new(guard.path());
    let state = state();
    let layout = state.config.plan().unwrap().params;
    folder.prepare(&state.config, Existing::Refuse).unwrap();
    folder.write_state(&state, &layout).unwrap();
    let params = &state.training.as_ref().unwrap().params;
    folder.write_model(&state.config, &state.scaling, &layout, params).unwrap();
    (guard, folder)
}

/// Reads a file by its name and returns the message of the error.
fn message(folder: &RunFolder, name: &str) -> Option<String> {
    match name {
        RunFolder::MODEL => folder.read_model().err().map(|error| error.to_string()),
        _ => folder.read_state().err().map(|error| error.to_string()),
    }
}

#[test]
fn what_is_written_is_read() {
    let (_guard, folder) = folder();
    let (expected, found) = (state(), folder.read_state().unwrap());
    assert_eq!(found.training, expected.training);
    assert_eq!((found.config, found.scaling), (expected.config.clone(), expected.scaling.clone()));
    assert_eq!(found.densities, expected.densities);
    assert_eq!(folder.read_densities(1).unwrap(), expected.densities);
    let model = folder.read_model().unwrap();
    assert_eq!(model.params, expected.training.unwrap().params);
    assert_eq!((model.config, model.scaling), (expected.config, expected.scaling));
}

#[test]
fn the_same_content_gives_the_same_bytes() {
    let ((_a, first), (_b, second)) = (folder(), folder());
    for name in [RunFolder::CONFIG, RunFolder::MODEL, RunFolder::STATE] {
        assert_eq!(fs::read(first.file(name)).unwrap(), fs::read(second.file(name)).unwrap(), "{name}");
    }
}

#[test]
fn other_readers_of_the_format_see_the_parameters() {
    let (_guard, folder) = folder();
    let bytes = fs::read(folder.file(RunFolder::MODEL)).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut names = tensors.names();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "decoder.0.bias",
            "decoder.0.weight",
            "decoder.2.bias",
            "decoder.2.weight",
            "encoder.0.bias",
            "encoder.0.weight",
            "encoder.2.bias",
            "encoder.2.weight"
        ]
    );
    let weight = tensors.tensor("encoder.0.weight").unwrap();
    assert_eq!((weight.shape(), weight.dtype()), (&[2, 3][..], safetensors::Dtype::F32));
    let values: Vec<u8> = (0..6).flat_map(|i| (1.0 + i as f32 / 8.0).to_le_bytes()).collect();
    assert_eq!(weight.data(), values);
    // Tensors start at multiples of their elements' size.
    assert_eq!(bytes.len() % 4, 0);
}

#[test]
fn every_flipped_byte_is_found() {
    let (_guard, folder) = folder();
    for name in [RunFolder::MODEL, RunFolder::STATE] {
        let path = folder.file(name);
        let original = fs::read(&path).unwrap();
        let start = path.display().to_string();
        for at in 0..original.len() {
            // One bit, a change of letter case, or of a space to a tab.
            let flip = [0x01, 0x20, 0x29][at % 3];
            let mut bytes = original.clone();
            bytes[at] ^= flip;
            fs::write(&path, &bytes).unwrap();
            let error = message(&folder, name);
            let error = error.unwrap_or_else(|| panic!("{name}: byte {at} ^ {flip:#x} went unnoticed"));
            assert!(error.starts_with(&start), "{error}");
        }
        fs::write(&path, &original).unwrap();
        assert_eq!(message(&folder, name), None);
    }
}

#[test]
fn every_wrong_length_is_found() {
    let (_guard, folder) = folder();
    for name in [RunFolder::MODEL, RunFolder::STATE] {
        let path = folder.file(name);
        let original = fs::read(&path).unwrap();
        for length in 0..original.len() {
            fs::write(&path, &original[..length]).unwrap();
            assert!(message(&folder, name).is_some(), "{name}: {length} bytes went unnoticed");
        }
        for extra in [1, 4, 1000] {
            fs::write(&path, [&original[..], &vec![0; extra]].concat()).unwrap();
            let error = message(&folder, name).unwrap();
            assert!(error.contains("truncated or appended to"), "{error}");
        }
    }
}

/// Changes text in the header, keeping the length of the file's data and the declared length right.
fn edit_header(path: &Path, old: &str, new: &str) {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap();
    assert!(header.contains(old), "{old} is not in {header}");
    let header = header.replacen(old, new, 1);
    let out = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes[8 + length..]].concat();
    fs::write(path, out).unwrap();
}

#[test]
fn damaged_headers_are_named() {
    type Damage = fn(&Path);
    let table: [(&str, Damage, &str); 12] = [
        ("empty", |p| fs::write(p, b"").unwrap(), "truncated: 0 bytes cannot hold"),
        ("a text", |p| fs::write(p, b"hello, world").unwrap(), "the header claims"),
        (
            "a lying length",
            |p| overwrite(p, 0, &u64::MAX.to_le_bytes()),
            "the header claims 18446744073709551615 bytes",
        ),
        ("a long length", |p| overwrite(p, 0, &3000u64.to_le_bytes()), "the header claims 3000 bytes in a file of"),
        ("a short length", |p| overwrite(p, 0, &40u64.to_le_bytes()), "not a safetensors file"),
        ("a lying shape", |p| edit_header(p, "\"shape\":[2,3]", "\"shape\":[9,9]"), "not a safetensors file"),
        ("a huge shape", |p| edit_header(p, "[2,3]", "[4611686018427387904,4611686018427387904]"), "not a safetensors"),
        (
            "lying offsets",
            |p| edit_header(p, "\"data_offsets\":[0,24]", "\"data_offsets\":[4,28]"),
            "not a safetensors",
        ),
        (
            "a renamed tensor",
            |p| edit_header(p, "\"encoder.0.weight\":{", "\"encoder.9.weight\":{"),
            "damaged or edited",
        ),
        ("no digest", |p| edit_header(p, "\"sha256\"", "\"sha255\""), "the metadata entry `sha256` is missing"),
        ("another seed", |p| edit_header(p, "seed = 0", "seed = 1"), "the header does not match its checksum"),
        (
            "a folder",
            |p| {
                fs::remove_file(p).unwrap();
                fs::create_dir(p).unwrap()
            },
            "cannot be read",
        ),
    ];
    for (what, damage, expected) in table {
        let (_guard, folder) = folder();
        let path = folder.file(RunFolder::MODEL);
        damage(&path);
        let error = message(&folder, RunFolder::MODEL).unwrap_or_else(|| panic!("{what} went unnoticed"));
        assert!(error.starts_with(&path.display().to_string()), "{what}: {error}");
        assert!(error.contains(expected), "{what}: {error}");
        assert!(!error.contains('\n'), "{what}: {error}");
    }
    let (_guard, folder) = folder();
    fs::remove_file(folder.file(RunFolder::MODEL)).unwrap();
    assert!(message(&folder, RunFolder::MODEL).unwrap().contains("cannot be read: No such file"));
}

fn overwrite(path: &Path, at: usize, new: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at..at + new.len()].copy_from_slice(new);
    fs::write(path, bytes).unwrap();
}

#[test]
fn damaged_values_name_the_tensor() {
    let (_guard, folder) = folder();
    let path = folder.file(RunFolder::MODEL);
    let bytes = fs::read(&path).unwrap();
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    overwrite(&path, start + 24, &f32::NAN.to_le_bytes());
    let error = message(&folder, RunFolder::MODEL).unwrap();
    assert!(error.ends_with("tensor `encoder.0.bias` does not match its checksum: damaged or edited"), "{error}");
}

/// Files whose checksums are right and whose content is not: made by another program, or another version.
#[test]
fn wrong_content_is_found_behind_right_checksums() {
    let values = vec![0.5; 64];
    let state = state();
    let layout = state.config.plan().unwrap().params;
    let good = || -> Vec<Tensor<'_>> {
        let tensor = |param: &cvae_core::Param| Tensor {
            name: param.name.clone(),
            shape: param.shape.clone(),
            elements: Elements::F32(&values[..param.size()]),
        };
        layout.params().iter().map(tensor).collect()
    };
    let metadata = |config: &str, scaling: &str| vec![("config", config.to_owned()), ("scaling", scaling.to_owned())];
    let config = state.config.to_toml().unwrap();
    let scaling = serde_json::to_string(&state.scaling).unwrap();
    let infinite = [0.0, f32::INFINITY];
    let bytes = [0; 8];

    let renamed = {
        let mut t = good();
        t[1].name = "encoder.1.bias".to_owned();
        t
    };
    let missing = {
        let mut t = good();
        t.remove(2);
        t
    };
    let extra = {
        let mut t = good();
        t.push(Tensor { name: "logvar.bias".to_owned(), ..t[1].clone() });
        t
    };
    let transposed = {
        let mut t = good();
        t[0].shape.reverse();
        t
    };
    let flat = {
        let mut t = good();
        t[0].shape = vec![6];
        t
    };
    let larger = {
        let mut t = good();
        (t[1].shape, t[1].elements) = (vec![5], Elements::F32(&values[..5]));
        t
    };
    let typed = {
        let mut t = good();
        (t[1].shape, t[1].elements) = (vec![8], Elements::U8(&bytes));
        t
    };
    let not_finite = {
        let mut t = good();
        t[1].elements = Elements::F32(&infinite);
        t
    };
    let wider = config.replacen("units = 2", "units = 7", 1);
    let newer = config.replacen("format = 1", "format = 2", 1);
    let zero = config.replacen("units = 2", "units = 0", 1);
    let narrow = r#"{"kind":"min-max","shift":[0.0],"scale":[1.0]}"#;
    let bad_scale = r#"{"kind":"min-max","shift":[0.0,0.0,0.0],"scale":[1.0,0.0,1.0]}"#;
    let table = [
        ("renamed", renamed, &config, scaling.as_str(), "tensor `encoder.0.bias` is missing"),
        ("missing", missing, &config, &scaling, "tensor `encoder.2.weight` is missing"),
        ("extra", extra, &config, &scaling, "tensor `logvar.bias` does not belong to the model"),
        ("transposed", transposed, &config, &scaling, "tensor `encoder.0.weight` has shape [3, 2], expected [2, 3]"),
        ("flat", flat, &config, &scaling, "tensor `encoder.0.weight` has shape [6], expected [2, 3]"),
        ("larger", larger, &config, &scaling, "tensor `encoder.0.bias` has shape [5], expected [2]"),
        ("typed", typed, &config, &scaling, "tensor `encoder.0.bias` has elements of type U8, expected F32"),
        ("not finite", not_finite, &config, &scaling, "tensor `encoder.0.bias` is not finite at element 1"),
        ("a wider model", good(), &wider, &scaling, "tensor `encoder.0.weight` has shape [2, 3], expected [7, 3]"),
        ("a newer format", good(), &newer, &scaling, "format version 2 is not supported"),
        ("no units", good(), &zero, &scaling, "the configuration is not usable: width 0 at position 1"),
        ("a narrow scaling", good(), &config, narrow, "the scaling is for 1 features, the model has 3"),
        ("a bad scale", good(), &config, bad_scale, "the metadata entry `scaling` is malformed"),
        ("no scaling", good(), &config, "", "the metadata entry `scaling` is malformed"),
    ];
    for (what, tensors, config, scaling, expected) in table {
        let guard = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(guard.path());
        write(&folder.file(RunFolder::MODEL), &metadata(config, scaling), &tensors).unwrap();
        let error = message(&folder, RunFolder::MODEL).unwrap_or_else(|| panic!("{what} went unnoticed"));
        assert!(error.contains(expected) && error.contains(RunFolder::MODEL), "{what}: {error}");
    }
    let guard = tempfile::tempdir().unwrap();
    let path = guard.path().join("t");
    write(&path, &[], &good()).unwrap();
    let error = RunFolder::new(guard.path()).read_model();
    assert!(error.is_err());
    fs::rename(&path, guard.path().join(RunFolder::MODEL)).unwrap();
    let error = message(&RunFolder::new(guard.path()), RunFolder::MODEL).unwrap();
    assert!(error.ends_with("the metadata entry `config` is missing: not a file of this project"), "{error}");
}

#[test]
fn contradictions_in_the_state_are_found() {
    type Change = fn(&mut TrainingState);
    let table: [(&str, Change, &str); 4] = [
        ("steps", |t| t.step = 11, "the number of steps is not the one of the last metrics"),
        ("a later best", |t| t.best.as_mut().unwrap().epoch = 3, "the best epoch is none of the finished ones"),
        ("epoch zero", |t| t.best.as_mut().unwrap().epoch = 0, "the best epoch is none of the finished ones"),
        ("order", |t| t.history.swap(0, 1), "the number of steps is not the one of the last metrics"),
    ];
    for (what, change, expected) in table {
        let (_guard, folder) = folder();
        let mut state = state();
        change(state.training.as_mut().unwrap());
        folder.write_state(&state, &state.config.plan().unwrap().params).unwrap();
        let error = folder.read_state().unwrap_err().to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
    let (_guard, folder) = folder();
    let densities = vec![Density::prior(2).unwrap()];
    let state = StateFile { densities, ..state() };
    folder.write_state(&state, &state.config.plan().unwrap().params).unwrap();
    for error in [folder.read_state().unwrap_err(), folder.read_densities(1).unwrap_err()] {
        assert!(error.to_string().contains("a density has another latent size"), "{error}");
    }
}

#[test]
fn values_that_reading_would_refuse_are_not_written() {
    let (_guard, folder) = folder();
    let before = fs::read(folder.file(RunFolder::STATE)).unwrap();
    let mut state = state();
    state.training.as_mut().unwrap().moment2[7] = f32::NAN;
    let error = folder.write_state(&state, &state.config.plan().unwrap().params).unwrap_err().to_string();
    assert!(error.contains("tensor `moment2.encoder.0.bias` is not finite at element 1"), "{error}");
    assert_eq!(fs::read(folder.file(RunFolder::STATE)).unwrap(), before);
}

#[test]
fn folders_that_cannot_be_used_are_named() {
    let guard = tempfile::tempdir().unwrap();
    let file = guard.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below")] {
        for existing in [Existing::Refuse, Existing::Replace, Existing::Resume] {
            let error = RunFolder::new(&path).prepare(&config(), existing).unwrap_err().to_string();
            assert!(error.starts_with(&path.display().to_string()), "{error}");
        }
    }
    assert_eq!(fs::read(&file).unwrap(), b"x");
}
