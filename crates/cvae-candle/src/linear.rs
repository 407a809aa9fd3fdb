//! Dense layers.

use candle_core::{DType, Result, Tensor, Var};
use candle_nn::{Linear, Module};
use cvae_core::{Activation, Noise, Objective, Stream};

use crate::Precision;
use crate::activation::activate;

/// A dense layer over parameters that the model owns.
pub(crate) struct Dense {
    precision: Precision,
    linear: Linear,
    activation: Activation,
    /// Where the search for the weight's largest singular value starts, `[in, 1]`, if the weight is divided by it.
    spectral_start: Option<Tensor>,
}

/// What a stack of layers makes of a batch.
pub(crate) struct Trace {
    /// Input of the last layer.
    pub(crate) last_input: Tensor,
    /// Output of each layer before its activation, first layer first.
    pub(crate) logits: Vec<Tensor>,
    /// Output of the last layer.
    pub(crate) output: Tensor,
}

impl Dense {
    /// A layer of `weight` `[out, in]` and `bias` `[out]`, which it shares with the variables.
    pub(crate) fn new(precision: Precision, weight: &Var, bias: Option<&Var>, activation: Activation) -> Self {
        let linear = Linear::new(weight.as_tensor().clone(), bias.map(|bias| bias.as_tensor().clone()));
        Self { precision, linear, activation, spectral_start: None }
    }

    /// The layer whose weight, the parameter with index `param`, acts as `W/σ(W)`. Formulas: docs/MATH.md, section
    /// "Spectral norm".
    pub(crate) fn with_spectral_norm(mut self, param: u32) -> Result<Self> {
        let weight = self.linear.weight();
        let width = weight.dim(1)?;
        let mut signs = vec![0.0f32; width];
        Noise::new(0, Stream::Spectral, 0).signs(param, &mut signs);
        self.spectral_start = Some(Tensor::from_vec(signs, (width, 1), weight.device())?.to_dtype(weight.dtype())?);
        Ok(self)
    }

    /// `W/σ(W)`, with the singular vectors constants to autograd. A weight of 0 is left alone.
    fn normalized(&self, start: &Tensor) -> Result<Tensor> {
        let weight = self.linear.weight();
        let constant = weight.detach();
        let transposed = constant.t()?;
        let Some(mut right) = normalize(start)? else { return Ok(weight.clone()) };
        let Some(mut left) = normalize(&constant.matmul(&right)?)? else { return Ok(weight.clone()) };
        for _ in 0..Objective::SPECTRAL_ITERATIONS {
            let Some(next) = normalize(&transposed.matmul(&left)?)? else { return Ok(weight.clone()) };
            right = next;
            let Some(next) = normalize(&constant.matmul(&right)?)? else { return Ok(weight.clone()) };
            left = next;
        }
        let sigma = left.t()?.matmul(&weight.matmul(&right)?)?;
        weight.broadcast_div(&sigma)
    }

    /// `W`, `[out, in]`.
    pub(crate) fn weight(&self) -> &Tensor {
        self.linear.weight()
    }

    /// The activation of the output.
    pub(crate) fn activation(&self) -> Activation {
        self.activation
    }

    /// `input · Wᵀ + b`.
    pub(crate) fn linear(&self, input: &Tensor) -> Result<Tensor> {
        let weight = match (self.precision, &self.spectral_start) {
            (Precision::F32, None) => return self.linear.forward(input),
            (Precision::F64, None) => self.linear.weight().clone(),
            (_, Some(start)) => self.normalized(start)?,
        };
        let product = input.matmul(&weight.t()?)?;
        self.linear.bias().map_or(Ok(product.clone()), |bias| product.broadcast_add(bias))
    }

    /// `act(input · Wᵀ + b)`.
    pub(crate) fn forward(&self, input: &Tensor) -> Result<Tensor> {
        activate(self.precision, self.activation, &self.linear(input)?)
    }

    /// Runs `layers` one after the other, the first on `input`.
    pub(crate) fn trace(layers: &[Self], input: &Tensor) -> Result<Trace> {
        let mut trace = Trace { last_input: input.clone(), logits: vec![], output: input.clone() };
        for layer in layers {
            let logits = layer.linear(&trace.output)?;
            let output = activate(layer.precision, layer.activation, &logits)?;
            trace.last_input = std::mem::replace(&mut trace.output, output);
            trace.logits.push(logits);
        }
        Ok(trace)
    }

    /// The layer's name of what runs, for [`cvae_core::KernelChoice`].
    pub(crate) fn kernel(&self) -> String {
        match self.precision {
            Precision::F32 => format!("candle_nn::Linear, {}", self.activation),
            Precision::F64 => format!("candle matmul in f64, {}", self.activation),
        }
    }
}

/// A vector of length 1, or `None` for one of length 0.
fn normalize(vector: &Tensor) -> Result<Option<Tensor>> {
    let norm = vector.sqr()?.sum_all()?.sqrt()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    if norm == 0.0 { Ok(None) } else { (vector / norm).map(Some) }
}
