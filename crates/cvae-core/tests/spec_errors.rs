//! Every specification that must be refused, with its sentence.

mod common;

use common::dense;
use cvae_core::{
    Activation, Algorithm, ColumnGroup, ColumnKind, Corruption, Latent, MAX_PARAMS, ModelSpec, Objective,
    OptimizerSpec, Patch, Plan, Reconstruction, Schedule, Shape, Shift, SpecError,
};

const RELU: Activation = Activation::Relu;
const LINEAR: Activation = Activation::Identity;

fn spec() -> ModelSpec {
    ModelSpec::mlp(&[4, 2], RELU, LINEAR).unwrap()
}

#[test]
fn models() {
    let pair = |encoder: &[usize], decoder: &[usize]| ModelSpec::mlp_pair(encoder, decoder, RELU, LINEAR);
    let table: [(Result<ModelSpec, SpecError>, &str); 11] = [
        (ModelSpec::mlp(&[], RELU, LINEAR), "the encoder needs at least two widths (its input and its output), got 0"),
        (ModelSpec::mlp(&[4], RELU, LINEAR), "the encoder needs at least two widths (its input and its output), got 1"),
        (pair(&[4, 2], &[2]), "the decoder needs at least two widths (its input and its output), got 1"),
        (pair(&[4, 2], &[]), "the decoder needs at least two widths (its input and its output), got 0"),
        (pair(&[4, 0], &[0, 4]), "width 0 at position 1 of the encoder: every width must be at least 1"),
        (pair(&[0, 2], &[2, 0]), "width 0 at position 0 of the encoder: every width must be at least 1"),
        (pair(&[4, 2], &[2, 0, 4]), "width 0 at position 1 of the decoder: every width must be at least 1"),
        (pair(&[4, 2], &[3, 4]), "the decoder starts at width 3, but the code has width 2"),
        (pair(&[4, 2], &[2, 5]), "the decoder ends at width 5, but the input has width 4"),
        (
            pair(&[65_536, 65_536], &[65_536, 65_536]),
            "the model has 8590065664 parameters, more than the 2147483647 that are supported",
        ),
        (
            pair(&[usize::MAX, 2], &[2, usize::MAX]),
            "the model has 18446744073709551615 parameters, more than the 2147483647 that are supported",
        ),
    ];
    for (result, message) in table {
        assert_eq!(result.unwrap_err().to_string(), message);
    }
}

#[test]
fn models_by_hand() {
    let no_encoder = ModelSpec { encoder: vec![], ..spec() };
    let no_decoder = ModelSpec { decoder: vec![], ..spec() };
    let zero = ModelSpec { input: Shape::new([3, 0, 2]), ..spec() };
    let huge = ModelSpec { input: Shape::new([usize::MAX, usize::MAX]), ..spec() };
    assert!(matches!(no_encoder.validate(), Err(SpecError::TooFewWidths { .. })));
    assert!(matches!(no_decoder.validate(), Err(SpecError::TooFewWidths { .. })));
    assert!(matches!(zero.validate(), Err(SpecError::ZeroWidth { layer: 0, .. })));
    assert!(matches!(huge.validate(), Err(SpecError::DecoderOutput { input: usize::MAX, .. })));
    let image =
        ModelSpec { input: Shape::new([2, 2]), encoder: vec![dense(2, LINEAR)], decoder: vec![dense(4, LINEAR)] };
    assert_eq!(image.validate(), Ok(()), "the decoder returns to the input's size");
    assert_eq!((image.width(), image.latent(), image.latent_shape()), (4, 2, Shape::flat(2)));
}

#[test]
fn the_limit_of_parameters_is_exact() {
    // Width w and a code of 1: w + 1 parameters in the encoder, 2w in the decoder.
    let width = (MAX_PARAMS - 1) / 3;
    assert!(ModelSpec::mlp(&[width, 1], RELU, LINEAR).is_ok());
    let over = ModelSpec::mlp(&[width + 1, 1], RELU, LINEAR);
    assert!(matches!(over, Err(SpecError::TooManyParams { max: MAX_PARAMS, .. })));
}

