use cvae_core::{Activation, Algorithm, Latent, Reconstruction};
use cvae_data::{ImageShape, Source};

use super::*;

fn variations() -> Vec<Config> {
    let mut vae = Config::digits();
    vae.objective = Objective::vae(0.5);
    vae.optimizer = OptimizerSpec { clip_norm: Some(1.5), ..OptimizerSpec::sgd(0.1, 0.9) };
    vae.data.validation_fraction = 0.25;
    vae.data.test = Some("rows.csv".to_owned());
    vae.patience = Some(3);
    vae.backend = BackendConfig { name: "cpu-scalar".to_owned(), precision: Precision::Bf16, threads: Some(2) };
    let mut huber = Config::reference_preset();
    huber.objective.reconstruction = Reconstruction::Huber { delta: 0.1 };
    huber.seed = i64::MAX as u64;
    vec![Config::digits(), Config::reference_preset(), vae, huber]
}

#[test]
fn every_configuration_survives_writing_and_reading() {
    for config in variations() {
        let text = config.to_toml().unwrap();
        assert_eq!(Config::from_toml(&text).unwrap(), config, "{text}");
    }
}

#[test]
fn a_model_alone_is_a_configuration() {
    let config = Config::digits();
    let model = toml::to_string(&std::collections::BTreeMap::from([("model", &config.model)])).unwrap();
    assert_eq!(Config::from_toml(&model).unwrap(), Config::new(config.model));
}

#[test]
fn presets_are_valid_and_name_known_sources() {
    for name in Config::PRESETS {
        let config = Config::preset(name).unwrap();
        config.validate().unwrap();
        assert!(config.data.source.parse::<Source>().is_ok());
    }
    assert_eq!(Config::preset("reference "), None);
}

#[test]
fn the_reference_preset_is_the_published_example() {
    let config = Config::reference_preset();
    let spec = ModelSpec::mlp_pair(&[784, 100, 784], &[784, 100, 784], Activation::Relu, Activation::Identity);
    assert_eq!(config.model, spec.unwrap());
    assert_eq!(config.optimizer.algorithm, Algorithm::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-7 });
    assert_eq!(config.optimizer.learning_rate, 1e-3);
    assert_eq!((config.objective.reconstruction, config.objective.latent), (Reconstruction::MseMean, Latent::None));
    assert_eq!((config.epochs, config.batch_size, config.initializer), (100, 32, Initializer::Glorot));
    assert_eq!((config.data.validation_fraction, config.data.test_fraction, config.patience), (0.0, 0.0, None));
}

