//! The same seed gives the same weights: over runs, thread counts, and however often training is killed.

mod common;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use common::{command, cvae, succeed};

fn model(folder: &Path, run: &str) -> Vec<u8> {
    fs::read(folder.join(run).join("model.safetensors")).unwrap()
}

#[test]
fn runs_and_thread_counts_agree_bitwise() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for objective in ["collapsed", "vae"] {
        let line = format!("train --layers 64-48-17-5 --objective {objective} --epochs 3 --seed 7");
        succeed(folder, &format!("{line} --threads 1 --out {objective}-first"));
        let first = model(folder, &format!("{objective}-first"));
        for (index, threads) in [1, 2, 3, 4].into_iter().enumerate() {
            let run = format!("{objective}-{index}");
            succeed(folder, &format!("{line} --threads {threads} --out {run}"));
            assert!(model(folder, &run) == first, "{objective} with {threads} threads");
        }
        succeed(folder, &format!("{line} --out {objective}-other").replace("--seed 7", "--seed 8"));
        assert!(model(folder, &format!("{objective}-other")) != first, "{objective}: the seed has no effect");
    }
}

#[test]
fn killed_training_goes_on_to_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let line = "train --layers 64-96-7 --objective vae --epochs 60 --seed 11 --validation 0.1 --checkpoint-every 0";
    succeed(folder, &format!("{line} --out whole"));

    // From before the folder exists to well within training.
    let mut kills = 0;
    for milliseconds in [1, 5, 10, 20, 35, 50, 80, 120, 170, 230, 60, 15] {
        let mut child = command(folder, &format!("{line} --out killed --resume"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        kills += u32::from(!status.success());
        // Whatever is there can be read.
        if folder.join("killed/model.safetensors").exists() {
            succeed(folder, "info --run killed");
            succeed(folder, "sample --run killed -n 3 --density prior --out s.npy");
        }
    }
    assert!(kills > 0, "training was always faster than the kill");
    succeed(folder, &format!("{line} --out killed --resume"));
    assert!(model(folder, "killed") == model(folder, "whole"));
    let leftovers: Vec<_> =
        common::listing(&folder.join("killed")).into_keys().filter(|path| is_temporary(path)).collect();
    assert_eq!(leftovers, [""; 0].map(std::path::PathBuf::from));
}

fn is_temporary(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tmp")
}

#[test]
fn more_epochs_continue_a_finished_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    succeed(folder, "train --preset digits --epochs 5 --seed 2 --out whole");
    succeed(folder, "train --preset digits --epochs 2 --seed 2 --out parts");
    // Everything else comes from the run's own configuration. The preset keeps its rate constant; a descent over all
    // epochs would make the first two differ.
    succeed(folder, "train --out parts --resume --epochs 5");
    assert!(model(folder, "parts") == model(folder, "whole"));
    let metrics = fs::read_to_string(folder.join("parts/metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 5);
    let other = "train --out parts --resume --batch-size 16";
    common::check_refusal(other, &cvae(folder, other), &["`batch_size` differs"]);
}

#[test]
fn divergence_stops_training_and_keeps_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let finished = cvae(folder, "train --layers 64-16-4 --epochs 20 --lr 1e12 --checkpoint-every 0 --out run");
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    let last = finished.stderr.lines().last().unwrap();
    assert!(last.starts_with("error: training diverged"), "{last}");
    for part in ["step ", "epoch ", "not finite"] {
        assert!(last.contains(part), "{last}");
    }
    assert!(["reconstruction", "latent", "decoder_l2", "parameter"].iter().any(|term| last.contains(term)), "{last}");
    assert!(!finished.stderr.contains("panicked"));
    succeed(folder, "info --run run");
    succeed(folder, "encode --run run --data digits:test --out z.npy");
}
