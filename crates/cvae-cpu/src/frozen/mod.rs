//! Frozen models: trained weights packed once for inference, and never written again.
//!
//! A [`FrozenModel`] is plain data, row-major and independent of the machine: what a file holds.
//! [`Frozen`] is its form for one instruction set, shared by any number of threads. A [`Workspace`] is what one
//! caller needs beside it: buffers and worker threads, so that a call allocates nothing, takes no lock and
//! starts no thread.
//!
//! ```
//! use cvae_core::{Activation, Entry, Initializer, ModelSpec, Objective, OptimizerSpec, Plan};
//! use cvae_cpu::{Frozen, FrozenModel, Level};
//!
//! let spec = ModelSpec::mlp(&[16, 8, 2], Activation::Relu, Activation::Identity)?;
//! let plan = Plan::new(spec, Objective::default(), OptimizerSpec::default(), 1, 32)?;
//! let model = FrozenModel::new(&plan, &plan.params.initial(Initializer::Torch, 1))?;
//!
//! let rows: Vec<f32> = (0..100 * 16).map(|i| (i % 7) as f32 / 7.0).collect();
//! let (halves, bytes) = (model.to_bf16()?, model.quantize(&rows)?);
//! for model in [model, halves, bytes] {
//!     let frozen = Frozen::new(&model, Level::best())?;
//!     let mut workspace = frozen.workspace(2)?;
//!     let mut codes = vec![0.0; 100 * 2];
//!     workspace.infer(Entry::Encode, &rows, &mut codes)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod calibrate;
mod chunks;
mod error;
mod model;
mod packed;
mod workspace;

pub use error::FreezeError;
pub use model::{ByteLevels, FrozenLayer, FrozenModel, FrozenPrecision, FrozenWeights};
pub use packed::Frozen;
pub use workspace::Workspace;
