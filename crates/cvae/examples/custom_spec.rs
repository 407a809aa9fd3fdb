//! A model that no preset describes: an asymmetric variational network on a table of one's own, with scaled
//! features, a learning-rate schedule, validation rows and early stopping.
//!
//! `cargo run --release --example custom_spec`
#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::error::Error;

use cvae::density::DensitySpec;
use cvae::{Config, DataConfig, Trainer, evaluate};
use cvae_core::{
    Activation, Initializer, LayerSpec, ModelSpec, Objective, OptimizerSpec, Reconstruction, Schedule, Shape,
};
use cvae_data::{Dataset, Scaling, Values};

fn main() -> Result<(), Box<dyn Error>> {
    let dense = |units, activation| LayerSpec::Dense { units, activation };
    let model = ModelSpec {
        input: Shape::flat(6),
        encoder: vec![dense(64, Activation::Gelu), dense(32, Activation::Silu), dense(2, Activation::Identity)],
        decoder: vec![dense(64, Activation::Tanh), dense(6, Activation::Identity)],
    };
    let objective = Objective { reconstruction: Reconstruction::Huber { delta: 1.0 }, ..Objective::vae(0.02) };
    let optimizer = OptimizerSpec {
        schedule: Schedule::Cosine { steps: 2000, final_factor: 0.05 },
        warmup_steps: 50,
        clip_norm: Some(5.0),
        ..OptimizerSpec::adamw(3e-3, 1e-4)
    };
    let config = Config {
        seed: 3,
        epochs: 200,
        batch_size: 64,
        patience: Some(20),
        initializer: Initializer::He,
        objective,
        optimizer,
        data: DataConfig {
            source: "spiral".to_owned(),
            validation_fraction: 0.2,
            scaling: Scaling::Standardize,
            ..DataConfig::default()
        },
        ..Config::new(model)
    };
    println!("{}", config.to_toml()?);
    println!("{}", config.plan()?.program);

    let (train, test) = spiral(1000)?.split(0.2, 0)?;
    let trained = Trainer::new(config).fit(&train)?;
    let figures = evaluate(&trained.model, &train, &test)?;
    println!("{:?} after {} epochs", trained.stop, trained.history.len());
    println!("test MSE {:.4}, principal components {:.4}", figures.mse, figures.pca_mse);
    for row in trained.model.sample(3, 1, DensitySpec::Prior)?.chunks(6) {
        println!("sample {row:6.2?}");
    }
    Ok(())
}

/// A spiral of two turns, seen through six features of different units.
fn spiral(rows: usize) -> Result<Dataset, Box<dyn Error>> {
    let row = |i: usize| {
        let t = i as f32 / rows as f32;
        let (sin, cos) = (12.566 * t).sin_cos();
        [t * cos, 100.0 * t * sin, t * t, 5.0 + cos, sin * cos, 1000.0 * (t - 0.5)]
    };
    Ok(Dataset::new("spiral", Values::F32((0..rows).flat_map(row).collect()), 6)?)
}
