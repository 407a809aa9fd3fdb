//! Linear probe: multinomial logistic regression on codes.

use rayon::prelude::*;

use super::error::{MetricError, labelled, same_width};
use super::lbfgs::minimize;
use crate::Matrix;
use crate::linalg::{add_transposed_product, centred, column_deviations, column_means, product_transposed};

/// Rows whose gradient is computed together.
const BLOCK_ROWS: usize = 2048;
/// Largest entry of the gradient (of the mean loss) at convergence.
const TOLERANCE: f64 = 1e-5;
/// Steps after which fitting stops all the same.
const ITERATIONS: usize = 300;

/// Multinomial logistic regression on standardised features.
///
/// Minimises the mean cross-entropy plus `‖W‖²/(2·rows)` over weights and (unpenalised) biases with
/// L-BFGS from zero: deterministic, and the same for any number of threads. A feature without variance
/// is left out.
#[derive(Clone, Debug)]
pub struct LinearProbe {
    means: Vec<f64>,
    /// Inverse standard deviations, zero for a constant feature.
    scales: Vec<f64>,
    /// Sorted distinct labels.
    classes: Vec<u32>,
    /// `[classes, width]`.
    weights: Vec<f64>,
    biases: Vec<f64>,
    iterations: usize,
    converged: bool,
}

impl LinearProbe {
    /// Fits the probe; labels may be any numbers.
    ///
    /// # Errors
    ///
    /// [`MetricError::LabelCount`] when labels do not match the rows, [`MetricError::SingleClass`] when
    /// all labels are the same.
    pub fn fit(train: Matrix<'_>, labels: &[u32]) -> Result<Self, MetricError> {
        labelled(train, labels)?;
        let mut classes = labels.to_vec();
        classes.sort_unstable();
        classes.dedup();
        if classes.len() < 2 {
            return Err(MetricError::SingleClass);
        }
        let targets: Vec<usize> = labels.iter().map(|label| classes.partition_point(|class| class < label)).collect();
        let means = column_means(train);
        let scales = column_deviations(train, &means)
            .into_iter()
            .map(|deviation| if deviation > 0.0 { deviation.recip() } else { 0.0 })
            .collect();
        let (width, class_count) = (train.width(), classes.len());
        let mut probe = Self {
            means,
            scales,
            classes,
            weights: vec![0.0; class_count * width],
            biases: vec![0.0; class_count],
            iterations: 0,
            converged: false,
        };
        let minimum = minimize(
            |point, gradient| probe.loss(train, &targets, point, gradient),
            vec![0.0; class_count * (width + 1)],
            TOLERANCE,
            ITERATIONS,
        );
        let (weights, biases) = minimum.point.split_at(class_count * width);
        probe.weights.copy_from_slice(weights);
        probe.biases.copy_from_slice(biases);
        probe.iterations = minimum.iterations;
        probe.converged = minimum.converged;
        Ok(probe)
    }

    /// Steps that fitting took.
    pub fn iterations(&self) -> usize {
        self.iterations
    }

    /// Whether the gradient vanished (to 1e-5) within 300 steps.
    pub fn converged(&self) -> bool {
        self.converged
    }

    /// The most probable class of every row.
    ///
    /// # Errors
    ///
    /// [`MetricError::WidthMismatch`] when the width is not the one fitted on.
    pub fn predict(&self, rows: Matrix<'_>) -> Result<Vec<u32>, MetricError> {
        same_width(self.means.len(), rows.width())?;
        let blocks: Vec<Vec<u32>> = rows
            .values()
            .par_chunks(BLOCK_ROWS * rows.width())
            .map(|block| {
                let features = self.standardized(block);
                let logits = self.logits(&features, &self.weights, &self.biases);
                logits.chunks_exact(self.classes.len()).map(|logits| self.classes[largest(logits)]).collect()
            })
            .collect();
        Ok(blocks.concat())
    }

    /// Share of rows whose label is predicted; a label that fitting never saw counts as missed.
    ///
    /// # Errors
    ///
    /// As [`predict`](Self::predict), and [`MetricError::LabelCount`] when labels do not match the rows.
    pub fn accuracy(&self, test: Matrix<'_>, labels: &[u32]) -> Result<f64, MetricError> {
        labelled(test, labels)?;
        let hits = self.predict(test)?.iter().zip(labels).filter(|(a, b)| a == b).count();
        Ok(hits as f64 / labels.len() as f64)
    }

    fn standardized(&self, block: &[f32]) -> Vec<f64> {
        let mut features = centred(block, &self.means);
        for row in features.chunks_exact_mut(self.means.len()) {
            row.iter_mut().zip(&self.scales).for_each(|(value, scale)| *value *= scale);
        }
        features
    }

    /// `[rows, classes]`.
    fn logits(&self, features: &[f64], weights: &[f64], biases: &[f64]) -> Vec<f64> {
        let width = self.means.len();
        let mut logits = biases.repeat(features.len() / width);
        product_transposed(1.0, features, weights, width, 1.0, &mut logits);
        logits
    }

