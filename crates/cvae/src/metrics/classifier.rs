//! A small classifier of images, whose hidden layer is what samples are compared in.

use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};

use super::error::{MetricError, labelled, same_width};
use crate::Matrix;
use crate::linalg::product_transposed;

/// Rows handled at a time.
const BLOCK_ROWS: usize = 512;
/// The weights that `cargo xtask classifier` trains.
const FASHION_MNIST: &[u8] = include_bytes!("../../../../datasets/classifier/fashion-mnist.safetensors");

/// A dense network with rectified hidden layers that tells classes of images apart.
///
/// Its last hidden layer is a space in which images of one kind are near each other, whatever their pixels: the
/// place to measure [`frechet_distance`](super::frechet_distance) and
/// [`PrecisionRecall`](super::PrecisionRecall), as the Inception network's is for photographs.
#[derive(Clone, Debug)]
pub struct Classifier {
    layers: Vec<Layer>,
}

/// Shape and values of a tensor.
type Tensor = (Vec<usize>, Vec<f32>);

/// A dense layer: `weight` is `[outputs, inputs]`.
#[derive(Clone, Debug)]
struct Layer {
    inputs: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Classifier {
    /// The classifier of Fashion-MNIST that is part of this crate: 784-128-64-10, pixels from 0 to 1.
    ///
    /// # Errors
    ///
    /// [`MetricError::Classifier`] when the weights it was built with are damaged.
    pub fn fashion_mnist() -> Result<Self, MetricError> {
        Self::from_safetensors(FASHION_MNIST)
    }

    /// Reads tensors `0.weight` `[out, in]`, `0.bias` `[out]`, `1.weight`, … of 32-bit floats.
    ///
    /// # Errors
    ///
    /// [`MetricError::Classifier`] when the file is damaged, or its tensors are no chain of dense layers with
    /// finite values.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self, MetricError> {
        let file = SafeTensors::deserialize(bytes).map_err(|_| MetricError::Classifier("it is no safetensors file"))?;
        let tensor = |name: String| -> Result<Option<Tensor>, MetricError> {
            let Ok(view) = file.tensor(&name) else { return Ok(None) };
            if view.dtype() != Dtype::F32 {
                return Err(MetricError::Classifier("a tensor has other elements than 32-bit floats"));
            }
            let float = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let values: Vec<f32> = view.data().chunks_exact(4).map(float).collect();
            if values.iter().any(|value| !value.is_finite()) {
                return Err(MetricError::Classifier("a weight is not finite"));
            }
            Ok(Some((view.shape().to_vec(), values)))
        };
        let mut layers: Vec<Layer> = Vec::new();
        while let Some((shape, weight)) = tensor(format!("{}.weight", layers.len()))? {
            let Some((bias_shape, bias)) = tensor(format!("{}.bias", layers.len()))? else { break };
            let &[outputs, inputs] = shape.as_slice() else { break };
            let follows = layers.last().is_none_or(|last| last.bias.len() == inputs);
            if !(follows && outputs > 0 && inputs > 0 && bias_shape == [outputs]) {
                break;
            }
            layers.push(Layer { inputs, weight, bias });
        }
        match layers.len() >= 2 && file.len() == 2 * layers.len() {
            true => Ok(Self { layers }),
            false => Err(MetricError::Classifier("its tensors are no chain of dense layers")),
        }
    }

    /// Width of the rows it takes.
    pub fn width(&self) -> usize {
        self.layers[0].inputs
    }

    /// The last hidden layer of every row, `[rows, features]`, with `features` of
    /// [`feature_width`](Self::feature_width).
    ///
    /// # Errors
    ///
    /// [`MetricError::WidthMismatch`] when the rows have another width.
    pub fn features(&self, rows: Matrix<'_>) -> Result<Vec<f32>, MetricError> {
        self.run(rows, &self.layers[..self.layers.len() - 1])
    }

    /// Width of [`features`](Self::features).
    pub fn feature_width(&self) -> usize {
        self.layers[self.layers.len() - 1].inputs
    }

    /// The most probable class of every row.
    ///
    /// # Errors
    ///
    /// As [`features`](Self::features).
    pub fn predict(&self, rows: Matrix<'_>) -> Result<Vec<u32>, MetricError> {
        let logits = self.run(rows, &self.layers)?;
        let classes = self.layers[self.layers.len() - 1].bias.len();
        let largest = |logits: &[f32]| {
            let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            best.map_or(0, |(class, _)| class as u32)
        };
        Ok(logits.chunks_exact(classes).map(largest).collect())
    }

