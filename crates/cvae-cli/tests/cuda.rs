//! Every command on the CUDA backend, by way of the emulated driver, and what is said where there is no GPU.
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use common::{Finished, array, cvae, number, refusal_fault};
use cvae::{BackendConfig, Config, Existing, RunFolder, TrainError, Trainer, registry};
use cvae_core::RunError;
use cvae_cuda_emu::{Emulator, Options};
use cvae_data::LoadOptions;

/// Runs the program in `folder` on the emulated driver with `options`, as `memory=1000,fail_launch=3`.
fn on_emulator(folder: &Path, options: &str, line: &str) -> Finished {
    let driver = Emulator::library().parent().unwrap();
    let mut command = common::command(folder, line);
    command.env("LD_LIBRARY_PATH", driver);
    match options {
        "" => command.env_remove(Emulator::VARIABLE),
        options => command.env(Emulator::VARIABLE, options),
    };
    command.output().unwrap().into()
}

/// Runs the program on the emulated driver; it must succeed.
fn succeed(folder: &Path, line: &str) -> String {
    let finished = on_emulator(folder, "", line);
    assert_eq!(finished.code, Some(0), "cvae {line}: {}", finished.stderr);
    finished.stdout
}

/// The JSON object on the last line of a run on the emulated driver that must succeed.
fn json(folder: &Path, line: &str) -> serde_json::Value {
    serde_json::from_str(succeed(folder, line).lines().last().unwrap()).unwrap()
}

/// Asserts that two array files hold the same up to `tolerance`, relative to the largest value.
fn assert_close(folder: &Path, found: &str, expected: &str, tolerance: f32) {
    let ((rows, width, found_values), expected_array) = (array(&folder.join(found)), array(&folder.join(expected)));
    assert_eq!((rows, width), (expected_array.0, expected_array.1), "{found}");
    let scale = expected_array.2.iter().fold(0.0f32, |scale, value| scale.max(value.abs()));
    let worst = found_values.iter().zip(&expected_array.2).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(worst <= tolerance * scale, "{found} and {expected} differ by {worst:e} of {scale}");
    assert!(scale > 0.0 && found_values.iter().all(|value| value.is_finite()), "{found}");
}

/// Training of a small model; two launches an epoch, so that faults can be placed.
const TRAIN: &str = "train --layers 64-16-4 --batch-size 32 --seed 3 --checkpoint-every 0 --json";

#[test]
fn every_command_computes_on_the_gpu_what_it_computes_on_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let gpu = json(folder, &format!("{TRAIN} --epochs 3 --backend cuda --out gpu"));
    let cpu = json(folder, &format!("{TRAIN} --epochs 3 --backend cpu-scalar --out cpu"));
    assert_eq!((gpu["backend"].as_str(), cpu["backend"].as_str()), (Some("cuda-f32"), Some("cpu-scalar")));
    for key in ["train_loss", "test_mse"] {
        let (gpu, cpu) = (number(&gpu, key), number(&cpu, key));
        assert!((gpu - cpu).abs() < 1e-3 * cpu, "{key}: {gpu} on the GPU, {cpu} on the CPU");
    }

    // The same run on both backends: rounding is all that may differ.
    for backend in ["cuda", "cpu"] {
        let run = |line: &str| succeed(folder, &format!("{line} --run gpu --backend {backend}"));
        run(&format!("encode --data digits --out z-{backend}.npy"));
        run(&format!("decode --latents z-{backend}.npy --out x-{backend}.npy"));
        run(&format!("reconstruct --data digits --out r-{backend}.npy"));
        run(&format!("score --data digits --out scores-{backend}.npy"));
        run(&format!("sample -n 300 --seed 5 --out s-{backend}.npy"));
    }
    for kind in ["z", "x", "r", "scores", "s"] {
        assert_close(folder, &format!("{kind}-cuda.npy"), &format!("{kind}-cpu.npy"), 2e-5);
    }
    let eval = |backend: &str| json(folder, &format!("eval --run gpu --json --backend {backend}"));
    let (gpu, cpu) = (eval("cuda"), eval("cpu"));
    assert_eq!(gpu["backend"], "cuda-f32");
    for key in ["mse", "psnr", "latent_rms", "effective_rank"] {
        let (gpu, cpu) = (number(&gpu, key), number(&cpu, key));
        assert!((gpu - cpu).abs() < 1e-4 * cpu.abs(), "{key}: {gpu} on the GPU, {cpu} on the CPU");
    }
}

