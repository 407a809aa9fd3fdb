//! Named configurations.

use cvae_core::{
    Activation, Algorithm, Initializer, Latent, LayerSpec, ModelSpec, Objective, OptimizerSpec, Reconstruction, Shape,
};

use super::{Config, DataConfig};

impl Config {
    /// Names that [`Config::preset`] knows.
    pub const PRESETS: [&str; 2] = ["digits", "reference"];

    /// The configuration of that name, or `None`; see [`Config::PRESETS`].
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "digits" => Some(Self::digits()),
            "reference" => Some(Self::reference_preset()),
            _ => None,
        }
    }

    /// The embedded digits through a 64-256-128-8 network and its mirror image.
    pub fn digits() -> Self {
        Self { epochs: 150, batch_size: 32, ..Self::new(mlp(&[64, 256, 128, 8])) }
    }

    /// The worked example this family of models is usually introduced with: 1000 rows of 784 standard normal
    /// values, an encoder 784-100-784 and a decoder 784-100-784 with ReLU inside and linear outputs, the mean
    /// squared error over all elements, Adam(1e-3, 0.9, 0.999, ε = 1e-7), Glorot's weights and zero biases,
    /// batches of 32 with the short last one kept, 100 epochs, no prior term. All rows are trained on.
    pub fn reference_preset() -> Self {
        let algorithm = Algorithm::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-7 };
        Self {
            epochs: 100,
            batch_size: 32,
            initializer: Initializer::Glorot,
            data: DataConfig {
                source: "synthetic:normal:1000x784".to_owned(),
                test_fraction: 0.0,
                ..DataConfig::default()
            },
            objective: Objective { reconstruction: Reconstruction::MseMean, latent: Latent::None, decoder_l2: 0.0 },
            optimizer: OptimizerSpec { algorithm, ..OptimizerSpec::adam(1e-3) },
            ..Self::new(mlp(&[784, 100, 784]))
        }
    }
}

/// A mirrored network with ReLU inside and linear outputs. `widths` holds at least two positive numbers.
fn mlp(widths: &[usize]) -> ModelSpec {
    let stack = |widths: &[usize]| -> Vec<LayerSpec> {
        let last = widths.len() - 1;
        let layer = |(index, &units): (usize, &usize)| LayerSpec::Dense {
            units,
            activation: if index == last { Activation::Identity } else { Activation::Relu },
        };
        widths.iter().enumerate().map(layer).collect()
    };
    let mirrored: Vec<usize> = widths.iter().rev().copied().collect();
    ModelSpec { input: Shape::flat(widths[0]), encoder: stack(&widths[1..]), decoder: stack(&mirrored[1..]) }
}
