//! Which configuration arguments give.

use clap::Parser;

use super::*;
use crate::args::{Cli, Command};

fn args(line: &str) -> TrainArgs {
    let words = ["cvae", "train"].into_iter().chain(line.split_whitespace());
    match Cli::try_parse_from(words).unwrap().command {
        Command::Train(args) => *args,
        _ => unreachable!("`train` is `train`"),
    }
}

fn config(line: &str) -> Config {
    training(&args(line)).unwrap().0
}

fn refusal(line: &str) -> String {
    crate::output::sentence(&training(&args(line)).unwrap_err())
}

#[test]
fn nothing_said_is_the_digits_preset() {
    assert_eq!(config(""), Config::digits());
    assert_eq!(config("digits"), Config::digits());
    assert_eq!(config("--preset reference"), Config::reference_preset());
}

#[test]
fn flags_override_the_preset() {
    let line = "--preset reference --epochs 3 --batch-size 16 --lr 0.5 --seed 9 --backend cpu --threads 1";
    let config = config(line);
    let reference = Config::reference_preset();
    assert_eq!((config.epochs, config.batch_size, config.seed), (3, 16, 9));
    assert_eq!(config.optimizer.learning_rate, 0.5);
    assert_eq!((config.backend.name.as_str(), config.backend.threads), ("cpu", None));
    assert_eq!(backend(&args(line), &config).threads, Some(1));
    assert_eq!((config.model, config.objective), (reference.model, reference.objective));
}

#[test]
fn objectives_and_their_weights() {
    assert_eq!(config("--objective ae").objective, Objective::ae());
    assert_eq!(config("--objective vae").objective, Objective::vae(1.0));
    assert_eq!(config("--objective vae --beta 0.5").objective, Objective::vae(0.5));
    assert_eq!(config("--objective collapsed --beta 0.1 --decoder-l2 0.2").objective, Objective::collapsed(0.1, 0.2));
    assert_eq!(config("--preset reference --decoder-l2 0.2").objective.decoder_l2, 0.2);
    assert!(refusal("--objective ae --beta 1").contains("--beta"));
    assert!(refusal("--objective gan").starts_with("unknown objective `gan`; known: ae, vae"));
    assert!(refusal("--beta -1").contains("`beta` must be a finite number of at least 0, got -1"));
}

#[test]
fn models_are_built_from_widths_and_activations() {
    let sigmoid = config("--layers 64-8 --output sigmoid --reconstruction bce");
    assert_eq!(sigmoid.model, ModelSpec::mlp(&[64, 8], Activation::Relu, Activation::Sigmoid).unwrap());
    assert_eq!(sigmoid.objective.reconstruction, Reconstruction::Bce);
    let pair = config("--layers 64-32-8 --decoder 8-64 --activation tanh").model;
    assert_eq!(pair, ModelSpec::mlp_pair(&[64, 32, 8], &[8, 64], Activation::Tanh, Activation::Identity).unwrap());
    let gelu = config("--activation gelu").model;
    assert_eq!(gelu, ModelSpec::mlp(&[64, 256, 128, 8], Activation::Gelu, Activation::Identity).unwrap());
    let wide = config("synthetic:normal:50x10").model;
    assert_eq!(wide, ModelSpec::mlp(&[10, 40, 20, 2], Activation::Gelu, Activation::Identity).unwrap());
}

#[test]
fn the_rows_decide_what_nobody_said() {
    let config = config("synthetic:normal:7000x10 --epochs 7 --validation 0.5 --lr 0.004");
    assert_eq!((config.epochs, config.batch_size, config.data.scaling), (7, 64, Scaling::Standardize));
    // Of 7000 rows 1400 are for testing, and half of the others is trained on: 44 batches an epoch.
    let schedule = cvae_core::Schedule::Cosine { steps: 7 * 44, final_factor: 0.02 };
    assert_eq!((config.optimizer.learning_rate, config.optimizer.schedule), (0.004, schedule));
    let few = super::training(&args("synthetic:normal:600x10")).unwrap().0;
    // 120 of the 600 rows are for testing.
    assert_eq!((few.epochs, few.batch_size), (200, 32));
    let images = super::training(&args("--layers 64-8")).unwrap().0;
    assert_eq!(images.data.scaling, Scaling::None);
    let given = super::training(&args("synthetic:normal:600x10 --scaling min-max")).unwrap().0;
    assert_eq!(given.data.scaling, Scaling::MinMax);
}

