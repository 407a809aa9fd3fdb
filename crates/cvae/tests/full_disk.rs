//! A disk that fills up: one clear error, no partial file.
//!
//! The test runs itself once more under a limit on the size of files, which a write meets as it would meet a
//! full disk: after a part of the bytes.
#![cfg(unix)]
#![allow(clippy::print_stdout, reason = "the inner process reports on its standard output")]

mod common;

use std::fs;
use std::process::Command;

use common::{config, sheet};
use cvae::{Config, Existing, RunFolder, Trainer};
use cvae_core::{Activation, ModelSpec, Objective};

/// Folder of the limited run; set for the inner process alone.
const FOLDER: &str = "CVAE_TEST_FULL_DISK_FOLDER";

/// A model of a few hundred kilobytes.
fn large() -> Config {
    let model = ModelSpec::mlp(&[8, 4096, 3], Activation::Relu, Activation::Identity).unwrap();
    Config { model, epochs: 1, ..config(Objective::ae()) }
}

#[test]
fn a_full_disk_is_one_error_and_leaves_no_partial_file() {
    if let Ok(folder) = std::env::var(FOLDER) {
        let error = Trainer::new(large()).run_folder(folder, Existing::Refuse).fit(&sheet(40, 1)).unwrap_err();
        println!("outcome: {error}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    // 64 blocks of 512 or 1024 bytes; the signal of an exceeded limit is ignored, so that the write fails.
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact \"$1\" --nocapture";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg("a_full_disk_is_one_error_and_leaves_no_partial_file")
        .env(FOLDER, &run)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let outcome = text.lines().find_map(|line| line.split_once("outcome: ")).map(|(_, error)| error);
    let state = run.join(RunFolder::STATE);
    let expected = format!("{}: cannot be written: ", state.display());
    assert!(outcome.is_some_and(|error| error.starts_with(&expected)), "{text}");
    let names: Vec<_> = fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [RunFolder::CONFIG], "only whole files are left");
    // With room again, the run begins where it stopped: before the first step.
    let trained = Trainer::new(large()).run_folder(&run, Existing::Resume).fit(&sheet(40, 1)).unwrap();
    assert_eq!(trained.history.len(), 1);
}
