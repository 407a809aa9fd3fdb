//! CPU backend of `cvae`: SIMD kernels of our own and a persistent worker pool.
//!
//! Every instruction-set level is a backend of its own ([`Level`]); [`CpuBackend::best`] picks the widest one
//! that the processor has. Results are bitwise equal for every number of threads.
//!
//! ```
//! use std::sync::Arc;
//! use cvae_core::{Activation, Backend, Batch, Entry, Initializer, ModelSpec, Objective, OptimizerSpec, Plan, State};
//! use cvae_cpu::CpuBackend;
//!
//! let spec = ModelSpec::mlp(&[16, 8, 2], Activation::Relu, Activation::Identity)?;
//! let plan = Arc::new(Plan::new(spec, Objective::default(), OptimizerSpec::adam(1e-2), 1, 32)?);
//! let mut model = CpuBackend::best(2).compile(Arc::clone(&plan))?;
//! model.write(State::Params, &plan.params.initial(Initializer::Torch, 1))?;
//!
//! let rows: Vec<f32> = (0..32 * 16).map(|i| (i % 7) as f32 / 7.0).collect();
//! for _ in 0..100 {
//!     model.train_step(&Batch::host(&rows))?;
//! }
//! let losses = model.losses()?;
//! assert!(losses.last_total() < losses.total());
//!
//! let mut codes = vec![0.0; 32 * 2];
//! model.infer(Entry::Encode, &rows, &mut codes)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arena;
mod backend;
mod cache;
mod contract;
mod coupled;
mod draw;
mod elements;
mod executable;
mod frozen;
mod infer;
mod kernels;
mod params;
mod pool;
mod profile;
mod rounded;
mod run;
mod schedule;
mod simd;
mod spectral;
mod split;
mod team;
mod weight_grad;

pub use backend::{CpuBackend, Level};
pub use frozen::{
    ByteLevels, FreezeError, Frozen, FrozenLayer, FrozenModel, FrozenPrecision, FrozenWeights, Workspace,
};
pub use simd::bf16::Bf16;
