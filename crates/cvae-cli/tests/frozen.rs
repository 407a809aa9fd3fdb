//! `cvae freeze`, and its files in place of run folders.
#![cfg(feature = "cpu")]

mod common;

use std::fs;

use common::{array, check_refusal, cvae, json, listing, number, succeed};

#[test]
fn frozen_models_stand_in_for_run_folders() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    succeed(folder, "train --epochs 30 --out run");
    succeed(folder, "encode --run run --data digits --out z.npy");
    succeed(folder, "reconstruct --run run --data digits --out r.npy");
    let (rows, latent, codes) = array(&folder.join("z.npy"));
    let (_, width, reconstructed) = array(&folder.join("r.npy"));

    let results = json(folder, "freeze --run run --out f32.safetensors --json");
    assert_eq!(results["precision"], "f32");
    let floats = number(&results, "bytes");
    let results = json(folder, "freeze --run run --precision bf16 --out bf16.safetensors --json");
    assert_eq!(results["precision"], "bf16");
    assert!(number(&results, "bytes") < 0.6 * floats, "{results}");
    let results = json(folder, "freeze --run run --precision int8 --out int8.safetensors --json");
    assert!(number(&results, "bytes") < 0.4 * floats, "{results}");
    let (mse, mse_f32) = (number(&results["quantised"], "mse"), number(&results["quantised"], "mse_f32"));
    assert!(mse < 1.02 * mse_f32, "{results}");
    assert_eq!(results["quantised"]["measured_on"], "test");

    let error = |found: &[f32], expected: &[f32]| {
        let squares = |f: &dyn Fn(usize) -> f32| (0..expected.len()).map(|i| f64::from(f(i)).powi(2)).sum::<f64>();
        (squares(&|i| found[i] - expected[i]) / squares(&|i| expected[i])).sqrt()
    };
    for (file, bound) in [("f32.safetensors", 1e-5), ("bf16.safetensors", 0.01), ("int8.safetensors", 0.05)] {
        succeed(folder, &format!("encode --run {file} --data digits --out fz.npy"));
        assert_eq!(array(&folder.join("fz.npy")).1, latent);
        let e = error(&array(&folder.join("fz.npy")).2, &codes);
        assert!(e < bound, "{file}: codes differ by {e}");
        succeed(folder, &format!("reconstruct --run {file} --data digits --out fr.npy --threads 3"));
        let e = error(&array(&folder.join("fr.npy")).2, &reconstructed);
        assert!(e < bound, "{file}: reconstructions differ by {e}");
        succeed(folder, &format!("decode --run {file} --latents fz.npy --out fd.npy"));
        assert_eq!(fs::read(folder.join("fd.npy")).unwrap(), fs::read(folder.join("fr.npy")).unwrap());
        succeed(folder, &format!("score --run {file} --data digits --out fs.npy"));
        assert_eq!(array(&folder.join("fs.npy")).0, rows);
        let info = json(folder, &format!("info --run {file} --json"));
        assert_eq!((number(&info, "width") as usize, number(&info, "latent") as usize), (width, latent));
        assert_eq!(info["precision"], file.split('.').next().unwrap());
    }
    let text = succeed(folder, "freeze --run run --precision int8 --calibration digits --out int8.safetensors");
    assert!(text.contains("MSE on calibration rows"), "{text}");
}

#[test]
fn bad_input_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    succeed(folder, "train --epochs 1 --out run");
    succeed(folder, "freeze --run run --out good.safetensors");
    let good = fs::read(folder.join("good.safetensors")).unwrap();
    fs::write(folder.join("short.safetensors"), &good[..good.len() - 5]).unwrap();
    fs::write(folder.join("text.safetensors"), b"neither a folder nor a model").unwrap();
    let before = listing(folder);
    let refusals: &[(&str, &[&str])] = &[
        ("freeze --run missing --out x.safetensors", &["missing"]),
        ("freeze --run good.safetensors --out x.safetensors", &["good.safetensors", "run folder"]),
        ("freeze --run run --precision int4 --out x.safetensors", &["int4", "f32, bf16, int8"]),
        ("freeze --run run --precision int8 --calibration missing.npy --out x.safetensors", &["missing.npy"]),
        ("freeze --run run --calibration digits --out x.safetensors", &["--calibration", "f32 has none"]),
        (
            "freeze --run run --precision bf16 --calibration digits --out x.safetensors",
            &["--calibration", "bf16 has none"],
        ),
        (
            "freeze --run run --precision int8 --calibration synthetic:normal:9x5 --out x.safetensors",
            &["synthetic:normal:9x5", "5", "64"],
        ),
        ("freeze --run run --out nowhere/x.safetensors", &["nowhere"]),
        ("encode --run short.safetensors --data digits --out z.npy", &["short.safetensors", "truncated"]),
        ("encode --run text.safetensors --data digits --out z.npy", &["text.safetensors"]),
        ("encode --run run/model.safetensors --data digits --out z.npy", &["model.safetensors", "not a frozen model"]),
        ("info --run run/model.safetensors", &["model.safetensors", "not a frozen model"]),
        ("encode --run good.safetensors --backend cuda --data digits --out z.npy", &["cuda", "CPU backend"]),
        ("eval --run good.safetensors", &["good.safetensors"]),
    ];
    for (line, parts) in refusals {
        check_refusal(line, &cvae(folder, line), parts);
        assert_eq!(listing(folder), before, "cvae {line} left something behind");
    }
}
