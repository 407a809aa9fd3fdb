//! The candle backend of `cvae`: training and inference built from the specification and the objective by
//! candle's own autograd.
//!
//! Nothing here reads the lowered program, so that a mistake in the lowering or in the derived backward pass
//! cannot agree with itself. Two backends come of one crate:
//!
//! - **`candle-f64`** is the independent oracle: every formula is written out in its stable form, in `f64`.
//! - **`candle-f32`** is the baseline a candle user knows: `candle_nn::Linear`, candle's own activations, and
//!   the tensor operations of `candle_nn::AdamW`.
//!
//! Both take their parameters from [`Executable::write`] and their noise from
//! [`cvae_core::Noise`]; candle's generators, which cannot be seeded on a CPU, are not used.
//!
//! What one should know about candle:
//! - Matrix products run on the `gemm` crate. Its AVX-512 kernels are behind the feature `x86-v4`, off by
//!   default; this crate turns it on.
//! - Worker threads are those of rayon's global pool, sized once per process by `RAYON_NUM_THREADS`; a backend
//!   cannot have a pool of its own.
//! - Gradients are detached: there is no second order. The Jacobian terms are therefore written out as products
//!   with the layers' matrices, which reverse mode then differentiates once.
//! - Tensors are allocated at every operation, so that a step does allocate here.
//! - `relu` and `abs` have gradient 1 at exactly 0, and `relu` turns a NaN into 0. `candle-f64` follows the
//!   definitions of this project; `candle-f32` keeps candle's operations, and the conformance matrix says so
//!   ([`CandleBackend::deviations`]).
//!
//! ```
//! use std::sync::Arc;
//!
//! use cvae_candle::{CandleBackend, Precision};
//! use cvae_core::{Activation, Backend, Batch, Initializer, ModelSpec, Objective, OptimizerSpec, Plan, State};
//!
//! let spec = ModelSpec::mlp(&[4, 3, 2], Activation::Tanh, Activation::Identity)?;
//! let plan = Arc::new(Plan::new(spec, Objective::default(), OptimizerSpec::adam(1e-2), 42, 2)?);
//! let mut oracle = CandleBackend::new(Precision::F64).compile(Arc::clone(&plan))?;
//! oracle.write(State::Params, &plan.params.initial(Initializer::Torch, 42))?;
//! oracle.gradients(&Batch::host(&[0.1, 0.4, 0.2, 0.9, 0.8, 0.0, 0.3, 0.5]))?;
//! let mut gradients = vec![0.0; plan.params.len()];
//! oracle.read_f64(State::Grads, &mut gradients)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod activation;
mod data;
mod draws;
mod executable;
mod input;
mod jacobian;
mod latent;
mod linear;
mod model;
mod optimizer;
mod reconstruction;

use std::sync::Arc;

use candle_core::DType;
use cvae_core::{Backend, BackendId, CompileError, DeviceError, DeviceInfo, Executable, Plan, Unsupported};

use crate::executable::CandleExecutable;

/// Number format and style of a [`CandleBackend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// `f32`, in candle's idiomatic operations: the baseline.
    F32,
    /// `f64`, in explicit stable formulas: the oracle.
    F64,
}

impl Precision {
    /// Both precisions.
    pub const ALL: [Self; 2] = [Self::F32, Self::F64];

    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F64 => DType::F64,
        }
    }
}

/// Runs plans on candle's CPU device.
#[derive(Clone, Copy, Debug)]
pub struct CandleBackend {
    precision: Precision,
}

impl CandleBackend {
    /// The backend `candle-f32` or `candle-f64`.
    pub fn new(precision: Precision) -> Self {
        Self { precision }
    }

    /// The backend's precision.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Where candle's own operations differ from this project's definitions: checks of the conformance suite,
    /// by the start of their name, and why they do not apply.
    pub fn deviations(&self) -> &'static [(&'static str, &'static str)] {
        match self.precision {
            Precision::F32 => &[
                ("grad::kink::", "candle's relu and abs have slope 1 at exactly 0"),
                ("finite::inference::relu", "candle's relu turns a NaN into 0"),
            ],
            Precision::F64 => &[],
        }
    }
}

impl Backend for CandleBackend {
    fn id(&self) -> BackendId {
        match self.precision {
            Precision::F32 => BackendId::new("candle-f32"),
            Precision::F64 => BackendId::new("candle-f64"),
        }
    }

    fn device(&self) -> DeviceInfo {
        DeviceInfo {
            name: "CPU through candle".to_owned(),
            threads: Some(candle_core::utils::get_num_threads()),
            memory: None,
            features: features(),
        }
    }

    fn supports(&self, _plan: &Plan) -> Result<(), Unsupported> {
        Ok(())
    }

    fn compile(&self, plan: Arc<Plan>) -> Result<Box<dyn Executable>, CompileError> {
        self.supports(&plan)?;
        Ok(Box::new(CandleExecutable::new(self.id(), self.precision, plan)?))
    }
}

/// Instruction sets that candle's matrix products choose from on this machine.
fn features() -> Vec<String> {
    #[cfg(target_arch = "x86_64")]
    let found = [
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let found = [("neon", cfg!(target_arch = "aarch64"))];
    found.into_iter().filter(|(_, present)| *present).map(|(name, _)| name.to_owned()).collect()
}

/// Turns candle's error during `operation` into a device error.
fn device_error(
    backend: &BackendId,
    operation: &'static str,
) -> impl FnOnce(candle_core::Error) -> DeviceError + use<> {
    let device = backend.to_string();
    move |error| DeviceError { device, operation, source: Box::new(error) }
}
