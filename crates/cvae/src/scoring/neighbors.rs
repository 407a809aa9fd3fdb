//! Distance of codes from the nearest training codes.

use serde::{Deserialize, Serialize};

use super::ScoreError;
use crate::Matrix;
use crate::metrics::{MetricError, nearest_rows, same_width};

/// Mean Euclidean distance of a code from the `k` nearest training codes (Angiulli & Pizzuti, "Fast outlier detection
/// in high dimensional spaces", PKDD 2002).
///
/// No shape of the density is assumed: codes that lie on a curved sheet are as near to it as their neighbours
/// are. Every training code is kept, and a training code is at distance 0 from itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Neighbors {
    latent: usize,
    count: usize,
    codes: Vec<f32>,
}

/// The stored form, before it is checked.
#[derive(Deserialize)]
struct Stored {
    latent: usize,
    count: usize,
    codes: Vec<f32>,
}

impl TryFrom<Stored> for Neighbors {
    type Error = ScoreError;

    fn try_from(Stored { latent, count, codes }: Stored) -> Result<Self, ScoreError> {
        let codes_fit = latent > 0 && codes.len().is_multiple_of(latent) && codes.iter().all(|code| code.is_finite());
        if !codes_fit || count == 0 || count > codes.len() / latent {
            return Err(ScoreError::Stored("neighbours need finite training codes, at least as many as are asked for"));
        }
        Ok(Self { latent, count, codes })
    }
}

impl Neighbors {
    /// Neighbours that the distance is a mean over, where nothing else is said.
    pub const DEFAULT_COUNT: usize = 5;

    /// Keeps the training codes.
    ///
    /// # Errors
    ///
    /// [`MetricError::NeighborCount`] unless `1 <= count <= codes.rows()`.
    pub fn fit(codes: Matrix<'_>, count: usize) -> Result<Self, ScoreError> {
        if count == 0 || count > codes.rows() {
            return Err(MetricError::NeighborCount { k: count, max: codes.rows() }.into());
        }
        Ok(Self { latent: codes.width(), count, codes: codes.values().to_vec() })
    }

    /// Mean distance of every code from its nearest training codes.
    ///
    /// # Errors
    ///
    /// [`ScoreError::Metric`] when the codes have another latent size.
    pub fn scores(&self, codes: Matrix<'_>) -> Result<Vec<f64>, ScoreError> {
        same_width(self.latent, codes.width())?;
        let train = Matrix::new(&self.codes, self.latent)?;
        let nearest = nearest_rows(train, codes, self.count);
        let distance = |code: &[f32], row: usize| {
            let other = &self.codes[row * self.latent..][..self.latent];
            let squares = code.iter().zip(other).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2));
            squares.sum::<f64>().sqrt()
        };
        let mean = |(code, rows): (&[f32], &[usize])| {
            rows.iter().map(|&row| distance(code, row)).sum::<f64>() / self.count as f64
        };
        Ok(codes.iter().zip(nearest.chunks_exact(self.count)).map(mean).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_by_hand() {
        let train = [0.0, 0.0, 3.0, 4.0, 0.0, 10.0];
        let train = Matrix::new(&train, 2).unwrap();
        let query = [0.0, 0.0, 3.0, 8.0, -6.0, -8.0];
        let scores =
            |count: usize| Neighbors::fit(train, count).unwrap().scores(Matrix::new(&query, 2).unwrap()).unwrap();
        let close = |found: &[f64], expected: &[f64]| {
            found.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-6, "{found:?} {expected:?}"));
        };
        close(&scores(1), &[0.0, 13_f64.sqrt(), 10.0]);
        close(&scores(2), &[2.5, f64::midpoint(13_f64.sqrt(), 4.0), f64::midpoint(10.0, 15.0)]);
    }

    #[test]
    fn a_hole_in_the_codes_is_far_from_all_of_them() {
        // A ring: its centre is the mean, where a Gaussian has its peak.
        let ring: Vec<f32> = (0..64).flat_map(|i| [(i as f32 * 0.1).cos(), (i as f32 * 0.1).sin()]).collect();
        let neighbors = Neighbors::fit(Matrix::new(&ring, 2).unwrap(), Neighbors::DEFAULT_COUNT).unwrap();
        let scores = neighbors.scores(Matrix::new(&[0.0, 0.0, 0.99, 0.1], 2).unwrap()).unwrap();
        assert!((scores[0] - 1.0).abs() < 1e-6 && scores[1] < 0.3, "{scores:?}");
    }

    #[test]
    fn bad_input_is_an_error() {
        let train = Matrix::new(&[0.0, 1.0, 5.0, 2.0], 2).unwrap();
        for count in [0, 3] {
            let found = Neighbors::fit(train, count);
            assert_eq!(found, Err(ScoreError::Metric(MetricError::NeighborCount { k: count, max: 2 })));
        }
        let neighbors = Neighbors::fit(train, 1).unwrap();
        assert!(matches!(neighbors.scores(Matrix::new(&[1.0; 3], 3).unwrap()), Err(ScoreError::Metric(_))));
        let json = serde_json::to_string(&neighbors).unwrap();
        assert_eq!(serde_json::from_str::<Neighbors>(&json).unwrap(), neighbors);
        for json in [
            r#"{"latent":0,"count":1,"codes":[1.0]}"#,
            r#"{"latent":2,"count":1,"codes":[1.0]}"#,
            r#"{"latent":1,"count":2,"codes":[1.0]}"#,
            r#"{"latent":1,"count":0,"codes":[1.0]}"#,
        ] {
            assert!(serde_json::from_str::<Neighbors>(json).is_err(), "{json}");
        }
    }
}
