//! Core of `cvae`, the system for **collapsed variational autoencoders**.
//!
//! "C" is for collapsed, never conditional: a VAE whose posterior noise is removed (the literature also says
//! *regularized autoencoder*, Ghosh et al., ICLR 2020). This crate holds what every backend shares and no
//! backend owns: the model specification, the objective, the optimiser, their lowering to a program, the
//! parameter layout, the random numbers, and the traits a backend implements. It performs no I/O and knows
//! no device.
//!
//! ```
//! use cvae_core::{Activation, ModelSpec, Objective, OptimizerSpec, Plan};
//!
//! let spec = ModelSpec::mlp(&[64, 32, 8], Activation::Relu, Activation::Identity)?;
//! let plan = Plan::new(spec, Objective::default(), OptimizerSpec::adam(1e-3), 42, 32)?;
//! assert_eq!(plan.params.len(), 64 * 32 + 32 + 32 * 8 + 8 + 8 * 32 + 32 + 32 * 64 + 64);
//! println!("{}", plan.program);
//! # Ok::<(), cvae_core::SpecError>(())
//! ```
#![forbid(unsafe_code)]

pub mod backend;
pub mod columns;
pub mod corruption;
pub mod error;
pub mod fold;
pub mod layout;
mod listing;
mod lower;
pub mod objective;
pub mod op;
mod operands;
pub mod optimizer;
pub mod plan;
pub mod program;
pub mod rng;
pub mod shape;
pub mod spec;
mod verify;

pub use backend::{
    Backend, BackendId, Batch, BatchRows, DataId, DeviceInfo, Entry, Executable, KernelChoice, Losses, NonFinite,
    OpProfile, Rows, State,
};
pub use columns::{ColumnGroup, ColumnKind};
pub use corruption::{Corruption, Patch, Shift};
pub use error::{CompileError, DeviceError, RunError, SpecError, Unsupported, VerifyError, VerifyRule};
pub use fold::{CodeMap, fold_code_map, fold_linear, fold_spectral_norm};
pub use layout::{Initializer, Param, ParamLayout, ParamRole};
pub use objective::{Jacobian, KlBound, Latent, Objective, Reconstruction, Term};
pub use op::Op;
pub use optimizer::{Algorithm, OptimizerSpec, Schedule, Update};
pub use plan::Plan;
pub use program::{Graph, ParamId, Program, ValueId};
pub use rng::{Noise, Stream, epoch_order};
pub use shape::Shape;
pub use spec::{Activation, LayerSpec, MAX_PARAMS, ModelSpec, Part};