/// A folder with a file of 20 black images of 16×16 pixels.
fn images() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("black-images-idx3-ubyte");
    let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, 20, 0, 0, 0, 16, 0, 0, 0, 16];
    bytes.resize(16 + 20 * 256, 0);
    std::fs::write(&path, bytes).unwrap();
    let name = path.display().to_string();
    (folder, name)
}

#[test]
fn images_have_defaults_of_their_own() {
    let (_folder, images) = images();
    let of = |flags: &str| config(&format!("{images} {flags}"));
    let shape = cvae_data::ImageShape { height: 16, width: 16, channels: 1 };
    let expected = Config::for_images(16, shape).unwrap();
    for line in ["", "--objective collapsed", "--objective rae-l2"] {
        let found = of(line);
        assert_eq!((&found.objective, found.codes), (&expected.objective, CodeBasis::Aligned), "{line}");
        assert_eq!((found.optimizer, found.data.scaling), (expected.optimizer, Scaling::None), "{line}");
    }
    let model = ModelSpec::mlp(&[256, 512, 256, 32], Activation::Gelu, Activation::Identity).unwrap();
    assert_eq!(of("").model, model.clone().with_activation_before_code(Activation::Tanh));
    assert_eq!(of("--activation gelu").model, model);
    let layers = of("--layers 256-64-16-8").model;
    let gelu = ModelSpec::mlp(&[256, 64, 16, 8], Activation::Gelu, Activation::Identity).unwrap();
    assert_eq!(layers, gelu.with_activation_before_code(Activation::Tanh));
    let one = of("--layers 256-64-8").model;
    assert_eq!(one, ModelSpec::mlp(&[256, 64, 8], Activation::Gelu, Activation::Identity).unwrap());
    let weights = of("--beta 0.5 --decoder-l2 0.25 --lr 0.1");
    assert_eq!(
        weights.objective,
        Objective { corruption: expected.objective.corruption, ..Objective::collapsed(0.5, 0.25) }
    );
    assert_eq!(weights.optimizer.learning_rate, 0.1);
    // A run that is resumed with the same words goes on as it was begun.
    let run = tempfile::tempdir().unwrap();
    let begun = of("--objective collapsed --layers 256-64-16-8");
    std::fs::write(run.path().join(RunFolder::CONFIG), begun.to_toml().unwrap()).unwrap();
    let resumed = format!("--objective collapsed --layers 256-64-16-8 --resume --out {}", run.path().display());
    assert_eq!(of(&resumed), begun);
    // Codes are aligned where they can be, unless something else is said.
    for line in ["--corruption none", "--linear-layers 1", "--codes trained"] {
        assert_eq!(of(line).codes, CodeBasis::Trained, "{line}");
    }
    for (name, objective) in [("ae", Objective::ae()), ("vae", Objective::vae(1.0))] {
        let other = of(&format!("--objective {name}"));
        assert_eq!((other.objective, other.codes), (objective, CodeBasis::Trained));
        assert_eq!(other.optimizer.learning_rate, 1e-3);
    }
    let given = of("--objective ae --corruption shift:0.5:2 --codes aligned");
    assert_eq!((given.codes, given.objective.corruption.name()), (CodeBasis::Aligned, "shift"));
    let refused = refusal(&format!("{images} --codes aligned --objective vae"));
    assert_eq!(refused, "`codes = \"aligned\"` needs the corruption `shift`");
    assert_eq!(refusal("--codes white"), "unknown codes `white`; known: trained, aligned");
}

