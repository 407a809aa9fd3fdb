//! Backends by name.
//!
//! | name | backend |
//! |---|---|
//! | `auto` | the fastest available: a CPU's, or a GPU's where [`select_for`] finds the work large enough |
//! | `cpu` | the widest instruction set of this machine: `cpu-avx512`, `cpu-avx2`, `cpu-neon` or `cpu-scalar`; in bf16 `cpu-amx-bf16` or `cpu-avx512-bf16` |
//! | `cuda` | the CUDA backend of the precision asked for |
//! | `candle` | `candle-f32` |
//! | any id of [`IDS`] | that backend, or an error |
//!
//! ```
//! use cvae::{BackendConfig, registry};
//!
//! let chosen = registry::select(&BackendConfig::default())?;
//! println!("{}: {}", chosen.backend.id(), chosen.reason);
//! # Ok::<(), cvae::RegistryError>(())
//! ```

mod error;

use std::num::NonZero;
use std::sync::Arc;

use cvae_core::{Backend, Plan, Unsupported};
use serde::Serialize;

use crate::config::{BackendConfig, Precision};

pub use error::RegistryError;

/// Every backend id, the fastest first within a device.
pub const IDS: [&str; 13] = [
    "cpu-avx512",
    "cpu-avx2",
    "cpu-neon",
    "cpu-scalar",
    "cpu-amx-bf16",
    "cpu-avx512-bf16",
    "cpu-scalar-bf16",
    "cuda-f32",
    "cuda-tf32",
    "cuda-bf16",
    "candle-f32",
    "candle-f64",
    "reference",
];

/// Names that stand for a choice among [`IDS`].
pub const FAMILIES: [&str; 4] = ["auto", "cpu", "cuda", "candle"];

/// A backend and why it was chosen.
#[derive(Clone)]
pub struct Selected {
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// Why it was chosen, as a clause to follow its name.
    pub reason: String,
}

impl std::fmt::Debug for Selected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Selected").field("backend", &self.backend.id()).field("reason", &self.reason).finish()
    }
}

/// Whether a backend can be used here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendStatus {
    /// The backend's id.
    pub id: &'static str,
    /// Whether it can be used.
    pub available: bool,
    /// The device, or the reason why it cannot be used.
    pub detail: String,
}

/// Environment variable: with the value `1`, the CPU's executables measure where the time of training steps goes; see
/// [`Autoencoder::profile`](crate::Autoencoder::profile).
pub const PROFILE: &str = "CVAE_PROFILE";

/// Threads of [`default_threads`] at most, however many cores there are.
const MAX_DEFAULT_THREADS: usize = 256;

/// The cores available to this process: at least 1, and 256 at most.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get).min(MAX_DEFAULT_THREADS)
}

/// Opens the backend that a configuration asks for. `auto` stays on the CPU: [`select_for`] knows the work.
///
/// # Errors
/// A name that is none of [`FAMILIES`] and [`IDS`], a backend that is not part of this build or not
/// available on this machine, or a precision that it does not have.
pub fn select(config: &BackendConfig) -> Result<Selected, RegistryError> {
    choose(config, None)
}

/// As [`select`], for training `plan`: `auto` takes a GPU where there is one, if a step of the plan has work enough to
/// gain from it. Where there is a GPU, [`Selected::reason`] says why it is used or is not.
///
/// # Errors
/// As [`select`].
pub fn select_for(config: &BackendConfig, plan: &Plan) -> Result<Selected, RegistryError> {
    choose(config, Some(plan))
}

