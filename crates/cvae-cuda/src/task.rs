//! The structures that the kernels read, field by field as in `kernels/task.cuh`.

use cvae_core::Term;

use crate::driver::Plain;

/// Most points of a task.
pub(crate) const MAX_POINTS: usize = 6;

/// What a task computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum TaskKind {
    Linear = 0,
    GradInput = 1,
    GradWeight = 2,
    GradBias = 3,
    Pointwise = 4,
    Gather = 5,
    SquaredNorm = 6,
    FinishStep = 7,
    SigmaSlope = 8,
    KlSlopes = 9,
    Discrepancy = 10,
    Spectral = 11,
    SpectralGrad = 12,
}

/// Shape of a matrix product's output tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum TileShape {
    Small = 0,
    Large = 1,
}

impl TileShape {
    /// Rows and columns of a tile.
    pub(crate) fn side(self) -> usize {
        match self {
            Self::Small => 16,
            Self::Large => 64,
        }
    }
}

/// One elementwise operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum PointOp {
    Load = 0,
    Noise = 1,
    AddBias = 2,
    Activate = 3,
    ActivateGrad = 4,
    ReconstructionGrad = 5,
    CollapsedPrior = 6,
    KlMean = 7,
    KlLogvar = 8,
    Reparameterize = 9,
    ReparameterizeGrad = 10,
    AddScaled = 11,
    Update = 12,
    Keep = 13,
    Mask = 14,
    Erase = 15,
    Permute = 16,
    Observe = 17,
    Observed = 18,
    Multiply = 19,
    TopK = 20,
    TopKGrad = 21,
    CodeL1 = 22,
    Signs = 23,
    UnitVector = 24,
    JacobianNorm = 25,
    ActivateGradGrad = 26,
    SquaredError = 27,
    SigmaGrad = 28,
    MixedGrad = 29,
    MixedOutput = 30,
    Scale = 31,
    Shift = 32,
}

/// The operands of a further product.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Pair {
    pub(crate) a: u64,
    pub(crate) b: u64,
}

/// An elementwise operation with its operands' addresses.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Point {
    pub(crate) op: u32,
    pub(crate) variant: u32,
    pub(crate) scale: f32,
    pub(crate) other: f32,
    pub(crate) operands: [u64; 3],
    pub(crate) store: u64,
}

/// A task with its operands' addresses.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Task {
    pub(crate) kind: u32,
    pub(crate) shape: u32,
    pub(crate) rows: i32,
    pub(crate) columns: i32,
    pub(crate) depth: i32,
    pub(crate) lda: i32,
    pub(crate) ldb: i32,
    pub(crate) ldc: i32,
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) tasks: u64,
    pub(crate) pairs: u64,
    pub(crate) partials: u64,
    pub(crate) clip_partials: u64,
    pub(crate) weight: f64,
    pub(crate) clip_norm: f64,
    pub(crate) bound: f64,
    pub(crate) count: u32,
    pub(crate) term: u32,
    pub(crate) per_row: u32,
    pub(crate) points: u32,
    pub(crate) pair_count: u32,
    pub(crate) variant: u32,
    pub(crate) point: [Point; MAX_POINTS],
}

/// Tasks of one phase.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Phase {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// The scalars of one update.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct UpdateScalars {
    pub(crate) beta1: f32,
    pub(crate) one_minus_beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) one_minus_beta2: f32,
    pub(crate) eps: f32,
    pub(crate) step_size: f32,
    pub(crate) inv_sqrt_correction: f32,
    pub(crate) keep: f32,
}

/// What changes from step to step.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Step {
    pub(crate) data: u64,
    pub(crate) order: u64,
    pub(crate) ids: u64,
    pub(crate) seed: u64,
    pub(crate) number: u64,
    pub(crate) rows: u32,
    pub(crate) first_row: u32,
    pub(crate) epoch: u32,
    pub(crate) bytes: u32,
    pub(crate) scale: f32,
    pub(crate) inv_rows: f32,
    pub(crate) update: UpdateScalars,
}

/// The loss accumulator.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct LossState {
    pub(crate) steps: u64,
    pub(crate) rows: u64,
    pub(crate) sums: [f64; Term::COUNT],
    pub(crate) last: [f64; Term::COUNT],
    pub(crate) bad_step: u64,
    pub(crate) bad_term: u64,
}

// SAFETY: `repr(C)` structures of integers and floats without padding; every bit pattern is a value.
unsafe impl Plain for Task {}
// SAFETY: as above.
unsafe impl Plain for Pair {}
// SAFETY: as above.
unsafe impl Plain for Phase {}
// SAFETY: as above.
unsafe impl Plain for Step {}
// SAFETY: as above.
unsafe impl Plain for LossState {}

/// Elements of one tile of a pointwise or gather task.
pub(crate) const POINTWISE_TILE: usize = 1024;
/// Columns of one tile of a bias gradient.
pub(crate) const BIAS_TILE: usize = 32;
/// Most tiles of a squared norm.
pub(crate) const NORM_TILES: usize = 256;

/// Elements of one tile of a squared norm over `elements`.
pub(crate) fn norm_tile(elements: usize) -> usize {
    elements.div_ceil(NORM_TILES).max(4096)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    #[test]
    fn structures_have_the_kernels_layout() {
        assert_eq!(size_of::<Point>(), 48);
        assert_eq!(offset_of!(Task, a), 32);
        assert_eq!(offset_of!(Task, pairs), 56);
        assert_eq!(offset_of!(Task, weight), 80);
        assert_eq!(offset_of!(Task, point), 128);
        assert_eq!(size_of::<Task>(), 128 + MAX_POINTS * 48);
        assert_eq!(size_of::<Phase>(), 8);
        assert_eq!(offset_of!(Step, update), 64);
        assert_eq!(size_of::<Step>(), 96);
        assert_eq!(size_of::<LossState>(), 96);
    }
}