#[test]
fn objectives() {
    let ae = Objective::ae;
    let huber = |delta| Objective { reconstruction: Reconstruction::Huber { delta }, ..ae() };
    let columns = |groups: &[(ColumnKind, usize)]| {
        let groups = groups.iter().map(|(kind, width)| ColumnGroup::new(*kind, *width));
        Objective { columns: groups.collect(), ..ae() }
    };
    let numeric = ColumnKind::Numeric;
    let patch = |size, width, channels| Corruption::Masked { share: 0.5, patch: Some(Patch { size, width, channels }) };
    let shift = |share, distance, width| {
        let shift = Shift { distance, width, channels: 1 };
        Corruption::Shift { share, shift }
    };
    let table = [
        (Objective::collapsed(-1.0, 0.0), "`beta` must be a finite number of at least 0, got -1"),
        (Objective::collapsed(f64::NAN, 0.0), "`beta` must be a finite number of at least 0, got NaN"),
        (Objective::vae(f64::INFINITY), "`beta` must be a finite number of at least 0, got inf"),
        (Objective { decoder_l2: -0.5, ..ae() }, "`decoder_l2` must be a finite number of at least 0, got -0.5"),
        (huber(0.0), "`delta` must be a finite number above 0, got 0"),
        (huber(f64::NAN), "`delta` must be a finite number above 0, got NaN"),
        (
            Objective { reconstruction: Reconstruction::Bce, ..ae() },
            "the bce reconstruction needs a sigmoid output, but the decoder ends in `identity`",
        ),
        (
            Objective { latent: Latent::Capacity { gamma: -1.0, capacity: 1.0 }, ..ae() },
            "`gamma` must be a finite number of at least 0, got -1",
        ),
        (
            Objective { latent: Latent::Capacity { gamma: 1.0, capacity: -1.0 }, ..ae() },
            "`capacity` must be a finite number of at least 0, got -1",
        ),
        (
            Objective { latent: Latent::FreeBits { beta: 1.0, floor: f64::NAN }, ..ae() },
            "`floor` must be a finite number of at least 0, got NaN",
        ),
        (Objective::sparse(-2.0), "`weight` must be a finite number of at least 0, got -2"),
        (Objective::wae_mmd(f64::NAN), "`weight` must be a finite number of at least 0, got NaN"),
        (Objective::contractive(-1.0), "`weight` must be a finite number of at least 0, got -1"),
        (
            Objective::collapsed_gradient_penalty(0.1, f64::INFINITY),
            "`weight` must be a finite number of at least 0, got inf",
        ),
        (
            Objective::denoising(Corruption::Gaussian { std: -1.0 }),
            "`std` must be a finite number of at least 0, got -1",
        ),
        (Objective::denoising(Corruption::Masking { share: 1.0 }), "`share` must be at least 0 and below 1, got 1"),
        (
            Objective::denoising(Corruption::Permutation { share: f64::NAN }),
            "`share` must be at least 0 and below 1, got NaN",
        ),
        (Objective::masked(0.0), "`share` must be a finite number above 0, got 0"),
        (Objective::masked(-0.5), "`share` must be at least 0 and below 1, got -0.5"),
        (
            Objective::denoising(patch(2, 3, 1)),
            "patches of 2 pixels in images 3 pixels wide with 1 channels do not fit rows of 4",
        ),
        (
            Objective::denoising(patch(0, 2, 1)),
            "patches of 0 pixels in images 2 pixels wide with 1 channels do not fit rows of 4",
        ),
        (
            Objective::denoising(patch(1, usize::MAX, 2)),
            "patches of 1 pixels in images 18446744073709551615 pixels wide with 2 channels do not fit rows of 4",
        ),
        (Objective::denoising(shift(1.0, 1, 2)), "`share` must be at least 0 and below 1, got 1"),
        (
            Objective::denoising(shift(0.5, 1, 3)),
            "moves by 1 pixels in images 3 pixels wide with 1 channels do not fit rows of 4",
        ),
        (
            Objective::denoising(shift(0.5, 0, 2)),
            "moves by 0 pixels in images 2 pixels wide with 1 channels do not fit rows of 4",
        ),
        (
            Objective::denoising(shift(0.5, 1001, 2)),
            "moves by 1001 pixels in images 2 pixels wide with 1 channels do not fit rows of 4",
        ),
        (columns(&[(numeric, 3)]), "the column groups cover 3 columns, but the input has width 4"),
        (
            columns(&[(numeric, usize::MAX), (numeric, 5)]),
            "the column groups cover 18446744073709551615 columns, but the input has width 4",
        ),
        (columns(&[(numeric, 4), (numeric, 0)]), "column group 1 (counted from 0) has no columns"),
        (
            Objective { reconstruction: Reconstruction::Bce, ..columns(&[(numeric, 4)]) },
            "with column groups the reconstruction cannot be bce: declare those columns binary",
        ),
        (Objective { sigma_floor: Some(0.0), ..ae() }, "`sigma_floor` must be a finite number above 0, got 0"),
        (
            Objective { sigma_floor: Some(1.0), ..columns(&[(numeric, 4)]) },
            "`sigma_floor` needs the mse_sum reconstruction and no column groups",
        ),
        (
            Objective { sigma_floor: Some(1.0), ..huber(1.0) },
            "`sigma_floor` needs the mse_sum reconstruction and no column groups",
        ),
        (
            Objective { spectral_norm: true, ..Objective::collapsed_gradient_penalty(0.1, 0.1) },
            "`spectral_norm` does not go with a gradient penalty",
        ),
        (Objective::top_k(0), "`top_k` must be at least 1 and at most the code's 2 dimensions, got 0"),
        (Objective::top_k(3), "`top_k` must be at least 1 and at most the code's 2 dimensions, got 3"),
        (Objective { top_k: Some(1), ..Objective::vae(1.0) }, "`top_k` does not go with a variational latent term"),
    ];
    for (objective, message) in table {
        assert_eq!(objective.validate(&spec()).unwrap_err().to_string(), message, "{objective:?}");
        let plan = Plan::new(spec(), objective, OptimizerSpec::default(), 0, 1);
        assert_eq!(plan.unwrap_err().to_string(), message);
    }
    let sigmoid = ModelSpec::mlp(&[4, 2], RELU, Activation::Sigmoid).unwrap();
    let binary = columns(&[(ColumnKind::Binary, 4)]);
    assert_eq!(
        binary.validate(&sigmoid).unwrap_err().to_string(),
        "binary and categorical columns need an identity output, but the decoder ends in `sigmoid`"
    );
    assert_eq!((binary.validate(&spec()), columns(&[(numeric, 4)]).validate(&sigmoid)), (Ok(()), Ok(())));
    assert_eq!(Objective::default().validate(&spec()), Ok(()));
}

