//! Generating and judging rows: densities, paths between rows, thresholds, explanations, comparisons.

mod common;

use std::fs;
use std::path::Path;

use common::{array, cvae, json, number, succeed};

/// A small model of the digits, trained in `folder/run`.
fn trained(folder: &Path) {
    succeed(folder, "train --layers 64-32-6 --epochs 30 --batch-size 32 --seed 3 --out run");
}

#[test]
fn densities_are_fitted_once_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    trained(folder);
    let model = fs::read(folder.join("run/model.safetensors")).unwrap();
    let named = ["--density gmm:3", "--density gmm-diag:auto", "--density flow", ""];
    for (density, spec) in named.into_iter().zip(["gmm:3", "gmm-diag:", "flow", "gmm:"]) {
        let line = format!("sample --run run -n 20 {density} --out s.npy");
        let first = cvae(folder, &line);
        assert_eq!(first.code, Some(0), "{}", first.stderr);
        assert!(first.stderr.contains("log-likelihood of a training code"), "{}", first.stderr);
        assert!(first.stderr.contains("of a test code") && first.stderr.contains("stored in run"), "{}", first.stderr);
        assert!(first.stderr.contains(&format!("codes drawn from {spec}")), "{}", first.stderr);
        let rows = array(&folder.join("s.npy"));
        let again = cvae(folder, &line);
        assert!(!again.stderr.contains("fitted"), "{density} was fitted again: {}", again.stderr);
        assert_eq!(array(&folder.join("s.npy")), rows, "{density}");
    }
    // What held-out codes chose is told apart from what was asked for by its size.
    let results = json(folder, "eval --run run --json");
    let densities = results["generation"]["densities"].as_array().unwrap();
    let chosen = |density: &&serde_json::Value| density["automatic"] == true;
    assert_eq!(densities.iter().filter(chosen).count(), 2, "{results}");
    assert!(
        densities.iter().any(|density| density["density"] == "gmm:3" && density["automatic"] == false),
        "{results}"
    );
    assert_eq!(fs::read(folder.join("run/model.safetensors")).unwrap(), model);
    // The run can still go on, and what was fitted to other weights is gone then.
    succeed(folder, "train --out run --resume --epochs 31");
    let again = cvae(folder, "sample --run run -n 20 --density gmm:3 --out s.npy");
    assert!(again.stderr.contains("fitted gmm:3"), "{}", again.stderr);
}

#[test]
fn temperature_narrows_the_samples() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    trained(folder);
    let sample = |arguments: &str| {
        succeed(folder, &format!("sample --run run -n 60 --density gaussian {arguments} --out s.npy"));
        array(&folder.join("s.npy")).2
    };
    let spread = |rows: &[f32]| -> f64 {
        (0..64)
            .map(|column| {
                let values: Vec<f64> = rows.iter().skip(column).step_by(64).map(|v| f64::from(*v)).collect();
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                values.iter().map(|value| (value - mean).powi(2)).sum::<f64>()
            })
            .sum()
    };
    let (whole, half, none) = (sample(""), sample("--temperature 0.5"), sample("--temperature 0"));
    assert!(spread(&half) < 0.7 * spread(&whole), "{} {}", spread(&half), spread(&whole));
    assert!(spread(&none) < 1e-6 * spread(&whole));
    assert_eq!(sample("--temperature 1"), whole);
}

#[test]
fn paths_join_the_reconstructions_of_their_ends() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    trained(folder);
    succeed(folder, "reconstruct --run run --data digits:test --out r.npy");
    let (_, width, reconstructed) = array(&folder.join("r.npy"));
    let row = |number: usize| &reconstructed[number * width..][..width];
    let mut paths = vec![];
    for arguments in ["", "--spherical", "--data digits:test --steps 7"] {
        succeed(folder, &format!("interpolate --run run --from 3 --to 11 {arguments} --out p.npy"));
        let (rows, found, values) = array(&folder.join("p.npy"));
        assert_eq!((rows, found), (if arguments.contains("steps") { 7 } else { 10 }, width));
        for (end, number) in [(0, 3), (rows - 1, 11)] {
            let differs = values[end * width..][..width].iter().zip(row(number)).map(|(a, b)| (a - b).abs());
            let worst = differs.fold(0.0, f32::max);
            assert!(worst < 1e-4, "{arguments}: end {end} differs by {worst}");
        }
        paths.push(values);
    }
    assert_ne!(paths[0], paths[1], "the arc is another way than the line");
}

