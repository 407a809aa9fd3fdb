//! Instruction-set levels and the backend over them.

use std::fmt;
use std::sync::Arc;

use cvae_core::{Backend, BackendId, CompileError, DeviceInfo, Executable, Op, Plan, Unsupported};

use crate::executable::CpuExecutable;
use crate::kernels::table::{self, Kernels};
use crate::schedule::MAX_PAIRS;
#[cfg(target_arch = "x86_64")]
use crate::simd::amx;

/// An instruction-set level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Plain Rust, for every processor.
    Scalar,
    /// 128-bit Arm vectors.
    Neon,
    /// 256-bit x86 vectors with fused multiply-add.
    Avx2,
    /// 512-bit x86 vectors (F, BW, DQ, VL).
    Avx512,
    /// Plain Rust that rounds the operands of products to bfloat16, as [`Level::Avx512Bf16`] does.
    ScalarBf16,
    /// 512-bit x86 vectors that multiply pairs of bfloat16. Master weights, moments, sums and everything between
    /// products are 32-bit floats.
    Avx512Bf16,
    /// The same with a unit that multiplies tiles of bfloat16 (AMX).
    AmxBf16,
}

impl Level {
    /// Every level that computes in 32-bit floats, narrowest first.
    pub const ALL: [Self; 4] = [Self::Scalar, Self::Neon, Self::Avx2, Self::Avx512];

    /// Every level that rounds the operands of products to bfloat16, narrowest first.
    pub const BF16: [Self; 3] = [Self::ScalarBf16, Self::Avx512Bf16, Self::AmxBf16];

    /// The backend id of this level.
    pub const fn id(self) -> BackendId {
        BackendId::new(match self {
            Self::Scalar => "cpu-scalar",
            Self::Neon => "cpu-neon",
            Self::Avx2 => "cpu-avx2",
            Self::Avx512 => "cpu-avx512",
            Self::ScalarBf16 => "cpu-scalar-bf16",
            Self::Avx512Bf16 => "cpu-avx512-bf16",
            Self::AmxBf16 => "cpu-amx-bf16",
        })
    }

