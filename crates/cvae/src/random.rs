//! Seeded randomness for fitting and sampling.
//!
//! ChaCha8 with the key (seed, purpose) and one stream per row: a row's numbers depend on nothing but
//! seed, purpose and row, hence not on the number of rows or threads.

use rand::RngExt;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

/// What random numbers are for; two purposes never share a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// Rows drawn from N(0, I) to compare codes with.
    PriorRows = 1,
    /// Directions of the sliced Wasserstein distance.
    Directions = 2,
    /// Draws from a fitted density.
    Samples = 3,
    /// Starting points of a fit.
    Starts = 4,
    /// Choosing rows: subsets and held-out parts.
    Rows = 5,
    /// Noise added to codes.
    Noise = 6,
}

/// The generator of one stream.
pub(crate) fn stream(seed: u64, purpose: Purpose, stream: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(stream);
    rng
}

/// Fills `out` with draws from N(0, 1).
pub(crate) fn fill_normal(rng: &mut ChaCha8Rng, out: &mut [f64]) {
    for value in out {
        *value = StandardNormal.sample(rng);
    }
}

/// `rows × width` draws from N(0, I), one stream per row.
pub(crate) fn normal_rows(seed: u64, purpose: Purpose, rows: usize, width: usize) -> Vec<f64> {
    let mut out = vec![0.0; rows * width];
    for (row, values) in out.chunks_exact_mut(width).enumerate() {
        fill_normal(&mut stream(seed, purpose, row as u64), values);
    }
    out
}

/// A draw from the uniform distribution on [0, 1).
pub(crate) fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    rng.random()
}

/// `amount` distinct indices below `length`, in random order.
pub(crate) fn indices(rng: &mut ChaCha8Rng, length: usize, amount: usize) -> Vec<usize> {
    index::sample(rng, length, amount.min(length)).into_vec()
}