#[test]
fn thresholds_flag_the_stated_share() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    trained(folder);
    let score = |arguments: &str| json(folder, &format!("score --run run {arguments} --out s.npy --json"));
    for terms in
        ["reconstruction", "standardized-residual,density", "mahalanobis", "neighbors", "smooth-residual,neighbors"]
    {
        let normal = score(&format!("--data digits:test --threshold-fpr 0.05 --terms {terms}"));
        let (rows, width, values) = array(&folder.join("s.npy"));
        assert_eq!((rows, width), (359, 2));
        let threshold = number(&normal, "threshold");
        let mut flagged = 0;
        for pair in values.chunks_exact(2) {
            let above = f64::from(pair[0]) > threshold;
            // The threshold is one of the scores: the rounding to 32 bits may put that row on either side.
            let on_it = (f64::from(pair[0]) - threshold).abs() < 1e-6 * threshold.abs();
            assert!(on_it || pair[1] == f32::from(u8::from(above)), "{terms}: {pair:?} at {threshold}");
            flagged += usize::from(pair[1] == 1.0);
        }
        assert_eq!(number(&normal, "abnormal"), flagged as f64);
        // The rows are those the threshold was set from (or contain them): at most the stated share is above it,
        // give or take the half that it was not set from.
        assert!(flagged as f64 <= 0.05 * 359.0 + 12.0, "{terms}: {flagged}");
        let noise = score(&format!("--data synthetic:normal:200x64 --threshold-fpr 0.05 --terms {terms}"));
        assert!(number(&noise, "abnormal") > 190.0, "{terms}: {noise}");
    }
    let text = succeed(folder, "score --run run --data digits:test --threshold-fpr 0.01 --out s.csv");
    assert!(text.contains("threshold") && text.contains("from 359 test rows"), "{text}");
    assert!(text.contains("of 359 rows exceed it"), "{text}");
    assert!(fs::read_to_string(folder.join("s.csv")).unwrap().starts_with("score,abnormal\n"));
    // A run with validation rows is judged by those.
    succeed(folder, "train --layers 64-16-4 --epochs 3 --validation 0.25 --out watched");
    let text = succeed(folder, "score --run watched --data digits:test --threshold-fpr 0.01 --out s.npy");
    assert!(text.contains("from 360 validation rows"), "{text}");
    let given = "score --run run --data digits:test --threshold-fpr 0.1 --held-out digits:train --out s.npy";
    assert!(succeed(folder, given).contains("from 1438 given rows"));
}

#[test]
fn explanations_name_the_features_that_were_changed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // Eight gauges that follow two causes; one row of `odd.csv` has gauge 5 off.
    let table = |rows: std::ops::Range<u32>, off: f64| {
        let names: Vec<String> = (0..8).map(|gauge| format!("gauge_{gauge}")).collect();
        let cell = |row: u32, gauge: u32| {
            let (a, b) = ((f64::from(row) * 0.37).sin(), (f64::from(row) * 0.73).cos());
            let fault = if gauge == 5 && row == 501 { off } else { 0.0 };
            (a * (1.0 + f64::from(gauge) / 8.0) + b * (f64::from(gauge) / 4.0 - 1.0) + fault).to_string()
        };
        let line = |row| (0..8).map(|gauge| cell(row, gauge)).collect::<Vec<_>>().join(",") + "\n";
        names.join(",") + "\n" + &rows.map(line).collect::<String>()
    };
    fs::write(folder.join("normal.csv"), table(0..400, 0.0)).unwrap();
    fs::write(folder.join("odd.csv"), table(500..502, 3.0)).unwrap();
    succeed(folder, "train normal.csv --layers 8-2 --epochs 150 --batch-size 32 --out run");
    let line = "score --run run --data odd.csv --explain 2 --threshold-fpr 0.05 --out s.csv";
    let printed = succeed(folder, line);
    let found = fs::read_to_string(folder.join("s.csv")).unwrap();
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines[0], "score,abnormal,feature1,share1,feature2,share2");
    let cells: Vec<f64> = lines[2].split(',').map(|cell| cell.parse().unwrap()).collect();
    assert_eq!((cells[1], cells[2]), (1.0, 5.0), "{found}");
    assert!(cells[3] > cells[5] && cells[3] + cells[5] <= 1.0, "{found}");
    assert!(printed.contains("row 1: score") && printed.contains("gauge_5"), "{printed}");
    assert!(printed.find("row 1:").unwrap() < printed.find("row 0:").unwrap(), "the worst comes first: {printed}");
}