    /// Share of rows whose label is predicted.
    ///
    /// # Errors
    ///
    /// As [`features`](Self::features), and [`MetricError::LabelCount`] when labels do not match the rows.
    pub fn accuracy(&self, rows: Matrix<'_>, labels: &[u32]) -> Result<f64, MetricError> {
        labelled(rows, labels)?;
        let hits = self.predict(rows)?.iter().zip(labels).filter(|(a, b)| a == b).count();
        Ok(hits as f64 / labels.len() as f64)
    }

    /// Rows through the first layers; all but the network's last are rectified.
    fn run(&self, rows: Matrix<'_>, layers: &[Layer]) -> Result<Vec<f32>, MetricError> {
        same_width(self.width(), rows.width())?;
        let apply = |block: &[f32]| {
            let mut values = block.to_vec();
            for (index, layer) in layers.iter().enumerate() {
                let mut out = layer.bias.repeat(values.len() / layer.inputs);
                product_transposed(1.0, &values, &layer.weight, layer.inputs, 1.0, &mut out);
                if index + 1 < self.layers.len() {
                    out.iter_mut().for_each(|value| *value = value.max(0.0));
                }
                values = out;
            }
            values
        };
        let blocks: Vec<Vec<f32>> = rows.values().par_chunks(BLOCK_ROWS * rows.width()).map(apply).collect();
        Ok(blocks.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;

    /// A file of these tensors.
    fn file(tensors: &[(&str, &[usize], &[f32])]) -> Vec<u8> {
        let bytes: Vec<Vec<u8>> =
            tensors.iter().map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
        let views = tensors
            .iter()
            .zip(&bytes)
            .map(|((name, shape, _), bytes)| (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap()));
        safetensors::serialize(views, None).unwrap()
    }

    const FIRST: (&str, &[usize], &[f32]) = ("0.weight", &[2, 2], &[1.0, -1.0, 0.5, 0.5]);
    const FIRST_BIAS: (&str, &[usize], &[f32]) = ("0.bias", &[2], &[0.0, -1.0]);
    const SECOND: (&str, &[usize], &[f32]) = ("1.weight", &[3, 2], &[1.0, 0.0, 0.0, 1.0, -1.0, -1.0]);
    const SECOND_BIAS: (&str, &[usize], &[f32]) = ("1.bias", &[3], &[0.0, 0.0, 0.5]);

    #[test]
    fn features_and_classes_are_computed_by_hand() {
        let classifier = Classifier::from_safetensors(&file(&[FIRST, FIRST_BIAS, SECOND, SECOND_BIAS])).unwrap();
        assert_eq!((classifier.width(), classifier.feature_width()), (2, 2));
        let rows = [3.0, 1.0, 0.0, 4.0, 0.0, 0.0];
        let rows = Matrix::new(&rows, 2).unwrap();
        assert_eq!(classifier.features(rows).unwrap(), [2.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
        assert_eq!(classifier.predict(rows).unwrap(), [0, 1, 2]);
        assert_eq!(classifier.accuracy(rows, &[0, 1, 1]).unwrap(), 2.0 / 3.0);
        assert!(classifier.features(Matrix::new(&[1.0], 1).unwrap()).is_err());
    }

    #[test]
    fn the_shipped_classifier_is_whole() {
        let classifier = Classifier::fashion_mnist().unwrap();
        assert_eq!((classifier.width(), classifier.feature_width()), (784, 64));
        assert!(FASHION_MNIST.len() < 500_000);
        let blank = vec![0.0; 784];
        assert_eq!(classifier.features(Matrix::new(&blank, 784).unwrap()).unwrap().len(), 64);
    }

    #[test]
    fn damaged_weights_are_errors() {
        let good = file(&[FIRST, FIRST_BIAS, SECOND, SECOND_BIAS]);
        let odd_bias: (&str, &[usize], &[f32]) = ("1.bias", &[2], &[0.0, 0.0]);
        let narrow: (&str, &[usize], &[f32]) = ("1.weight", &[3, 1], &[1.0, 1.0, 1.0]);
        let infinite: (&str, &[usize], &[f32]) = ("0.bias", &[2], &[f32::INFINITY, 0.0]);
        for bytes in [
            vec![],
            good[..good.len() - 1].to_vec(),
            file(&[FIRST, FIRST_BIAS]),
            file(&[FIRST, FIRST_BIAS, SECOND]),
            file(&[FIRST, FIRST_BIAS, SECOND, odd_bias]),
            file(&[FIRST, FIRST_BIAS, narrow, SECOND_BIAS]),
            file(&[FIRST, infinite, SECOND, SECOND_BIAS]),
            file(&[FIRST, FIRST_BIAS, SECOND, SECOND_BIAS, ("9.bias", &[1], &[0.0])]),
        ] {
            assert!(matches!(Classifier::from_safetensors(&bytes), Err(MetricError::Classifier(_))));
        }
    }
}
