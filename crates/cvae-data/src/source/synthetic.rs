//! Synthetic rows, a function of their seed alone.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::error::DataError;
use crate::read::{Block, Meta, RowReader};

/// Hands out rows of independent N(0, 1) values.
///
/// Row `r` comes from stream `r` of ChaCha8 under the seed, turned into normal values by Box and Muller's
/// transform with software logarithm and trigonometry, so that every platform gets the same bits whatever
/// the chunks.
pub(super) struct NormalReader {
    generator: ChaCha8Rng,
    next: u64,
    rows: u64,
    width: usize,
}

pub(super) fn open(name: &str, rows: u32, width: u32, seed: u64) -> (Meta, NormalReader) {
    let meta = Meta {
        path: name.into(),
        width: width as usize,
        rows: Some(u64::from(rows)),
        image: None,
        feature_names: None,
        byte_scale: None,
    };
    let reader = NormalReader {
        generator: ChaCha8Rng::seed_from_u64(seed),
        next: 0,
        rows: u64::from(rows),
        width: width as usize,
    };
    (meta, reader)
}

impl RowReader for NormalReader {
    fn read(&mut self, max_rows: usize, block: &mut Block) -> Result<usize, DataError> {
        let rows = (self.rows - self.next).min(max_rows as u64);
        for row in self.next..self.next + rows {
            self.generator.set_stream(row);
            self.generator.set_word_pos(0);
            let end = block.floats.len() + self.width;
            while block.floats.len() < end {
                let (first, second) = normal_pair(&mut self.generator);
                block.floats.push(first);
                if block.floats.len() < end {
                    block.floats.push(second);
                }
            }
        }
        self.next += rows;
        Ok(rows as usize)
    }
}

/// Two independent N(0, 1) values: G. Box and M. Muller, *A note on the generation of random normal
/// deviates*, Ann. Math. Statist. 29 (1958).
fn normal_pair(generator: &mut ChaCha8Rng) -> (f32, f32) {
    // 53 random bits each; the first is in (0, 1], so that its logarithm is finite.
    let unit = 1.0 / (1u64 << 53) as f64;
    let radius = ((generator.next_u64() >> 11) + 1) as f64 * unit;
    let angle = (generator.next_u64() >> 11) as f64 * unit;
    let radius = (-2.0 * libm::log(radius)).sqrt();
    let (sin, cos) = libm::sincos(std::f64::consts::TAU * angle);
    ((radius * cos) as f32, (radius * sin) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rows: u32, width: u32, seed: u64, chunk: usize) -> Vec<f32> {
        let (_, mut reader) = open("synthetic", rows, width, seed);
        let mut block = Block::default();
        while reader.read(chunk, &mut block).unwrap() > 0 {}
        block.floats
    }

    #[test]
    fn bits_are_pinned() {
        let bits: Vec<u32> = read(2, 3, 0, 2).iter().map(|x| x.to_bits()).collect();
        let pinned = [3209653765, 1043623141, 1061767946, 3177498753, 3208587062, 1063217026];
        assert_eq!(bits, pinned);
    }

    #[test]
    fn chunks_do_not_matter_and_seeds_do() {
        let whole = read(7, 5, 1, 7);
        assert_eq!(whole, read(7, 5, 1, 2));
        assert_ne!(whole, read(7, 5, 2, 7));
        assert_eq!(whole[..15], read(3, 5, 1, 3));
    }

    #[test]
    fn moments_and_tails_are_normal() {
        // 200 000 values: the standard errors of mean, variance and fourth moment are 0.0022, 0.0032 and
        // 0.022; four of them are allowed.
        let values = read(1000, 200, 0, 1000);
        let moment = |power: i32| values.iter().map(|&x| f64::from(x).powi(power)).sum::<f64>() / values.len() as f64;
        assert!(moment(1).abs() < 0.009, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.013, "{}", moment(2));
        assert!((moment(4) - 3.0).abs() < 0.09, "{}", moment(4));
        let beyond = values.iter().filter(|x| x.abs() > 3.0).count();
        // 540 expected, standard deviation 23.
        assert!((445..635).contains(&beyond), "{beyond}");
    }
}
