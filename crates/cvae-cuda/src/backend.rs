//! The backend: a GPU, a precision, and how steps are launched.

use std::fmt;
use std::sync::Arc;

use cvae_core::{Backend, BackendId, CompileError, DeviceInfo, Executable, Graph, Op, Plan, Unsupported};

use crate::detect::{self, DetectError};
use crate::driver::{Device, Module};
use crate::executable::{CudaExecutable, RunOptions};
use crate::launch::{Kernels, LaunchPath};
use crate::layout::{PaddedLayout, leading};

/// Precision of the matrix products; everything else is in single precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Precision {
    /// Single precision throughout: `cuda-f32`.
    F32,
    /// Factors rounded to TF32 (10 bits of mantissa), sums in single precision: `cuda-tf32`.
    Tf32,
    /// Factors rounded to bfloat16 (7 bits of mantissa), sums in single precision: `cuda-bf16`.
    Bf16,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Self; 3] = [Self::F32, Self::Tf32, Self::Bf16];

    /// The id of the backend at this precision.
    pub fn id(self) -> BackendId {
        BackendId::new(match self {
            Self::F32 => "cuda-f32",
            Self::Tf32 => "cuda-tf32",
            Self::Bf16 => "cuda-bf16",
        })
    }

    /// The suffix of the kernels' names.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a [`CudaBackend`] runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaConfig {
    /// Number of the GPU, as the driver counts them.
    pub ordinal: usize,
    /// How steps are launched. A GPU without cooperative launches uses [`LaunchPath::Graph`] in their place; `kernels`
    /// says which is in use.
    pub path: LaunchPath,
    /// Most training steps of one launch, at least 1.
    pub steps_per_launch: usize,
    /// Bytes of device memory that data sets may take; `None` for what is free. Larger sets are streamed.
    pub data_memory: Option<u64>,
}

impl Default for CudaConfig {
    fn default() -> Self {
        Self { ordinal: 0, path: LaunchPath::Graph, steps_per_launch: 32, data_memory: None }
    }
}

/// The kernels of every precision, for compute capability 8.0 and 9.0 and, through PTX, later ones.
static IMAGE: &Aligned<[u8]> = &Aligned(*include_bytes!("../kernels.fatbin"));

/// The driver reads the image in words.
#[repr(C, align(16))]
struct Aligned<T: ?Sized>(T);

/// Fewest floating-point operations of a training step for which a GPU is worth its launches: about what two cores do in
/// the 90 µs that the shortest step took on an H200.
const WORTHWHILE_FLOPS: f64 = 15e6;

/// The CUDA backend at one precision.
#[derive(Clone, Debug)]
pub struct CudaBackend {
    precision: Precision,
    config: CudaConfig,
    device: Arc<Device>,
    kernels: Arc<Kernels>,
}

impl CudaBackend {
    /// Looks for a GPU. Never panics, with or without a driver.
    ///
    /// # Errors
    /// Why none can be used.
    pub fn detect() -> Result<DeviceInfo, DetectError> {
        detect::open(0).map(|device| info(&device))
    }

    /// The backend at `precision` on the first GPU.
    ///
    /// # Errors
    /// Why no GPU can be used.
    pub fn new(precision: Precision) -> Result<Self, DetectError> {
        Self::with_config(precision, CudaConfig::default())
    }

    /// The backend at `precision`, configured.
    ///
    /// # Errors
    /// Why the GPU cannot be used.
    pub fn with_config(precision: Precision, config: CudaConfig) -> Result<Self, DetectError> {
        let device = detect::open(config.ordinal)?;
        let load = || {
            let module = Module::load(&device, &IMAGE.0)?;
            Kernels::new(&device, &module, precision.name())
        };
        let kernels = load().map_err(|fault| fault.compile(&device.name))?;
        Ok(Self { precision, config, kernels: Arc::new(kernels), device })
    }

    /// The precision of the matrix products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Checks of the conformance suite that do not apply, by the start of their name, and why.
    pub fn deviations(&self) -> &'static [(&'static str, &'static str)] {
        match self.precision {
            Precision::F32 => &[],
            Precision::Tf32 | Precision::Bf16 => &[(
                "closed::linear_",
                "converges to within this precision's rounding, which is beyond the check's limit",
            )],
        }
    }

    /// As [`Backend::compile`], with the type known.
    pub(crate) fn compile_here(&self, plan: Arc<Plan>) -> Result<CudaExecutable, CompileError> {
        self.supports(&plan)?;
        let options = RunOptions {
            path: self.config.path,
            steps_per_launch: self.config.steps_per_launch,
            data_memory: self.config.data_memory,
        };
        let executable = CudaExecutable::new(plan, &self.device, &self.kernels, options, self.precision.name());
        executable.map_err(|fault| fault.compile(&self.device.name))
    }

    /// Whether a training step of `plan` with its full number of rows has enough arithmetic to gain from a GPU.
    pub fn is_worthwhile(plan: &Plan) -> bool {
        let graph = &plan.program.train;
        let product = |op: &Op| match *op {
            Op::Linear { input, output, .. } => graph.size(input) as f64 * graph.size(output) as f64,
            Op::LinearGradInput { grad, output, .. } => graph.size(grad) as f64 * graph.size(output) as f64,
            Op::LinearGradWeight { input, grad, .. } => graph.size(input) as f64 * graph.size(grad) as f64,
            _ => 0.0,
        };
        let flops = 2.0 * plan.max_rows as f64 * graph.ops.iter().map(product).sum::<f64>();
        flops >= WORTHWHILE_FLOPS
    }
}

fn info(device: &Device) -> DeviceInfo {
    let (major, minor) = device.capability;
    DeviceInfo {
        name: device.name.clone(),
        threads: None,
        memory: Some(device.memory),
        features: vec![
            format!("compute capability {major}.{minor}"),
            format!("{} multiprocessors", device.multiprocessors),
        ],
    }
}

impl Backend for CudaBackend {
    fn id(&self) -> BackendId {
        self.precision.id()
    }

    fn device(&self) -> DeviceInfo {
        info(&self.device)
    }

    /// Every op has a kernel; arrays must be small enough for the kernels' 32-bit indices.
    fn supports(&self, plan: &Plan) -> Result<(), Unsupported> {
        let limit = |what: &'static str, asked: usize| match asked <= i32::MAX as usize {
            true => Ok(()),
            false => Err(Unsupported::TooLarge { backend: self.id().to_string(), what, max: i32::MAX as usize, asked }),
        };
        let program = &plan.program;
        let widest = |graph: &Graph| graph.values.iter().map(|shape| leading(shape.size())).max().unwrap_or(0);
        let widest = widest(&program.train).max(widest(&program.reconstruct));
        limit("elements of a batch's widest value", plan.max_rows.saturating_mul(widest))?;
        limit("padded parameters", PaddedLayout::new(&plan.params).len())
    }

    fn compile(&self, plan: Arc<Plan>) -> Result<Box<dyn Executable>, CompileError> {
        Ok(Box::new(self.compile_here(plan)?))
    }
}