#[test]
fn every_objective_trains_as_on_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // The refusal of a name that is none lists them all.
    let refused = cvae(folder, "train --objective none-such").stderr;
    let known = refused.trim().split_once("known: ").unwrap().1;
    let names: Vec<&str> = known.split(", ").collect();
    assert!(names.len() >= 15 && names.contains(&"wae-mmd"), "{names:?}");
    let train = |objective: &str, backend: &str| {
        let line = format!(
            "train --layers 64-12-4 --batch-size 256 --epochs 1 --objective {objective} --backend {backend} --out run \
             --force --json"
        );
        on_emulator(folder, "", &line)
    };
    let loss = |finished: &Finished| {
        let results: serde_json::Value = serde_json::from_str(finished.stdout.lines().last().unwrap()).unwrap();
        number(&results, "train_loss")
    };
    let mut compared = 0;
    for objective in names {
        let (gpu, cpu) = (train(objective, "cuda"), train(objective, "cpu-scalar"));
        // An objective that the CPU's kernels do not have yet is compared in the backend's own tests.
        if cpu.stderr.contains("has no kernel for") {
            continue;
        }
        assert_eq!((gpu.code, cpu.code), (Some(0), Some(0)), "{objective}: {} {}", gpu.stderr, cpu.stderr);
        let (gpu, cpu) = (loss(&gpu), loss(&cpu));
        assert!((gpu - cpu).abs() < 1e-3 * cpu.abs(), "{objective}: {gpu} on the GPU, {cpu} on the CPU");
        compared += 1;
    }
    assert!(compared >= 15, "{compared} objectives were compared");
}

#[test]
fn a_lost_device_leaves_the_last_checkpoint_from_which_training_goes_on_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let train = format!("{TRAIN} --epochs 4 --backend cuda");
    succeed(folder, &format!("{train} --out whole"));

    let line = format!("{train} --out run");
    let finished = on_emulator(folder, "fail_launch=900", &line);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    let last = finished.stderr.lines().last().unwrap();
    let lost = " failed: unspecified launch failure (CUDA_ERROR_LAUNCH_FAILED)";
    assert!(last.starts_with("error: emulated GPU: ") && last.ends_with(lost), "{}", finished.stderr);
    assert!(!finished.stderr.contains("panicked") && finished.stdout.is_empty(), "{}", finished.stderr);
    let epochs = fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap().lines().count();
    assert!((1..4).contains(&epochs), "{epochs} epochs are in the last checkpoint");

    // The checkpoint is whole: another backend reads it, and going on ends where an undisturbed run ends.
    succeed(folder, "encode --run run --data digits --backend cpu --out z.npy");
    succeed(folder, &format!("{train} --out run --resume"));
    let model = |run: &str| fs::read(folder.join(run).join("model.safetensors")).unwrap();
    assert!(model("run") == model("whole"), "the resumed run ended in other parameters");
}

#[test]
fn a_gpu_without_memory_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let line = format!("{TRAIN} --epochs 1 --backend cuda --out run");
    let finished = on_emulator(folder.path(), "memory=20000", &line);
    let fault = refusal_fault(&line, &finished, &["cannot allocate ", " bytes for "]);
    assert!(fault.is_none(), "{}", fault.unwrap_or_default());
    assert!(!folder.path().join("run").exists(), "nothing was written");
}

#[test]
fn memory_that_runs_out_during_training_leaves_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut config = Config::digits();
    (config.epochs, config.backend.name) = (1, "cuda".to_owned());
    let rows = config.load_rows(&LoadOptions::default()).unwrap();
    let emulator = Emulator::install().unwrap();
    let train = |epochs, existing, fail_allocation| {
        emulator.configure(Options { fail_allocation, ..Options::default() });
        let mut allocations = 0;
        let trained = Trainer::new(Config { epochs, ..config.clone() })
            .run_folder(&path, existing)
            .checkpoint_every(Duration::ZERO)
            .on_progress(|progress| {
                if progress.record.is_some() {
                    allocations = emulator.statistics().allocations;
                }
                ControlFlow::Continue(())
            })
            .fit(&rows.train);
        (trained.map(|trained| trained.history.len()), allocations)
    };
    let (trained, allocations) = train(1, Existing::Refuse, 0);
    assert_eq!(trained.unwrap(), 1);
    // The last allocation before the end of an epoch is made when its first step begins.
    let (trained, _) = train(2, Existing::Resume, allocations);
    match trained {
        Err(TrainError::Run(RunError::Memory { what: "the row order of an epoch", .. })) => {}
        other => panic!("expected memory to run out within the epoch, got {other:?}"),
    }
    let checkpoint = RunFolder::new(&path).read_state().unwrap().training.unwrap();
    assert_eq!((checkpoint.history.len(), checkpoint.step), (1, checkpoint.history[0].step));
    let (trained, _) = train(2, Existing::Resume, 0);
    assert_eq!(trained.unwrap(), 2);
}

