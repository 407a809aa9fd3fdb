//! Why a backend cannot be had.

use cvae_core::Unsupported;
use thiserror::Error;

use super::{FAMILIES, IDS};

/// A backend that cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// No backend has that name.
    #[error("unknown backend `{name}`; known: {}, {}", FAMILIES.join(", "), IDS.join(", "))]
    Unknown {
        /// The name given.
        name: String,
    },
    /// The backend's crate was not compiled in.
    #[error("{id} is not part of this build (cargo feature `{feature}`)")]
    NotBuilt {
        /// The backend's id.
        id: &'static str,
        /// The feature that compiles it in.
        feature: &'static str,
    },
    /// The machine cannot run it.
    #[error(transparent)]
    Unavailable(Unsupported),
    /// The machine has no device for it, or one that cannot be used.
    #[error("{id} cannot be used")]
    Device {
        /// The backend's id.
        id: &'static str,
        /// Whether there is no such device at all.
        absent: bool,
        /// What the backend says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing that the name stands for is in this build and on this machine.
    #[error("no `{name}` backend is part of this build and available on this machine")]
    NoneAvailable {
        /// The name given.
        name: String,
    },
    /// The backend has no such arithmetic.
    #[error("`{name}` does not compute in {precision}: {missing}")]
    Precision {
        /// The name given.
        name: String,
        /// The precision asked for.
        precision: &'static str,
        /// What it lacks.
        missing: &'static str,
    },
    /// No threads to run on.
    #[error("a backend needs at least one thread")]
    NoThreads,
}