#[test]
fn degenerate_objectives() {
    let degenerate = [Objective::collapsed(0.1, 0.0), Objective::sparse(0.1), Objective::contractive(0.1)];
    assert!(degenerate.iter().all(Objective::is_degenerate));
    assert!(!Objective::collapsed_gradient_penalty(0.1, 0.1).is_degenerate());
    let sound = [Objective::default(), Objective::ae(), Objective::vae(1.0), Objective::collapsed(0.0, 0.0)];
    assert!(sound.into_iter().all(|objective| !objective.is_degenerate()));
    assert_eq!(Objective::default().latent, Latent::Collapsed { beta: Objective::DEFAULT_BETA });
}

#[test]
fn optimizers() {
    let adam = OptimizerSpec::adam(1e-3);
    let with = |algorithm| OptimizerSpec { algorithm, ..adam };
    let scheduled = |schedule| OptimizerSpec { schedule, ..adam };
    let moments = |beta1, beta2, eps| with(Algorithm::Adam { beta1, beta2, eps });
    let table = [
        (OptimizerSpec::adam(0.0), "`learning_rate` must be a finite number above 0, got 0"),
        (OptimizerSpec::adam(f64::INFINITY), "`learning_rate` must be a finite number above 0, got inf"),
        (OptimizerSpec { clip_norm: Some(-1.0), ..adam }, "`clip_norm` must be a finite number above 0, got -1"),
        (moments(1.0, 0.9, 1e-8), "`beta1` must be at least 0 and below 1, got 1"),
        (moments(0.9, -0.1, 1e-8), "`beta2` must be at least 0 and below 1, got -0.1"),
        (moments(0.9, f64::NAN, 1e-8), "`beta2` must be at least 0 and below 1, got NaN"),
        (moments(0.9, 0.9, 0.0), "`eps` must be a finite number above 0, got 0"),
        (OptimizerSpec::adamw(1e-3, -1.0), "`weight_decay` must be a finite number of at least 0, got -1"),
        (OptimizerSpec::sgd(0.1, 1.0), "`momentum` must be at least 0 and below 1, got 1"),
        (
            scheduled(Schedule::Cosine { steps: 0, final_factor: 0.0 }),
            "`schedule.steps` must be a finite number above 0, got 0",
        ),
        (
            scheduled(Schedule::Cosine { steps: 9, final_factor: -1.0 }),
            "`schedule.final_factor` must be a finite number of at least 0, got -1",
        ),
        (
            scheduled(Schedule::Step { every: 0, factor: 0.5 }),
            "`schedule.every` must be a finite number above 0, got 0",
        ),
        (
            scheduled(Schedule::Step { every: 3, factor: 0.0 }),
            "`schedule.factor` must be a finite number above 0, got 0",
        ),
    ];
    for (optimizer, message) in table {
        assert_eq!(optimizer.validate().unwrap_err().to_string(), message);
        let plan = Plan::new(spec(), Objective::ae(), optimizer, 0, 1);
        assert_eq!(plan.unwrap_err().to_string(), message);
    }
}

#[test]
fn plans_and_names() {
    let plan = Plan::new(spec(), Objective::ae(), OptimizerSpec::default(), 0, 0);
    assert_eq!(plan.unwrap_err().to_string(), "a plan must allow at least one row per batch");
    let unknown = "softmax".parse::<Activation>().unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "unknown activation `softmax`; known: identity, relu, leaky_relu, elu, gelu, silu, tanh, sigmoid"
    );
    for activation in Activation::ALL {
        assert_eq!(activation.name().parse(), Ok(activation));
        assert_eq!(activation.to_string(), activation.name());
    }
    assert_eq!("linear".parse(), Ok(Activation::Identity));
}
