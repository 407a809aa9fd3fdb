//! Named configurations.

use cvae_core::{
    Activation, Algorithm, Corruption, Initializer, LayerSpec, ModelSpec, Objective, OptimizerSpec, Reconstruction,
    Schedule, Shape, Shift,
};
use cvae_data::{ImageShape, Scaling};

use super::{CodeBasis, Config, ConfigError, DataConfig};

/// Rows that [`Config::for_data`] shows a model, counted over all epochs.
const SHOWN_ROWS: usize = 1_200_000;
/// Rows below which [`Config::for_data`] takes smaller batches.
const FEW_ROWS: usize = 5000;
/// Pixels of a side from which [`Config::for_images`] moves images.
const MOVED_SIDE: usize = 16;
/// Share of the images that [`Config::for_images`] moves.
const MOVED_SHARE: f64 = 0.08;
/// Share of the learning rate that [`Config::descend`] ends at.
const FINAL_FACTOR: f64 = 0.02;

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

    /// The training of `rows` rows of `width` values when nothing else is said: what docs/DEFAULTS.md measures.
    ///
    /// Two hidden layers, a code of an eighth of the row with bounds, GELU, Glorot's weights, the collapsed objective,
    /// Adam at 1e-3 with a cosine descent to 2 % over the whole training, batches of 64 rows (32 where rows are few),
    /// and as many epochs as show the model about 1.2 million rows, at least 20 and at most 200. Features are
    /// standardised; images in \[0, 1\] need no scaling.
    ///
    /// # Errors
    /// A width of 0.
    pub fn for_data(rows: usize, width: usize) -> Result<Self, ConfigError> {
        let hidden = width.saturating_mul(4).clamp(32, 512);
        let widths = [width, hidden, hidden / 2, (width / 8).clamp(2, 32).min(width)];
        let model = ModelSpec::mlp(&widths, Activation::Gelu, Activation::Identity)?;
        let epochs = (SHOWN_ROWS / rows.max(1)).clamp(Self::DEFAULT_EPOCHS as usize, 200) as u32;
        let batch_size = if rows < FEW_ROWS { 32 } else { 64 };
        let data = DataConfig { scaling: Scaling::Standardize, ..DataConfig::default() };
        let mut config = Self { epochs, batch_size, initializer: Initializer::Glorot, data, ..Self::new(model) };
        config.descend(rows);
        Ok(config)
    }

    /// The training of `rows` images of that shape, with values in \[0, 1\], when nothing else is said: what docs/DEFAULTS.md
    /// measures.
    ///
    /// As [`Config::for_data`] without scaling. From 16 pixels a side, the encoder reads 8 % of the images moved by a pixel
    /// and has tanh in the layer before the code, codes are aligned ([`CodeBasis::Aligned`]), and the weights are β = 1e-3
    /// and λ = 1e-3, the rate 2e-3.
    ///
    /// # Errors
    /// A shape without pixels.
    pub fn for_images(rows: usize, shape: ImageShape) -> Result<Self, ConfigError> {
        let mut config = Self::for_data(rows, shape.len())?;
        config.data.scaling = Scaling::None;
        if shape.height.min(shape.width) >= MOVED_SIDE {
            let shift = Shift { distance: 1, width: shape.width, channels: shape.channels };
            let corruption = Corruption::Shift { share: MOVED_SHARE, shift };
            config.objective = Objective { corruption, ..Objective::collapsed(1e-3, 1e-3) };
            config.model = config.model.with_activation_before_code(Activation::Tanh);
            config.optimizer.learning_rate = 2e-3;
            config.codes = CodeBasis::Aligned;
        }
        Ok(config)
    }

    /// Sets the schedule to a cosine descent to 2 % of the learning rate over the whole training on `rows` rows,
    /// validation rows among them.
    pub fn descend(&mut self, rows: usize) {
        let kept = rows as f64 * (1.0 - self.data.validation_fraction);
        let steps = (kept / self.batch_size.max(1) as f64).ceil() * f64::from(self.epochs);
        self.optimizer.schedule = Schedule::Cosine { steps: (steps as u64).max(1), final_factor: FINAL_FACTOR };
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
            objective: Objective { reconstruction: Reconstruction::MseMean, ..Objective::ae() },
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