    /// The penalised mean cross-entropy at `point` (weights, then biases) and its gradient.
    fn loss(&self, train: Matrix<'_>, targets: &[usize], point: &[f64], gradient: &mut [f64]) -> f64 {
        let (width, classes) = (train.width(), self.classes.len());
        let (weights, biases) = point.split_at(classes * width);
        let blocks: Vec<(f64, Vec<f64>)> = train
            .values()
            .par_chunks(BLOCK_ROWS * width)
            .zip(targets.par_chunks(BLOCK_ROWS))
            .map(|(block, targets)| {
                let features = self.standardized(block);
                let mut errors = self.logits(&features, weights, biases);
                let mut loss = 0.0;
                let mut gradient = vec![0.0; point.len()];
                let (weight_gradient, bias_gradient) = gradient.split_at_mut(classes * width);
                for (row, &target) in errors.chunks_exact_mut(classes).zip(targets) {
                    loss += softmax_error(row, target);
                    bias_gradient.iter_mut().zip(row).for_each(|(sum, error)| *sum += *error);
                }
                add_transposed_product((&errors, classes), (&features, width), weight_gradient);
                (loss, gradient)
            })
            .collect();
        gradient.fill(0.0);
        let mut loss = 0.0;
        for (block_loss, block_gradient) in &blocks {
            loss += block_loss;
            gradient.iter_mut().zip(block_gradient).for_each(|(sum, part)| *sum += part);
        }
        let rows = train.rows() as f64;
        for (entry, weight) in gradient.iter_mut().zip(weights) {
            *entry += weight;
        }
        gradient.iter_mut().for_each(|entry| *entry /= rows);
        (loss + 0.5 * weights.iter().map(|weight| weight * weight).sum::<f64>()) / rows
    }
}

/// Turns logits into probabilities minus the one-hot target; returns the cross-entropy.
fn softmax_error(logits: &mut [f64], target: usize) -> f64 {
    let largest = logits[largest(logits)];
    let target_logit = logits[target];
    let mut sum = 0.0;
    for logit in logits.iter_mut() {
        *logit = (*logit - largest).exp();
        sum += *logit;
    }
    logits.iter_mut().for_each(|value| *value /= sum);
    logits[target] -= 1.0;
    sum.ln() + largest - target_logit
}

/// Index of the first largest value.
fn largest(values: &[f64]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, normal_rows};

    /// Rows with a label drawn from three overlapping clusters; column 2 is constant.
    fn clusters(seed: u64, rows: usize) -> (Vec<f32>, Vec<u32>) {
        let noise = normal_rows(seed, Purpose::PriorRows, rows, 2);
        let centers = [[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]];
        let labels: Vec<u32> = (0..rows).map(|row| [7, 1, 40][row % 3]).collect();
        let values = noise
            .chunks_exact(2)
            .enumerate()
            .flat_map(|(row, noise)| {
                let center = centers[row % 3];
                [(noise[0] + center[0]) as f32 * 100.0, (noise[1] + center[1]) as f32, 5.0]
            })
            .collect();
        (values, labels)
    }

    #[test]
    fn gradient_equals_finite_differences() {
        let (values, labels) = clusters(1, 60);
        let train = Matrix::new(&values, 3).unwrap();
        let probe = LinearProbe::fit(train, &labels).unwrap();
        let targets: Vec<usize> = (0..60).map(|row| [1, 0, 2][row % 3]).collect();
        let point: Vec<f64> = (0..12).map(|i| (i as f64 * 0.7).sin()).collect();
        let mut gradient = vec![0.0; 12];
        probe.loss(train, &targets, &point, &mut gradient);
        for i in 0..12 {
            let mut scratch = vec![0.0; 12];
            let mut at = |offset: f64| {
                let mut moved = point.clone();
                moved[i] += offset;
                probe.loss(train, &targets, &moved, &mut scratch)
            };
            let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((slope - gradient[i]).abs() < 1e-8, "{i}: {slope} {}", gradient[i]);
        }
    }

    #[test]
    fn reaches_the_bayes_accuracy_of_overlapping_clusters() {
        let (values, labels) = clusters(2, 6000);
        let (test, test_labels) = clusters(3, 6000);
        let probe = LinearProbe::fit(Matrix::new(&values, 3).unwrap(), &labels).unwrap();
        assert!(probe.converged(), "{} steps", probe.iterations());
        let test = Matrix::new(&test, 3).unwrap();
        let accuracy = probe.accuracy(test, &test_labels).unwrap();
        // The best rule chooses the nearest centre.
        let nearest = test
            .iter()
            .zip(&test_labels)
            .filter(|(row, label)| {
                let (x, y) = (row[0] / 100.0, row[1]);
                let best = if x < 1.0 && y < 1.0 {
                    7
                } else if x > y {
                    1
                } else {
                    40
                };
                best == **label
            })
            .count() as f64
            / 6000.0;
        assert!((accuracy - nearest).abs() < 0.01, "{accuracy} {nearest}");
    }

    #[test]
    fn separable_classes_converge_too() {
        let values = [-2.0, -1.0, 1.0, 2.0];
        let train = Matrix::new(&values, 1).unwrap();
        let probe = LinearProbe::fit(train, &[0, 0, 3, 3]).unwrap();
        assert!(probe.converged());
        assert_eq!(probe.predict(train).unwrap(), [0, 0, 3, 3]);
        assert_eq!(probe.accuracy(train, &[0, 0, 3, 9]).unwrap(), 0.75);
    }

    #[test]
    fn bad_input_is_an_error() {
        let two = Matrix::new(&[0.0, 1.0], 1).unwrap();
        assert!(matches!(LinearProbe::fit(two, &[1]), Err(MetricError::LabelCount { .. })));
        assert!(matches!(LinearProbe::fit(two, &[1, 1]), Err(MetricError::SingleClass)));
        let probe = LinearProbe::fit(two, &[0, 1]).unwrap();
        let wide = Matrix::new(&[0.0, 1.0], 2).unwrap();
        assert!(matches!(probe.predict(wide), Err(MetricError::WidthMismatch { .. })));
        assert!(matches!(probe.accuracy(two, &[1]), Err(MetricError::LabelCount { .. })));
    }
}
