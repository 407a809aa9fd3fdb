//! Everything of a batch that its random numbers decide, drawn from the generator's words.

use cvae_core::{Corruption, Noise, Objective, Stream};

/// Which random numbers a batch draws: those of its seed and epoch, for rows numbered from `first_row`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Draw {
    /// The plan's seed.
    pub seed: u64,
    /// Epoch of the batch.
    pub epoch: u32,
    /// Noise position of the first row.
    pub first_row: u32,
}

impl Draw {
    /// One row of `width` numbers of a stream for each of `rows` rows.
    fn rows(self, stream: Stream, rows: usize, width: usize, fill: impl Fn(Noise, u32, &mut [f32])) -> Vec<Vec<f64>> {
        let noise = Noise::new(self.seed, stream, self.epoch);
        let row = |index: usize| {
            let mut values = vec![0.0; width];
            fill(noise, self.first_row.wrapping_add(index as u32), &mut values);
            values.into_iter().map(f64::from).collect()
        };
        (0..rows).map(row).collect()
    }

    pub(super) fn normal(self, stream: Stream, rows: usize, width: usize) -> Vec<Vec<f64>> {
        self.rows(stream, rows, width, Noise::normal)
    }

    pub(super) fn signs(self, rows: usize, width: usize) -> Vec<Vec<f64>> {
        self.rows(Stream::Probe, rows, width, Noise::signs)
    }

    /// The word of unit `unit` of row `row` of the batch.
    fn word(self, stream: Stream, row: usize, unit: u32) -> u32 {
        let noise = Noise::new(self.seed, stream, self.epoch);
        noise.words(self.first_row.wrapping_add(row as u32), unit >> 2)[unit as usize & 3]
    }
}

/// A batch as the network and the reconstruction term see it, one row each.
pub(super) struct Inputs {
    pub(super) fed: Vec<Vec<f64>>,
    pub(super) target: Vec<Vec<f64>>,
    /// 0 where the reconstruction term leaves an element out, else 1.
    pub(super) weights: Vec<Vec<f64>>,
}

impl Inputs {
    pub(super) fn new(objective: &Objective, rows: &[f64], width: usize, draw: Draw) -> Self {
        let count = rows.len() / width;
        let missing = |row: usize, j: usize| objective.missing && rows[row * width + j].is_nan();
        let table = |element: &dyn Fn(usize, usize) -> f64| -> Vec<Vec<f64>> {
            (0..count).map(|row| (0..width).map(|j| element(row, j)).collect()).collect()
        };
        let clean = |row: usize, j: usize| if missing(row, j) { 0.0 } else { rows[row * width + j] };
        let units = objective.corruption.units(width, &objective.columns);
        let marked = |share: f64, row: usize, j: usize| {
            let word = draw.word(Stream::Corrupt, row, units[j]);
            f64::from(word >> 8) < (share * 2f64.powi(24)).round()
        };
        let observed = |row: usize, j: usize| f64::from(u8::from(!missing(row, j)));
        let (fed, weights) = match objective.corruption {
            Corruption::None => (table(&clean), table(&observed)),
            Corruption::Gaussian { std } => {
                let noise = draw.normal(Stream::Corrupt, count, width);
                let fed = |row: usize, j: usize| (clean(row, j) + std * noise[row][j]) * observed(row, j);
                (table(&fed), table(&observed))
            }
            Corruption::Masking { share } => {
                let fed = |row: usize, j: usize| if marked(share, row, j) { 0.0 } else { clean(row, j) };
                (table(&fed), table(&observed))
            }
            Corruption::Permutation { share } => {
                let fed = |row: usize, j: usize| {
                    let word = draw.word(Stream::Permute, row, units[j]);
                    let donor = (f64::from(word) / 2f64.powi(32) * count as f64).floor() as usize;
                    observed(row, j) * clean(if marked(share, row, j) { donor } else { row }, j)
                };
                (table(&fed), table(&observed))
            }
            Corruption::Shift { share, shift } => {
                // The row as an image with a border of zeros, of which another window is taken.
                let (border, line) = (shift.distance as i64, (shift.width * shift.channels) as i64);
                let pixel = |row: usize, y: i64, x: i64, channel: i64| -> f64 {
                    let (height, across) = (width as i64 / line, shift.width as i64);
                    match (0..height).contains(&y) && (0..across).contains(&x) {
                        true => clean(row, (y * line + x * shift.channels as i64 + channel) as usize),
                        false => 0.0,
                    }
                };
                let fed = |row: usize, j: usize| {
                    let (j, channels) = (j as i64, shift.channels as i64);
                    let (y, x, channel) = (j / line, j % line / channels, j % channels);
                    if !marked(share, row, 0) {
                        return pixel(row, y, x, channel);
                    }
                    let square = (2 * border + 1) * (2 * border + 1);
                    let word = f64::from(draw.word(Stream::Permute, row, 0));
                    let number = (word / 2f64.powi(32) * (square - 1) as f64).floor() as i64;
                    let number = if number < square / 2 { number } else { number + 1 };
                    let (top, left) = (number / (2 * border + 1), number % (2 * border + 1));
                    pixel(row, y + border - top, x + border - left, channel)
                };
                (table(&fed), table(&observed))
            }
            Corruption::Masked { share, .. } => {
                let fed = |row: usize, j: usize| if marked(share, row, j) { 0.0 } else { clean(row, j) };
                let weights = |row: usize, j: usize| if marked(share, row, j) { observed(row, j) } else { 0.0 };
                (table(&fed), table(&weights))
            }
        };
        Self { fed, target: table(&clean), weights }
    }
}
