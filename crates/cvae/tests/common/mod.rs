//! What the integration tests share.
#![allow(dead_code, reason = "each test binary uses a part")]

use cvae::{BackendConfig, Config, DataConfig, EpochRecord, RunFolder, Trained, Trainer};
use cvae_core::{Activation, Corruption, ModelSpec, Noise, Objective, Shift, Stream};
use cvae_data::{Dataset, Values};

/// Rows on a curved sheet in eight dimensions, with a little noise: `rows` of them, from the seed alone.
pub(crate) fn sheet(rows: usize, seed: u64) -> Dataset {
    let mut values = vec![];
    for row in 0..rows as u32 {
        let mut draws = [0.0; 10];
        Noise::new(seed, Stream::Data, 0).normal(row, &mut draws);
        let [a, b, noise @ ..] = draws;
        let clean = [a, b, a * b, a + b, (a - b).tanh(), a.sin(), b.cos(), a * a];
        values.extend(clean.iter().zip(noise).map(|(value, noise)| 3.0 * value + 0.05 * noise + 1.0));
    }
    Dataset::new("sheet", Values::F32(values), 8).expect("whole rows")
}

/// A small configuration: 8-12-3-12-8, ten epochs of batches of 16 rows.
pub(crate) fn config(objective: Objective) -> Config {
    let model = ModelSpec::mlp(&[8, 12, 3], Activation::Elu, Activation::Identity).expect("a valid model");
    Config {
        seed: 7,
        epochs: 10,
        batch_size: 16,
        objective,
        data: DataConfig { source: "sheet".to_owned(), ..DataConfig::default() },
        backend: on("cpu-scalar", 1),
        ..Config::new(model)
    }
}

/// The collapsed objective where the encoder reads half of the rows, images of 2×4 pixels, moved by one.
pub(crate) fn moving() -> Objective {
    let shift = Shift { distance: 1, width: 4, channels: 1 };
    Objective { corruption: Corruption::Shift { share: 0.5, shift }, ..Objective::default() }
}

/// A backend by name.
pub(crate) fn on(name: &str, threads: usize) -> BackendConfig {
    BackendConfig { name: name.to_owned(), threads: Some(threads), ..BackendConfig::default() }
}

/// Trains without a run folder.
pub(crate) fn fit(config: &Config, data: &Dataset) -> Trained {
    Trainer::new(config.clone()).fit(data).expect("training")
}

/// Bit patterns, so that equality means what it says.
pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The bits of everything that training goes on from.
pub(crate) fn state_bits(folder: &RunFolder) -> Vec<Vec<u32>> {
    let training = folder.read_state().expect("a readable state").training.expect("the state of training");
    let best = training.best.as_ref().map_or(&[][..], |best| &best.params);
    [&training.params, &training.moment1, &training.moment2, best].map(bits).to_vec()
}

/// A history without what the clock says.
pub(crate) fn without_times(history: &[EpochRecord]) -> Vec<EpochRecord> {
    history.iter().map(|record| EpochRecord { rows_per_second: 0.0, seconds: 0.0, ..*record }).collect()
}