fn choose(config: &BackendConfig, plan: Option<&Plan>) -> Result<Selected, RegistryError> {
    let threads = config.threads.unwrap_or_else(default_threads);
    if threads == 0 {
        return Err(RegistryError::NoThreads);
    }
    let name = config.name.as_str();
    let candidates: &[&'static str] = match (name, config.precision) {
        ("auto", Precision::F32) => &["cpu-avx512", "cpu-avx2", "cpu-neon", "cpu-scalar", "candle-f32"],
        ("cpu", Precision::F32) => &["cpu-avx512", "cpu-avx2", "cpu-neon", "cpu-scalar"],
        ("auto" | "cpu", Precision::Bf16) if has_bf16_products() => &["cpu-amx-bf16", "cpu-avx512-bf16"],
        ("cuda", Precision::F32) => &["cuda-f32"],
        ("cuda", Precision::Bf16) => &["cuda-bf16"],
        ("candle", Precision::F32) => &["candle-f32"],
        ("auto" | "cpu" | "candle", precision) => {
            return Err(refuse(name, precision));
        }
        (name, precision) => {
            let Some(id) = IDS.iter().find(|id| **id == name) else {
                return Err(RegistryError::Unknown { name: name.to_owned() });
            };
            if (precision == Precision::Bf16) != id.ends_with("-bf16") {
                return Err(refuse(name, precision));
            }
            let reason = "asked for by name".to_owned();
            return Ok(Selected { backend: open(id, threads)?, reason });
        }
    };
    // The GPU that `auto` takes computes in f32.
    let gpu = match plan.filter(|_| name == "auto" && config.precision == Precision::F32) {
        Some(plan) => consider_gpu(plan),
        None => Gpu::Unused { why: None },
    };
    let why = match gpu {
        Gpu::Used(selected) => return Ok(selected),
        Gpu::Unused { why } => why,
    };
    let mut refusals = vec![];
    for id in candidates {
        match open(id, threads) {
            Ok(backend) => {
                let reason = reason(name, id, &refusals).into_iter().chain(why).collect::<Vec<_>>().join("; ");
                return Ok(Selected { backend, reason });
            }
            Err(
                error @ (RegistryError::NotBuilt { .. }
                | RegistryError::Device { .. }
                | RegistryError::Unavailable(Unsupported::Unavailable { .. })),
            ) => refusals.push(error),
            Err(error) => return Err(error),
        }
    }
    match refusals.pop() {
        Some(refusal) if candidates.len() == 1 => Err(refusal),
        _ => Err(RegistryError::NoneAvailable { name: name.to_owned() }),
    }
}

/// What `auto` makes of the GPU.
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "a build without CUDA uses no GPU"))]
enum Gpu {
    Used(Selected),
    /// `why` is empty where there is no GPU.
    Unused {
        why: Option<String>,
    },
}

/// Takes the GPU for training `plan`, or says why it does not.
#[cfg(feature = "cuda")]
fn consider_gpu(plan: &Plan) -> Gpu {
    use cvae_cuda::CudaBackend;

    let id = "cuda-f32";
    let refused = |error: RegistryError| match error {
        RegistryError::Device { absent: true, .. } => Gpu::Unused { why: None },
        error => Gpu::Unused { why: Some(sentence(&error)) },
    };
    if !CudaBackend::is_worthwhile(plan) {
        return match CudaBackend::detect() {
            Ok(device) => {
                let why = format!("a training step is too small to gain from the GPU ({})", device.name);
                Gpu::Unused { why: Some(why) }
            }
            Err(error) => refused(cuda_error(id, error)),
        };
    }
    let opened = open_cuda(id).and_then(|backend| Ok(backend.supports(plan).map(|()| backend)?));
    match opened {
        Ok(backend) => {
            let reason = "there is a GPU, and a training step is large enough to gain from it".to_owned();
            Gpu::Used(Selected { backend, reason })
        }
        Err(error) => refused(error),
    }
}

#[cfg(not(feature = "cuda"))]
fn consider_gpu(_plan: &Plan) -> Gpu {
    Gpu::Unused { why: None }
}

