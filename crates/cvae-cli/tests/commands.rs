//! Every command, from its arguments to its files.

mod common;

use std::fs;
use std::path::Path;

use common::{array, cvae, json, number, succeed};

/// A small model of the digits, trained in `folder/run`.
fn trained(folder: &Path) -> serde_json::Value {
    json(folder, "train --layers 64-32-6 --epochs 30 --batch-size 32 --seed 3 --out run --json")
}

#[test]
fn train_prints_its_results_and_writes_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let results = trained(folder);
    assert_eq!(results["run"], "run");
    assert!(results["backend"].as_str().unwrap().starts_with("cpu-"));
    assert_eq!(number(&results, "epochs"), 30.0);
    // 1438 training rows in batches of 32, the short one kept.
    assert_eq!(number(&results, "steps"), 30.0 * 45.0);
    let (mse, floor) = (number(&results, "test_mse"), number(&results, "pca_mse"));
    assert!(floor > 0.02 && floor < 0.05, "{floor}");
    assert!(mse < 1.2 * floor, "{mse} against {floor}");
    for key in ["train_loss", "train_seconds", "steps_per_second"] {
        assert!(number(&results, key) > 0.0, "{key}");
    }
    for file in ["config.toml", "model.safetensors", "state.safetensors", "metrics.jsonl", "report.html"] {
        assert!(folder.join("run").join(file).is_file(), "{file}");
    }
    let metrics = fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 30);
    for line in metrics.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    assert_eq!(fs::read_dir(folder.join("run")).unwrap().count(), 5);
}

#[test]
fn the_default_beats_the_linear_model() {
    let folder = tempfile::tempdir().unwrap();
    let finished = cvae(folder.path(), "train");
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let last: Vec<&str> = finished.stdout.lines().rev().take(8).collect();
    let value = |name: &str| -> f64 {
        let line = last.iter().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {last:?}"));
        line[name.len()..].split_whitespace().next().unwrap().parse().unwrap()
    };
    let (mse, floor, ratio) = (value("test MSE"), value("PCA with 8 components"), value("ratio"));
    assert!(ratio <= 0.6 && (mse / floor - ratio).abs() < 0.01, "{mse} {floor} {ratio}");
    let text = finished.stdout.as_str();
    assert!(text.contains("runs/digits-1") && text.contains("cvae eval --run runs/digits-1"), "{text}");
    assert!(folder.path().join("runs/digits-1/report.html").is_file());
    let again = succeed(folder.path(), "train --epochs 1");
    assert!(again.contains("runs/digits-2"), "{again}");
}

#[test]
fn rows_go_through_a_trained_model() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let results = trained(folder);

    succeed(folder, "encode --run run --data digits:test --out z.npy");
    let (rows, width, codes) = array(&folder.join("z.npy"));
    assert_eq!((rows, width), (359, 6));
    succeed(folder, "decode --run run --latents z.npy --out x.npy");
    succeed(folder, "reconstruct --run run --data digits:test --out r.npy");
    let (decoded, reconstructed) = (array(&folder.join("x.npy")), array(&folder.join("r.npy")));
    assert_eq!((decoded.0, decoded.1), (359, 64));
    // The two ways differ in nothing but the place where the code is stored.
    assert_eq!(decoded, reconstructed);
    assert!(codes.iter().any(|code| *code != codes[0]));

    succeed(folder, "reconstruct --run run --data digits --out all.npy");
    let evaluated = json(folder, "eval --run run --json");
    assert_eq!(number(&evaluated, "mse"), number(&results, "test_mse"));
    assert_eq!(number(&evaluated, "pca_mse"), number(&results, "pca_mse"));

    succeed(folder, "score --run run --data digits:test --out s.npy");
    let (rows, width, scores) = array(&folder.join("s.npy"));
    assert_eq!((rows, width), (359, 1));
    let target =
        "digits:test".parse::<cvae_data::Source>().unwrap().load(&Default::default()).unwrap().to_f32().into_owned();
    for (row, score) in scores.iter().enumerate().step_by(37) {
        let range = row * 64..(row + 1) * 64;
        let squares = target[range.clone()].iter().zip(&reconstructed.2[range]).map(|(a, b)| f64::from(a - b).powi(2));
        let expected = squares.sum::<f64>() / 64.0;
        assert!((f64::from(*score) / expected - 1.0).abs() < 1e-4, "row {row}: {score} against {expected}");
    }
    // Noise is more abnormal than digits.
    succeed(folder, "score --run run --data synthetic:normal:300x64 --out noise.npy");
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    assert!(mean(&array(&folder.join("noise.npy")).2) > 5.0 * mean(&scores));
}

#[test]
fn eval_measures_what_the_contract_names() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    trained(folder);
    let results = json(folder, "eval --run run --json");
    for key in ["mse", "psnr", "pca_mse", "latent_rms", "active_units", "effective_rank", "knn5", "linear_probe"] {
        assert!(number(&results, key) > 0.0, "{key}");
    }
    assert!((number(&results, "psnr") + 10.0 * number(&results, "mse").log10()).abs() < 1e-6);
    assert!(number(&results, "knn5") > 0.7, "{results}");
    let other = json(folder, "eval --run run --data synthetic:normal:40x64 --json");
    assert!(number(&other, "mse") > number(&results, "mse"));
    assert!(other["knn5"].is_null(), "{other}");
    let text = succeed(folder, "eval --run run");
    assert!(text.contains("MSE") && text.contains("PCA-6"), "{text}");
}

