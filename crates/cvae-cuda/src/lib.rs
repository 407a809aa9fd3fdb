//! The CUDA backend of `cvae` (collapsed variational autoencoders): our own kernels, through `cudarc`.
//!
//! The crate builds without CUDA. A GPU is looked for when it runs: [`CudaBackend::detect`] says what is there, or
//! why nothing can be used. Kernels, precisions, launch paths and how all of it is tested without a GPU:
//! docs/CUDA.md.
//!
//! ```
//! use cvae_cuda::{CudaBackend, DetectError};
//!
//! match CudaBackend::detect() {
//!     Ok(device) => assert!(device.memory.is_some()),
//!     Err(DetectError::NoDriver) => {} // no CUDA driver (libcuda.so.1 not found)
//!     Err(other) => assert!(!other.to_string().is_empty()),
//! }
//! ```

mod backend;
mod data;
mod detect;
mod driver;
mod executable;
mod fault;
mod inputs;
mod launch;
mod layout;
mod lower;
mod program;
mod schedule;
mod task;
mod timing;

pub use backend::{CudaBackend, CudaConfig, Precision};
pub use detect::DetectError;
pub use launch::LaunchPath;
pub use timing::{Timing, TimingError};