/// The error with its causes, in one line.
fn sentence(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    std::iter::once(error).chain(causes).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The refusal of a precision that the backend `name` does not have.
fn refuse(name: &str, precision: Precision) -> RegistryError {
    let missing = match name.split('-').next() {
        _ if name.ends_with("-bf16") => "the backend's name stands for another precision",
        Some("auto" | "cpu") if !has_bf16_products() => {
            "this processor lacks products of bfloat16 (AVX-512 BF16); the backend `cuda` has them"
        }
        Some("auto" | "cpu") => "its instruction set does not; the backend `cpu-avx512-bf16` does",
        Some("candle") => "candle's backends compute in 32-bit and 64-bit floats",
        _ => "the backend's name stands for another precision",
    };
    RegistryError::Precision { name: name.to_owned(), precision: precision.name(), missing }
}

/// Whether the processor multiplies vectors of bfloat16.
fn has_bf16_products() -> bool {
    #[cfg(feature = "cpu")]
    return cvae_cpu::Level::Avx512Bf16.available();
    #[cfg(all(not(feature = "cpu"), target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(all(not(feature = "cpu"), not(target_arch = "x86_64")))]
    false
}

/// Every known backend, with its device or the reason why it cannot be used.
pub fn list(threads: usize) -> Vec<BackendStatus> {
    let status = |id| match open(id, threads) {
        Ok(backend) => BackendStatus { id, available: true, detail: describe(&backend.device()) },
        // The id stands beside it already.
        Err(RegistryError::Device { source, .. }) => BackendStatus { id, available: false, detail: sentence(&*source) },
        Err(error) => BackendStatus { id, available: false, detail: error.to_string() },
    };
    IDS.into_iter().map(status).collect()
}

fn describe(device: &cvae_core::DeviceInfo) -> String {
    let mut text = device.name.clone();
    if let Some(threads) = device.threads {
        text.push_str(&format!(", {threads} thread{}", if threads == 1 { "" } else { "s" }));
    }
    if let Some(bytes) = device.memory {
        text.push_str(&format!(", {:.1} GiB", bytes as f64 / f64::from(1 << 30)));
    }
    if !device.features.is_empty() {
        text.push_str(&format!(", {}", device.features.join(" ")));
    }
    text
}

/// Why `id` was chosen under the name `name`, and what is not there that would have come first.
fn reason(name: &str, id: &str, refusals: &[RegistryError]) -> Vec<String> {
    if name == "auto" && id.starts_with("candle") {
        return vec!["no CPU backend is part of this build".to_owned()];
    }
    match refusals.iter().find(|refusal| matches!(refusal, RegistryError::Unavailable(_))) {
        Some(refusal) => vec!["the fastest available".to_owned(), refusal.to_string()],
        None => vec!["the fastest of its kind".to_owned()],
    }
}

/// Opens the backend `id`, one of [`IDS`].
fn open(id: &'static str, threads: usize) -> Result<Arc<dyn Backend>, RegistryError> {
    match id {
        #[cfg(feature = "cpu")]
        _ if id.starts_with("cpu-") => open_cpu(id, threads),
        #[cfg(feature = "candle")]
        "candle-f32" => Ok(Arc::new(cvae_candle::CandleBackend::new(cvae_candle::Precision::F32))),
        #[cfg(feature = "candle")]
        "candle-f64" => Ok(Arc::new(cvae_candle::CandleBackend::new(cvae_candle::Precision::F64))),
        #[cfg(feature = "cuda")]
        "cuda-f32" | "cuda-tf32" | "cuda-bf16" => open_cuda(id),
        #[cfg(feature = "reference")]
        "reference" => Ok(Arc::new(cvae_reference::ReferenceBackend)),
        _ => {
            let _ = threads;
            let feature = id.split('-').next().unwrap_or(id);
            Err(RegistryError::NotBuilt { id, feature })
        }
    }
}

/// Whether the environment asks to measure where time goes: see [`PROFILE`].
pub fn profiling() -> bool {
    std::env::var_os(PROFILE).is_some_and(|value| value == "1")
}

#[cfg(feature = "cpu")]
fn open_cpu(id: &'static str, threads: usize) -> Result<Arc<dyn Backend>, RegistryError> {
    use cvae_cpu::{CpuBackend, Level};

    let mut levels = Level::ALL.into_iter().chain(Level::BF16);
    match levels.find(|level| level.id().as_str() == id) {
        Some(level) => Ok(Arc::new(CpuBackend::new(level, threads)?.profiled(profiling()))),
        None => Err(RegistryError::Unknown { name: id.to_owned() }),
    }
}

#[cfg(feature = "cuda")]
fn open_cuda(id: &'static str) -> Result<Arc<dyn Backend>, RegistryError> {
    use cvae_cuda::{CudaBackend, Precision};

    let precision = match id {
        "cuda-tf32" => Precision::Tf32,
        "cuda-bf16" => Precision::Bf16,
        _ => Precision::F32,
    };
    match CudaBackend::new(precision) {
        Ok(backend) => Ok(Arc::new(backend)),
        Err(error) => Err(cuda_error(id, error)),
    }
}

#[cfg(feature = "cuda")]
fn cuda_error(id: &'static str, error: cvae_cuda::DetectError) -> RegistryError {
    use cvae_cuda::DetectError;

    let absent = matches!(error, DetectError::NoDriver | DetectError::NoDevice);
    RegistryError::Device { id, absent, source: Box::new(error) }
}

impl From<Unsupported> for RegistryError {
    fn from(error: Unsupported) -> Self {
        Self::Unavailable(error)
    }
}

#[cfg(test)]
mod tests;