#[test]
fn auto_takes_the_gpu_where_the_work_is_large_enough_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let train = |options: &str, line: &str| {
        let finished = on_emulator(folder.path(), options, &format!("train --epochs 1 --force --out run {line}"));
        assert_eq!(finished.code, Some(0), "{line}: {}", finished.stderr);
        finished.stderr.lines().find(|line| line.starts_with("backend ")).unwrap().to_owned()
    };
    let large = train("", "--layers 64-256-128-8 --batch-size 32");
    assert!(large.contains("cuda-f32: there is a GPU, and a training step is large enough"), "{large}");
    let small = train("", "--layers 64-8-2 --batch-size 8");
    assert!(small.contains(" cpu-") && small.contains("too small to gain from the GPU (emulated GPU)"), "{small}");
    let none = train("device=0", "--layers 64-256-128-8 --batch-size 32");
    assert!(none.contains(" cpu-") && !none.contains("GPU"), "{none}");
    let old = train("driver_version=12040", "--layers 64-256-128-8 --batch-size 32");
    assert!(
        old.contains(" cpu-") && old.contains("cuda-f32 cannot be used: the CUDA driver supports CUDA 12.4"),
        "{old}"
    );
}

#[test]
fn backends_lists_the_gpu_with_its_memory_and_capability_or_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let line_of = |options: &str| {
        let finished = on_emulator(folder.path(), options, "backends");
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished.stdout.lines().find(|line| line.starts_with("cuda-f32")).unwrap().to_owned()
    };
    let there = line_of("");
    assert!(there.contains("available: emulated GPU, 4.0 GiB, compute capability 8.0"), "{there}");
    assert!(line_of("device=0").ends_with("unavailable: a CUDA driver, but no GPU"));
}

#[test]
fn without_a_driver_one_sentence_says_so() {
    let folder = tempfile::tempdir().unwrap();
    // The loader finds these before any driver of the machine, and cannot load them.
    let drivers = folder.path().join("drivers");
    fs::create_dir(&drivers).unwrap();
    for name in ["libcuda.so", "libcuda.so.1"] {
        fs::write(drivers.join(name), "no library").unwrap();
    }
    let run = |line: &str| -> Finished {
        common::command(folder.path(), line).env("LD_LIBRARY_PATH", &drivers).output().unwrap().into()
    };
    let sentence = "no CUDA driver (libcuda.so.1 not found)";
    let listed = run("backends");
    let lines: Vec<&str> = listed.stdout.lines().filter(|line| line.starts_with("cuda-")).collect();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line.ends_with(&format!("unavailable: {sentence}"))), "{lines:?}");

    let line = "train --epochs 1 --backend cuda --out run";
    let fault = refusal_fault(line, &run(line), &[&format!("cuda-f32 cannot be used: {sentence}")]);
    assert!(fault.is_none(), "{}", fault.unwrap_or_default());
    assert!(!folder.path().join("run").exists(), "nothing was written");
    assert_eq!(run("train --epochs 1 --out run").code, Some(0), "auto needs no driver");
}

#[test]
fn the_configuration_names_the_gpu_for_later_commands() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    succeed(folder, &format!("{TRAIN} --epochs 1 --backend cuda-tf32 --out run"));
    assert_eq!(json(folder, "eval --run run --json")["backend"], "cuda-tf32");
    // Where its driver is gone, another backend can be named.
    let line = "eval --run run --json";
    assert_eq!(on_emulator(folder, "device=0", line).code, Some(1));
    let elsewhere = cvae(folder, "eval --run run --json --backend cpu");
    assert_eq!(elsewhere.code, Some(0), "{}", elsewhere.stderr);
    let chosen = registry::select(&BackendConfig { name: "cpu".to_owned(), ..BackendConfig::default() });
    let value: serde_json::Value = serde_json::from_str(elsewhere.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(value["backend"], chosen.unwrap().backend.id().as_str());
}