#[test]
fn linear_layers_come_once() {
    let linear = |line: &str| {
        let encoder = config(line).model.encoder;
        encoder.iter().filter(|layer| matches!(layer, cvae_core::LayerSpec::Linear { .. })).count()
    };
    assert_eq!(linear("--objective irmae"), 4);
    assert_eq!(linear("--objective irmae --linear-layers 2 --layers 64-32-8"), 2);
    assert_eq!(linear("--linear-layers 3"), 3);
    assert_eq!(linear("--objective ae"), 0);
    let deep = config("--objective irmae");
    let again = model(&deep.model, &args("--objective irmae")).unwrap();
    assert_eq!(again, deep.model);
    assert_eq!(model(&deep.model, &args("")).unwrap(), deep.model);
    assert!(refusal("--linear-layers 65").contains("65"));
}

#[test]
fn every_objective_of_the_help_is_accepted() {
    for name in ["rae-gp", "capacity", "free-bits", "sigma-vae", "denoising", "masked", "sparse", "top-k", "wae-mmd"] {
        let config = config(&format!("--layers 64-16-8 --objective {name}"));
        assert_ne!(config.objective, Objective::default(), "{name}");
        assert_eq!(Config::from_toml(&config.to_toml().unwrap()).unwrap(), config, "{name}");
    }
    assert_eq!(config("--objective rae-l2").objective, Objective::default());
    let masked = config("--objective masked --corruption masked:0.5:2").objective.corruption;
    assert_eq!(masked.to_string(), "masked(share=0.5, patch=2)");
}

#[test]
fn what_cannot_be_used_is_named() {
    for (line, expected) in [
        ("--preset refrence", "unknown preset `refrence`; known: digits, reference"),
        ("--config missing.toml", "missing.toml: cannot be read"),
        ("--layers 64-0-8", "width 0 at position 1 of the encoder"),
        ("--layers 64-32-0", "width 0 at position 2 of the encoder"),
        ("--layers 64", "at least two widths"),
        ("--decoder 9-64", "the decoder starts at width 9, but the code has width 8"),
        ("--activation rleu", "unknown activation `rleu`"),
        ("--output softmax", "unknown activation `softmax`"),
        ("--precision f16", "unknown precision `f16`; known: f32, bf16"),
        ("--scaling max", "unknown scaling `max`"),
        ("--reconstruction mse", "unknown reconstruction `mse`"),
        ("--epochs 0", "`epochs` must be at least 1"),
        ("--batch-size 0", "`batch_size` must be at least 1"),
        ("--lr 0", "`learning_rate` must be a finite number above 0, got 0"),
        ("--lr nan", "`learning_rate`"),
        ("--patience 3", "`patience` needs validation rows"),
        ("--reconstruction bce", "sigmoid"),
        ("fashion-mnits", "did you mean `fashion-mnist`?"),
        ("--test nothing", "unknown data source `nothing`"),
        ("--test synthetic:normal:5x3", "3"),
    ] {
        let message = refusal(line);
        assert!(message.contains(expected), "{line}: {message}");
    }
}

#[test]
fn runs_are_named_after_their_data() {
    for (line, expected) in [
        ("", "digits"),
        ("--preset reference", "reference"),
        ("synthetic:normal:5x3", "synthetic"),
        ("digits:train", "digits"),
    ] {
        let args = args(line);
        let config = Config {
            data: cvae::DataConfig { source: args.source.clone().unwrap_or("digits".into()), ..Default::default() },
            ..Config::digits()
        };
        assert_eq!(run_name(&args, &config), expected, "{line}");
    }
    let mut named = Config::digits();
    for (source, expected) in [("some/where/my rows.csv.gz", "my-rows"), ("/", "run"), ("../x.npy", "x")] {
        named.data.source = source.to_owned();
        assert_eq!(run_name(&args(""), &named), expected);
    }
}