#[test]
fn bad_configurations_are_refused_by_name() {
    let text = Config::digits().to_toml().unwrap();
    let table = [
        ("seed = 0", "seed = 0\nsed = 1", "unknown field `sed`"),
        ("[data]", "[data]\nsorce = 'x'", "unknown field `data.sorce`"),
        ("[objective.latent]", "[objective.latent]\ngamma = 1.0", "gamma`"),
        ("units = 256", "units = 256\nbias = true", "bias`"),
        ("units = 256", "units = 0", "width 0 at position 1 of the encoder: every width must be at least 1"),
        ("units = 256", "units = -1", "line"),
        ("format = 1", "format = 2", "format version 2 is not supported; this version reads 1"),
        ("seed = 0", "seed = -1", "line 3: invalid value: integer `-1`, expected u64"),
        ("seed = 0", "seed = ", "line 3: "),
        ("epochs = 150", "epochs = 0", "`epochs` must be at least 1"),
        ("batch_size = 32", "batch_size = 0", "`batch_size` must be at least 1"),
        ("batch_size = 32", "patience = 2", "`patience` needs validation rows"),
        ("batch_size = 32", "patience = 0", "`patience` must be at least 1"),
        ("test_fraction = 0.2", "test_fraction = nan", "`data.test_fraction` must be at least 0 and below 1"),
        ("validation_fraction = 0.0", "validation_fraction = 1.0", "`data.validation_fraction` must be at least 0"),
        ("learning_rate = 0.001", "learning_rate = 0.0", "`learning_rate` must be a finite number above 0"),
        ("beta = 0.0064", "beta = -1.0", "`beta` must be a finite number of at least 0, got -1"),
        ("kind = \"collapsed\"", "kind = \"colapsed\"", "line"),
        ("scaling = \"none\"", "scaling = \"max\"", "line"),
        ("[backend]", "[backend]\nthreads = 0", "`backend.threads` must be at least 1"),
        ("input = [64]\n", "", "missing field `input`"),
    ];
    for (old, new, expected) in table {
        let changed = text.replacen(old, new, 1);
        assert_ne!(changed, text, "{old}");
        let error = Config::from_toml(&changed).unwrap_err().to_string();
        assert!(error.contains(expected), "{new}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn codes_are_aligned_where_that_means_something() {
    let images = Config::for_images(60_000, ImageShape { height: 28, width: 28, channels: 1 }).unwrap();
    images.validate().unwrap();
    assert_eq!((images.codes, images.lacks_for_alignment()), (CodeBasis::Aligned, None));
    assert_eq!(Config::from_toml(&images.to_toml().unwrap()).unwrap(), images);
    // A pixel is a lot of a small image.
    let small = Config::for_images(1438, ImageShape { height: 8, width: 8, channels: 1 }).unwrap();
    let data = DataConfig { scaling: Scaling::None, ..DataConfig::default() };
    assert_eq!(small, Config { data, ..Config::for_data(1438, 64).unwrap() });

    let with = |change: &dyn Fn(&mut Config)| {
        let mut config = images.clone();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    };
    let shift = images.objective.corruption;
    let needs = |rest: &str| format!("`codes = \"aligned\"` needs {rest}");
    assert_eq!(with(&|config| config.objective = Objective::default()), needs("the corruption `shift`"));
    for objective in [Objective::vae(1.0), Objective::sparse(0.1), Objective::top_k(3), Objective::wae_mmd(10.0)] {
        let refused = with(&|config| config.objective = Objective { corruption: shift, ..objective.clone() });
        assert!(refused.starts_with(&needs("an objective that gives single dimensions")), "{refused}");
    }
    let normed = Objective { corruption: shift, ..Objective::collapsed_spectral_norm(0.1) };
    let refused = with(&|config| config.objective = normed.clone());
    assert_eq!(refused, needs("weights that are not divided by their norm"));
    let refused = with(&|config| config.model = config.model.clone().with_linear_code(1).unwrap());
    assert_eq!(refused, needs("a linear code between two layers with biases"));
    let moved = Config { codes: CodeBasis::Trained, ..images.clone() };
    moved.check_resumable(&images).unwrap();
}

#[test]
fn a_seed_beyond_toml_is_refused() {
    let config = Config { seed: u64::MAX, ..Config::digits() };
    assert!(matches!(config.validate(), Err(ConfigError::Range { field: "seed", .. })));
    let text = Config::digits().to_toml().unwrap().replace("seed = 0", "seed = 9223372036854775808");
    assert!(Config::from_toml(&text).is_err());
}

#[test]
fn files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    let start = path.display().to_string();
    let missing = Config::load(&path).unwrap_err().to_string();
    assert!(missing.starts_with(&format!("{start}: cannot be read: ")), "{missing}");
    for (content, expected) in [(&[0xff, 0xfe][..], ": not a text file"), (b"", ": line 1: missing field `model`")] {
        std::fs::write(&path, content).unwrap();
        assert_eq!(Config::load(&path).unwrap_err().to_string(), format!("{start}{expected}"));
    }
}

#[test]
fn what_determines_the_weights_must_not_change_on_resume() {
    let config = Config::digits();
    let longer = Config { epochs: 500, backend: BackendConfig::default(), ..config.clone() };
    longer.check_resumable(&config).unwrap();
    let changed = Config { batch_size: 33, ..config.clone() };
    let error = changed.check_resumable(&config).unwrap_err().to_string();
    assert_eq!(error, "`batch_size` differs from the configuration the run was begun with");
    assert!(Config { seed: 1, ..config.clone() }.check_resumable(&config).is_err());
    assert!(Config { objective: Objective::ae(), ..config.clone() }.check_resumable(&config).is_err());
}
