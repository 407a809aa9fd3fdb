//! The reference backend of `cvae` (collapsed variational autoencoders): naive, readable, in `f64`.
//!
//! [`ReferenceBackend`] interprets [`cvae_core::Program`] op by op, and is the definition of every op: each
//! other backend is compared with it. [`direct_loss`] computes the loss a second time, straight from the
//! specification and the objective without a program, and [`finite_difference`] differentiates it numerically,
//! so that the derived backward pass is checked against something that does not share its lowering.
//!
//! Nothing here is meant to be fast. Formulas: docs/MATH.md.
//!
//! ```
//! use std::sync::Arc;
//!
//! use cvae_core::{
//!     Activation, Backend, Batch, Initializer, ModelSpec, Objective, OptimizerSpec, Plan, State, Term,
//! };
//! use cvae_reference::ReferenceBackend;
//!
//! let spec = ModelSpec::mlp(&[4, 3, 2], Activation::Tanh, Activation::Identity)?;
//! let plan = Arc::new(Plan::new(spec, Objective::default(), OptimizerSpec::adam(1e-2), 42, 8)?);
//! let mut model = ReferenceBackend.compile(Arc::clone(&plan))?;
//! model.write(State::Params, &plan.params.initial(Initializer::Torch, 42))?;
//! for _ in 0..10 {
//!     model.train_step(&Batch::host(&[0.1, 0.4, 0.2, 0.9, 0.8, 0.0, 0.3, 0.5]))?;
//! }
//! assert!(model.losses()?.mean(Term::Reconstruction) > 0.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod activation;
mod code;
mod corruption;
mod difference;
mod direct;
mod executable;
mod jacobian;
mod latent;
mod linear;
mod machine;
mod optimizer;
mod reconstruction;
mod spectral;

use std::sync::Arc;

use cvae_core::{Backend, BackendId, CompileError, DeviceInfo, Executable, Plan, Unsupported};

pub use crate::difference::{Differences, finite_difference};
pub use crate::direct::{DirectError, Draw, direct_loss};
use crate::executable::ReferenceExecutable;

/// The backend `reference`: one thread, `f64` throughout. Available everywhere, supports every plan.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReferenceBackend;

impl Backend for ReferenceBackend {
    fn id(&self) -> BackendId {
        BackendId::new("reference")
    }

    fn device(&self) -> DeviceInfo {
        DeviceInfo {
            name: "f64 interpreter".to_owned(),
            threads: Some(1),
            memory: None,
            features: vec!["f64".to_owned()],
        }
    }

    fn supports(&self, _plan: &Plan) -> Result<(), Unsupported> {
        Ok(())
    }

    fn compile(&self, plan: Arc<Plan>) -> Result<Box<dyn Executable>, CompileError> {
        Ok(Box::new(ReferenceExecutable::new(plan)?))
    }
}