#[test]
fn samples_are_a_function_of_density_and_seed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    trained(folder);
    let sample = |arguments: &str| {
        succeed(folder, &format!("sample --run run {arguments} --out s.npy"));
        array(&folder.join("s.npy"))
    };
    let first = sample("-n 50 --seed 5 --density gaussian");
    assert_eq!((first.0, first.1), (50, 64));
    assert_eq!(sample("-n 50 --seed 5 --density gaussian"), first);
    assert_ne!(sample("-n 50 --seed 6 --density gaussian"), first);
    assert_ne!(sample("-n 50 --seed 5 --density prior"), first);
    assert_eq!(sample("-n 7 --density gmm:2").0, 7);
    // More rows begin with the same rows.
    assert_eq!(sample("-n 80 --seed 5 --density gaussian").2[..50 * 64], first.2);
}

#[test]
fn files_of_every_format_are_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    succeed(folder, "train synthetic:normal:120x5 --layers 5-4-2 --epochs 3 --scaling standardize --out run");
    succeed(folder, "reconstruct --run run --data synthetic:normal:30x5 --out rows.npy");
    succeed(folder, "reconstruct --run run --data synthetic:normal:30x5 --out rows.csv");
    let (npy, csv) = (array(&folder.join("rows.npy")), array(&folder.join("rows.csv")));
    assert_eq!(npy, csv);
    assert!(fs::read_to_string(folder.join("rows.csv")).unwrap().starts_with("x0,x1,x2,x3,x4\n"));
    succeed(folder, "train rows.npy --epochs 2 --out from-npy");
    succeed(folder, "train rows.csv --epochs 2 --out from-csv");
    let weights = |run: &str| cvae::RunFolder::new(folder.join(run)).read_model().unwrap().params;
    assert_eq!(weights("from-npy"), weights("from-csv"));
    succeed(folder, "encode --run from-npy --data rows.csv --out z.csv");
    assert!(fs::read_to_string(folder.join("z.csv")).unwrap().starts_with("z0,z1\n"));
}

#[test]
fn chunks_do_not_show_in_the_output() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    succeed(folder, "train synthetic:normal:100x700 --layers 700-3 --epochs 1 --out run");
    // Longer than a chunk of this width, and not a multiple of one.
    succeed(folder, "encode --run run --data synthetic:normal:7001x700 --out z.npy");
    let (rows, _, codes) = array(&folder.join("z.npy"));
    assert_eq!(rows, 7001);
    let data = "synthetic:normal:7001x700".parse::<cvae_data::Source>().unwrap().load(&Default::default()).unwrap();
    let backend = cvae::registry::select(&cvae::BackendConfig::default()).unwrap().backend;
    let model = cvae::Autoencoder::load(folder.join("run"), backend.as_ref()).unwrap();
    assert_eq!(model.encode_dataset(&data).unwrap(), codes);
}

#[test]
fn info_and_backends_tell_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    trained(folder);
    let text = succeed(folder, "info --run run");
    for part in ["64-32-6-32-64", "collapsed(beta=0.0064)", "30 of 30 epochs", "digits"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let info = json(folder, "info --run run --json");
    assert_eq!((number(&info, "width"), number(&info, "latent"), number(&info, "epochs")), (64.0, 6.0, 30.0));
    let parameters = 64 * 32 + 32 + 32 * 6 + 6 + 6 * 32 + 32 + 32 * 64 + 64;
    assert_eq!(number(&info, "parameters"), f64::from(parameters));

    let backends = json(folder, "backends --json");
    let backends = backends["backends"].as_array().unwrap();
    let find = |id: &str| backends.iter().find(|backend| backend["id"] == id).unwrap();
    assert_eq!(find("cpu-scalar")["available"], true);
    for backend in backends {
        assert!(!backend["detail"].as_str().unwrap().is_empty(), "{backend}");
    }
    assert_eq!(succeed(folder, "backends").lines().count(), backends.len());
}

#[test]
fn the_reference_preset_takes_its_steps() {
    let folder = tempfile::tempdir().unwrap();
    let results = json(folder.path(), "train --preset reference --epochs 2 --json --out run");
    // 1000 rows in batches of 32, the short last one kept.
    assert_eq!(number(&results, "steps"), 64.0);
    assert_eq!(number(&results, "pca_mse"), 0.0);
    assert_eq!(results["tested_on"], "train");
    let loss = number(&results, "train_loss");
    assert!((0.9..1.1).contains(&loss), "{loss}");
}

#[test]
fn a_finished_reader_of_standard_output_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = common::command(folder.path(), "backends")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]));
}

#[test]
fn existing_runs_are_kept_unless_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let line = "train --layers 64-8 --epochs 2 --out run";
    succeed(folder, line);
    let model = fs::read(folder.join("run/model.safetensors")).unwrap();
    common::check_refusal(line, &cvae(folder, line), &["run", "not empty"]);
    assert_eq!(fs::read(folder.join("run/model.safetensors")).unwrap(), model);
    succeed(folder, &format!("{line} --seed 4 --force"));
    assert_ne!(fs::read(folder.join("run/model.safetensors")).unwrap(), model);
    fs::create_dir(folder.join("mine")).unwrap();
    fs::write(folder.join("mine/letter.txt"), "dear").unwrap();
    let line = "train --layers 64-8 --epochs 2 --out mine --force";
    common::check_refusal(line, &cvae(folder, line), &["mine", "not a run folder"]);
    assert_eq!(common::listing(&folder.join("mine")).len(), 1);
}
