//! Starting centres for a mixture.

use rayon::prelude::*;

use crate::random::{Purpose, indices, stream, uniform};

/// Index of the centre nearest to a row, and the squared distance.
pub(crate) fn nearest(row: &[f64], centers: &[f64]) -> (usize, f64) {
    let mut best = (0, f64::INFINITY);
    for (index, center) in centers.chunks_exact(row.len()).enumerate() {
        let distance: f64 = row.iter().zip(center).map(|(a, b)| (a - b) * (a - b)).sum();
        if distance < best.1 {
            best = (index, distance);
        }
    }
    best
}

/// Centres by k-means++ (Arthur, Vassilvitskii 2007), `[components, latent]`: each next one is a row drawn
/// with probability proportional to its squared distance from the nearest centre so far.
pub(crate) fn spread_centers(rows: &[f64], latent: usize, components: usize, seed: u64, restart: u64) -> Vec<f64> {
    let row = |index: usize| &rows[index * latent..][..latent];
    let mut rng = stream(seed, Purpose::Starts, restart);
    let mut centers = row(indices(&mut rng, rows.len() / latent, 1)[0]).to_vec();
    let mut distances = vec![f64::INFINITY; rows.len() / latent];
    while centers.len() < components * latent {
        let newest = &centers[centers.len() - latent..];
        distances.par_iter_mut().zip(rows.par_chunks(latent)).for_each(|(distance, row)| {
            *distance = distance.min(nearest(row, newest).1);
        });
        let mut left = uniform(&mut rng) * distances.iter().sum::<f64>();
        let mut chosen = 0;
        for (index, &distance) in distances.iter().enumerate().filter(|(_, distance)| **distance > 0.0) {
            chosen = index;
            left -= distance;
            if left < 0.0 {
                break;
            }
        }
        centers.extend_from_slice(row(chosen));
    }
    centers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centres_are_distinct_rows_where_there_are_enough() {
        let rows = [0.0, 0.0, 0.0, 0.0, 1.0, 5.0, 9.0];
        for seed in 0..50 {
            let mut centers = spread_centers(&rows, 1, 4, seed, 0);
            centers.sort_by(f64::total_cmp);
            assert_eq!(centers, [0.0, 1.0, 5.0, 9.0]);
        }
    }

    #[test]
    fn far_rows_are_preferred() {
        // From any row of the pair near zero, the row at 100 is drawn with probability above 0.999.
        let rows = [0.0, 1.0, 100.0];
        let far = (0..200).filter(|&seed| spread_centers(&rows, 1, 2, seed, 0).contains(&100.0)).count();
        assert!(far >= 198, "{far}");
    }

    #[test]
    fn the_nearest_centre_is_the_first_of_equals() {
        assert_eq!(nearest(&[1.0], &[3.0, 0.0, 2.0]), (1, 1.0));
    }
}