#[test]
fn comparisons_have_a_line_for_each_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    succeed(folder, "train --layers 64-32-6 --epochs 20 --out wide");
    succeed(folder, "train --layers 64-2 --epochs 2 --objective ae --out narrow");
    let text = succeed(folder, "compare wide narrow");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].contains("MSE") && lines[1].starts_with("wide") && lines[2].starts_with("narrow"), "{text}");
    let results = json(folder, "compare wide narrow --json");
    let runs = results["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    let evaluated = json(folder, "eval --run wide --json");
    for key in ["mse", "pca_mse", "knn5", "linear_probe", "latent_rms"] {
        assert_eq!(runs[0][key], evaluated[key], "{key}");
    }
    assert!(number(&runs[0], "mse") < number(&runs[1], "mse"));
    assert_eq!((number(&runs[0], "epochs"), number(&runs[1], "epochs")), (20.0, 2.0));
    assert_eq!(runs[1]["objective"], "none");
}

#[test]
fn eval_puts_pca_an_untrained_network_and_samples_beside_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    trained(folder);
    succeed(folder, "sample --run run -n 5 --density gmm:4 --out s.npy");
    let results = json(folder, "eval --run run --json");
    let (pca, untrained) = (&results["baselines"]["pca"], &results["baselines"]["untrained"]);
    assert_eq!(number(pca, "mse"), number(&results, "pca_mse"));
    assert!(number(untrained, "mse") > 2.0 * number(&results, "mse"), "{results}");
    for figures in [pca, untrained, &results] {
        assert!(number(figures, "knn5") > 0.3 && number(figures, "linear_probe") > 0.3, "{figures}");
    }
    assert!(number(untrained, "linear_probe") < number(&results, "linear_probe"));
    let generation = &results["generation"];
    assert_eq!(generation["features"], "raw");
    let densities = generation["densities"].as_array().unwrap();
    let names: Vec<&str> = densities.iter().map(|density| density["density"].as_str().unwrap()).collect();
    assert_eq!(names, ["prior", "gaussian", "gmm:4"]);
    let figure = |index: usize, key: &str| number(&densities[index], key);
    assert!(number(generation, "reconstructions") < 0.5 * figure(0, "frechet"), "{generation}");
    assert!(figure(2, "frechet") < figure(0, "frechet") && figure(1, "frechet") < figure(0, "frechet"));
    assert!(figure(2, "precision") > figure(0, "precision"), "{generation}");
    assert!(figure(2, "log_likelihood") > figure(0, "log_likelihood"));
    assert!((0..3).all(|index| (0.0..=1.0).contains(&figure(index, "precision"))));
    let text = succeed(folder, "eval --run run");
    for part in ["PCA-6", "untrained", "samples, gmm:4", "reconstructions", "log-likelihood"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn distances_grow_with_the_difference() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    succeed(folder, "train --layers 64-32-6 --epochs 10 --out run");
    succeed(folder, "reconstruct --run run --data digits:test --out r.npy");
    let line = "distance --reference digits:test digits:train r.npy synthetic:normal:300x64 --features raw --json";
    let results = json(folder, line);
    let distances = results["distances"].as_array().unwrap();
    let frechet: Vec<f64> = distances.iter().map(|distance| number(distance, "frechet")).collect();
    assert!(frechet[0] < frechet[1] && frechet[1] < frechet[2], "{frechet:?}");
    assert_eq!(number(&distances[2], "precision"), 0.0);
    // Images of the classifier's size.
    let line = "distance --reference synthetic:normal:200x784 synthetic:normal:200x784:1 synthetic:normal:200x784";
    let results = json(folder, &format!("{line} --json"));
    assert_eq!(results["features"], "classifier");
    let distances = results["distances"].as_array().unwrap();
    assert!(number(&distances[0], "frechet") > 0.0 && number(&distances[1], "frechet") < 1e-6, "{results}");
    assert!(succeed(folder, line).contains("Fréchet"));
}