    /// What a processor must have.
    pub const fn requirement(self) -> &'static str {
        match self {
            Self::Scalar | Self::ScalarBf16 => "nothing",
            Self::Neon => "NEON",
            Self::Avx2 => "AVX2 and FMA",
            Self::Avx512 => "AVX-512 (F, BW, DQ, VL)",
            Self::Avx512Bf16 => "AVX-512 (F, BW, DQ, VL, BF16)",
            Self::AmxBf16 => "AMX-BF16 and AVX-512 (F, BW, DQ, VL, BF16) on Linux",
        }
    }

    /// Where the level differs from the definition by intent: the start of a check's name, and why.
    pub fn deviations(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Scalar | Self::Neon | Self::Avx2 | Self::Avx512 => &[],
            Self::ScalarBf16 | Self::Avx512Bf16 | Self::AmxBf16 => &[(
                "closed::linear_",
                "converges to within this precision's rounding, which is beyond the check's limit",
            )],
        }
    }

    /// Whether this processor has the level.
    pub fn available(self) -> bool {
        self.kernels().is_some()
    }

    /// The widest level of [`Level::ALL`] that this processor has.
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|level| level.available()).unwrap_or(Self::Scalar)
    }

    /// Runs a block of independent multiply-adds in registers and returns its floating-point operations, two
    /// per multiply-add; 0 if the level is not available. Timed, it gives one thread's arithmetic peak.
    pub fn multiply_adds(self) -> u64 {
        // SAFETY: `kernels` is given only where the processor has the level.
        self.kernels().map_or(0, |kernels| unsafe { (kernels.multiply_adds)() })
    }

    /// The level's kernels, if the processor can run them.
    pub(crate) fn kernels(self) -> Option<&'static Kernels> {
        match self {
            Self::Scalar => Some(&table::portable::KERNELS),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => Some(&table::neon::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                let vnni = is_x86_feature_detected!("avxvnni");
                has_avx2().then_some(if vnni { &table::vnni::AVX2 } else { &table::avx2::KERNELS })
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => has_avx512().then(|| match is_x86_feature_detected!("avx512vnni") {
                true if amx::has_int8() => &table::vnni::AMX,
                true => &table::vnni::AVX512,
                false => &table::avx512::KERNELS,
            }),
            Self::ScalarBf16 => Some(&table::portable_bf16::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => {
                (has_avx512() && is_x86_feature_detected!("avx512bf16")).then_some(&table::avx512_bf16::KERNELS)
            }
            #[cfg(target_arch = "x86_64")]
            Self::AmxBf16 => (Self::Avx512Bf16.available() && amx::has_bf16()).then_some(&table::amx_bf16::KERNELS),
            #[allow(unreachable_patterns, reason = "which levels remain depends on the architecture")]
            _ => None,
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

/// Every table of kernels for this architecture, with what the processor lacks for it.
#[cfg(test)]
pub(crate) fn tables() -> Vec<(&'static str, &'static Kernels, Option<&'static str>)> {
    #[cfg(target_arch = "x86_64")]
    let wider = [
        ("avx2", &table::avx2::KERNELS, has_avx2(), "AVX2 and FMA"),
        ("avx2 with vpdpbusd", &table::vnni::AVX2, has_avx2() && is_x86_feature_detected!("avxvnni"), "AVX-VNNI"),
        ("avx512", &table::avx512::KERNELS, has_avx512(), "AVX-512"),
        (
            "avx512 with vpdpbusd",
            &table::vnni::AVX512,
            has_avx512() && is_x86_feature_detected!("avx512vnni"),
            "AVX-512 VNNI",
        ),
        (
            "avx512 with tdpbusd",
            &table::vnni::AMX,
            has_avx512() && is_x86_feature_detected!("avx512vnni") && amx::has_int8(),
            "AMX-INT8",
        ),
    ];
    #[cfg(target_arch = "aarch64")]
    let wider = [("neon", &table::neon::KERNELS, true, "NEON")];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let wider = [];
    let portable = [
        ("portable", &table::portable::KERNELS, true, "nothing"),
        ("emulated byte tiles", &table::emulated_byte_tiles::KERNELS, true, "nothing"),
    ];
    let entry = |(name, kernels, available, missing): (_, &'static Kernels, bool, _)| {
        (name, kernels, (!available).then_some(missing))
    };
    portable.into_iter().chain(wider).map(entry).collect()
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id().fmt(f)
    }
}

/// The CPU at one instruction-set level, with a number of threads per executable.
#[derive(Clone, Copy)]
pub struct CpuBackend {
    level: Level,
    kernels: &'static Kernels,
    threads: usize,
    profiled: bool,
}

impl CpuBackend {
    /// Most threads of an executable.
    pub const MAX_THREADS: usize = 256;

    /// A backend at exactly `level`, with `threads` threads (0 counts as 1).
    ///
    /// # Errors
    /// [`Unsupported::Unavailable`] when the processor lacks the level, [`Unsupported::TooLarge`] for more
    /// than [`CpuBackend::MAX_THREADS`] threads.
    pub fn new(level: Level, threads: usize) -> Result<Self, Unsupported> {
        let backend = level.id().to_string();
        if threads > Self::MAX_THREADS {
            return Err(Unsupported::TooLarge { backend, what: "threads", max: Self::MAX_THREADS, asked: threads });
        }
        match level.kernels() {
            Some(kernels) => Ok(Self { level, kernels, threads: threads.max(1), profiled: false }),
            None => Err(Unsupported::Unavailable { backend, missing: level.requirement().to_owned() }),
        }
    }

    /// The widest level that this processor has, with at most [`CpuBackend::MAX_THREADS`] threads.
    pub fn best(threads: usize) -> Self {
        let threads = threads.clamp(1, Self::MAX_THREADS);
        let level = Level::best();
        let kernels = level.kernels().unwrap_or(&table::portable::KERNELS);
        Self { level, kernels, threads, profiled: false }
    }

    /// Whether executables measure the time of every phase of a training step: see [`Executable::profile`]. Off,
    /// unless asked for.
    pub fn profiled(self, profiled: bool) -> Self {
        Self { profiled, ..self }
    }

    /// The instruction-set level.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Threads per executable.
    pub fn threads(&self) -> usize {
        self.threads
    }
}

impl fmt::Debug for CpuBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuBackend").field("level", &self.level).field("threads", &self.threads).finish()
    }
}

impl Backend for CpuBackend {
    fn id(&self) -> BackendId {
        self.level.id()
    }

    fn device(&self) -> DeviceInfo {
        DeviceInfo {
            name: format!("CPU ({})", std::env::consts::ARCH),
            threads: Some(self.threads),
            memory: None,
            features: vec![self.level.requirement().to_owned()],
        }
    }

    fn supports(&self, plan: &Plan) -> Result<(), Unsupported> {
        let mut ops = plan.program.graphs().into_iter().flat_map(|graph| &graph.ops);
        match ops.find(|op| !has_kernel(op)) {
            Some(op) => Err(Unsupported::Op { backend: self.id().to_string(), op: op.to_string() }),
            None => Ok(()),
        }
    }

    fn compile(&self, plan: Arc<Plan>) -> Result<Box<dyn Executable>, CompileError> {
        self.supports(&plan)?;
        Ok(Box::new(CpuExecutable::new(plan, self.level, self.kernels, self.threads, self.profiled)?))
    }
}

/// Whether this backend computes `op`.
fn has_kernel(op: &Op) -> bool {
    match op {
        Op::LinearGradWeight { extra, .. } => extra.len() < MAX_PAIRS,
        _ => true,
    }
}
