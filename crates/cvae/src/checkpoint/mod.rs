//! The files of a run: written all or nothing, trusted not at all.
//!
//! Every write goes to a temporary file that is flushed and then renamed, so that a process killed at any
//! moment leaves a folder that reads. `state.safetensors` alone decides where training goes on;
//! `model.safetensors` and `metrics.jsonl` follow it and are rewritten from it on resume.
//!
//! Reading compares each declared length with the length of the file before it allocates, verifies a
//! digest of the header and of each tensor, and checks names, types, shapes and finiteness against the model
//! that the configuration describes.

mod error;
mod folder;
#[cfg(feature = "cpu")]
mod frozen;
mod model;
mod state;
mod tensors;

pub use error::CheckpointError;
pub use folder::{Existing, RunFolder};
#[cfg(feature = "cpu")]
pub(crate) use frozen::{read_frozen, write_frozen};
pub use model::Model;
pub(crate) use state::metrics_lines;
pub use state::{Best, StateFile, TrainingState};
pub(crate) use tensors::hex;

#[cfg(test)]
mod tests;
