//! The objective family through the program: training, missing values, layers that export multiplies out.

mod common;

use std::fs;
use std::path::Path;

use common::{array, check_refusal, cvae, json, number, succeed};

#[test]
fn every_objective_trains_and_is_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut losses = vec![];
    for name in [
        "collapsed",
        "rae-gp",
        "rae-sn",
        "ae",
        "vae",
        "beta-vae",
        "capacity",
        "free-bits",
        "sigma-vae",
        "contractive",
        "denoising",
        "masked",
        "sparse",
        "top-k",
        "wae-mmd",
        "irmae",
    ] {
        let line = format!("train --layers 64-24-6 --epochs 3 --objective {name} --out {name} --json");
        let results = json(folder, &line);
        let first = fs::read_to_string(folder.join(name).join("metrics.jsonl")).unwrap();
        let first: serde_json::Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
        assert!(number(&results, "train_loss") < number(&first, "loss"), "{name}: {results} after {first}");
        losses.push((number(&results, "train_loss"), name));
        let code = succeed(folder, &format!("encode --run {name} --data digits:test --out z.npy"));
        assert_eq!(code, "");
        assert_eq!(array(&folder.join("z.npy")).1, 6, "{name}");
    }
    losses.sort_by(|a, b| a.0.total_cmp(&b.0));
    for pair in losses.windows(2) {
        assert!(pair[0].0 < pair[1].0, "{} and {} are the same objective", pair[0].1, pair[1].1);
    }
    let resumed = json(folder, "train --out irmae --resume --objective irmae --epochs 4 --json");
    assert_eq!(number(&resumed, "epochs"), 4.0);
}

/// Freezing folds linear layers and spectral norms away: the same function from plain layers.
#[test]
fn freezing_keeps_the_function_and_drops_what_served_training() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for name in ["irmae", "rae-sn"] {
        succeed(folder, &format!("train --layers 64-24-6 --epochs 3 --objective {name} --out {name}"));
        let frozen = format!("{name}.safetensors");
        succeed(folder, &format!("freeze --run {name} --out {frozen}"));
        for command in ["encode", "reconstruct"] {
            let apply = |run: &str| {
                succeed(folder, &format!("{command} --run {run} --data digits:test --out z.npy"));
                array(&folder.join("z.npy")).2
            };
            let (run, frozen) = (apply(name), apply(&frozen));
            let worst = run.iter().zip(&frozen).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let size = run.iter().fold(0.0f32, |size, value| size.max(value.abs()));
            assert!(worst < 1e-4 * size, "{command} of {name}: {worst} of {size}");
        }
        let bytes = |name: &Path| fs::metadata(name).unwrap().len();
        let smaller = bytes(&folder.join(&frozen)) < bytes(&folder.join(name).join("model.safetensors"));
        assert!(smaller || name != "irmae", "the linear layers are gone");
    }
}

/// A table of six columns that follow two causes. Every fifth cell is empty, or all are there.
fn table(rows: std::ops::Range<u32>, empty: bool) -> String {
    let cell = |row: u32, column: u32| {
        let (a, b) = ((f64::from(row) * 0.37).sin(), (f64::from(row) * 0.73).cos());
        let value = 5.0 + a * (1.0 + f64::from(column) / 3.0) + b * (f64::from(column) / 2.0 - 1.0);
        if empty && (7 * row + 3 * column).is_multiple_of(5) { String::new() } else { value.to_string() }
    };
    let line = |row| (0..6).map(|column| cell(row, column)).collect::<Vec<_>>().join(",") + "\n";
    "a,b,c,d,e,f\n".to_owned() + &rows.map(line).collect::<String>()
}

#[test]
fn missing_values_are_left_out_and_filled_in() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("gaps.csv"), table(0..400, true)).unwrap();
    fs::write(folder.join("whole.csv"), table(0..400, false)).unwrap();
    let line = "train gaps.csv --layers 6-32-2 --out run";
    check_refusal(line, &cvae(folder, line), &["gaps.csv", "line 2"]);
    let results = json(folder, &format!("{line} --missing --corruption masking:0.2 --epochs 150 --json"));
    assert!(number(&results, "test_mse") < 0.5, "{results}");
    for command in ["reconstruct", "encode", "score --explain 2 --threshold-fpr 0.1"] {
        succeed(folder, &format!("{command} --run run --data gaps.csv --out out.npy"));
        assert!(array(&folder.join("out.npy")).2.iter().all(|value| value.is_finite()), "{command}");
    }
    succeed(folder, "eval --run run --data gaps.csv");
    succeed(folder, "reconstruct --run run --data gaps.csv --out filled.npy");
    let (filled, whole) = (array(&folder.join("filled.npy")).2, array(&folder.join("whole.csv")).2);
    let text = fs::read_to_string(folder.join("gaps.csv")).unwrap();
    let gaps: Vec<bool> = text.lines().skip(1).flat_map(|line| line.split(',').map(str::is_empty)).collect();
    let error = |guess: &dyn Fn(usize) -> f32| {
        let squares =
            (0..whole.len()).filter(|cell| gaps[*cell]).map(|cell| f64::from(guess(cell) - whole[cell]).powi(2));
        squares.sum::<f64>()
    };
    let mean = |column: usize| whole.iter().skip(column).step_by(6).sum::<f32>() / 400.0;
    let means: Vec<f32> = (0..6).map(mean).collect();
    let (model, plain) = (error(&|cell| filled[cell]), error(&|cell| means[cell % 6]));
    assert!(model < 0.3 * plain, "{model} against {plain} of the column means");
}
