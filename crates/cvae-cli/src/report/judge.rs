//! Rows by their scores, and the ways between rows.

use anyhow::Result;
use cvae::density::Path;
use cvae::scoring::conformal_threshold;
use cvae::{Autoencoder, Matrix};
use cvae_data::Dataset;

use super::Histogram;
use crate::output;

/// Rows scored at a time.
const BLOCK_ROWS: usize = 4096;
/// Bars of the histogram.
const BARS: usize = 40;
/// False-positive rate of the threshold that is shown.
const RATE: f64 = 0.01;
/// Ways shown, and rows of each.
const PATHS: usize = 4;
const STEPS: usize = 8;

/// The score of every row.
///
/// # Errors
/// Rows that cannot be scored.
pub(super) fn scores(model: &Autoencoder, data: &Dataset) -> Result<Vec<f64>> {
    let mut scores = Vec::with_capacity(data.rows());
    let mut block = Vec::new();
    for start in (0..data.rows()).step_by(BLOCK_ROWS) {
        data.copy_rows(start..data.rows().min(start + BLOCK_ROWS), &mut block)?;
        scores.extend(model.score(&block)?.into_iter().map(f64::from));
    }
    Ok(scores)
}

/// The numbers of the `count` rows of highest score, the highest first.
pub(super) fn worst(scores: &[f64], count: usize) -> Vec<u32> {
    let mut rows: Vec<u32> = (0..scores.len() as u32).collect();
    rows.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]));
    rows.truncate(count);
    rows
}

/// Scores in bars of equal width, up to the highest, with the conformal threshold where there are enough of them.
pub(super) fn histogram(scores: &[f64], tested_on: &str) -> Histogram {
    let (low, high) = scores
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), score| (low.min(*score), high.max(*score)));
    let width = (high - low) / BARS as f64;
    let mut bars = vec![];
    if width.is_finite() && width > 0.0 {
        let bound = |bar: usize| low + bar as f64 * width;
        bars = (0..BARS).map(|bar| (bound(bar), bound(bar + 1), 0)).collect();
        for score in scores {
            bars[(((score - low) / width) as usize).min(BARS - 1)].2 += 1;
        }
    }
    let threshold = conformal_threshold(scores, RATE).ok();
    let text = match threshold {
        Some(threshold) => format!("at most {RATE} of rows like these score above {}", output::figure(threshold)),
        None => "too few rows for a threshold".to_owned(),
    };
    let caption = format!("Mean squared error of {} {tested_on} rows; {text}.", scores.len());
    Histogram { bars, threshold, caption }
}

/// Decoded ways between the codes of neighbouring rows of `shown`.
///
/// # Errors
/// Rows that cannot be encoded or codes that cannot be decoded.
pub(super) fn paths(model: &Autoencoder, data: &Dataset, shown: &[u32]) -> Result<Vec<(String, Vec<f32>)>> {
    let mut paths = vec![];
    for pair in shown.chunks_exact(2).take(PATHS) {
        let mut ends = Vec::new();
        data.gather(pair, &mut ends)?;
        let codes = model.encode(&ends)?;
        let (from, to) = codes.split_at(model.latent());
        let rows = model.decode(&Path::Linear.codes(from, to, STEPS)?)?;
        Matrix::new(&rows, model.width())?;
        paths.push((format!("{} to {}", pair[0], pair[1]), rows));
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_score_is_in_one_bar() {
        let scores: Vec<f64> = (0..1000).map(|index| f64::from(index * index % 997)).collect();
        let found = histogram(&scores, "test");
        assert_eq!(found.bars.iter().map(|bar| bar.2).sum::<usize>(), 1000);
        assert!(found.bars.windows(2).all(|pair| pair[0].1 == pair[1].0));
        let above = scores.iter().filter(|score| **score > found.threshold.unwrap()).count();
        assert!(above <= 10 && found.caption.contains("1000 test rows"), "{above}");
        for odd in [vec![], vec![1.0], vec![2.0, 2.0]] {
            let found = histogram(&odd, "test");
            assert!(found.bars.is_empty() && found.threshold.is_none() && found.caption.contains("too few"));
        }
    }

    #[test]
    fn the_worst_rows_come_first() {
        assert_eq!(worst(&[0.5, 2.0, 1.0, 3.0], 3), [3, 1, 2]);
        assert_eq!(worst(&[0.5], 3), [0]);
    }
}
