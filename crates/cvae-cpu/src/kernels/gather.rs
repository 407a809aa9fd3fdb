//! From rows to panels and back.

use crate::simd::Simd;

/// Where rows come from.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    F32(*const f32),
    /// Bytes and the factor from byte to value.
    U8(*const u8, f32),
}

/// Copies one panel of features of a batch out of a row-major data set.
pub(crate) struct Gather {
    pub(crate) source: Source,
    /// Elements of a row.
    pub(crate) width: usize,
    /// Row indices, or null for the rows from `first` on.
    pub(crate) order: *const u32,
    pub(crate) first: usize,
    /// Rows of the batch.
    pub(crate) batch: usize,
    /// First feature of the panel.
    pub(crate) feature: usize,
    /// `[batch, rounded up to PW][PW]`: the panel, batch-major.
    pub(crate) batch_major: *mut f32,
    /// Feature-major batch panels; points at the panel's first feature in the first batch panel.
    pub(crate) feature_major: *mut f32,
    /// Floats between batch panels of `feature_major`.
    pub(crate) stride: usize,
}

/// See [`Gather`]. Features beyond the width and rows beyond the batch become 0.
///
/// # Safety
/// Valid row indices, pointers as [`Gather`] documents; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn gather<S: Simd>(q: &Gather) {
    let panel = 2 * S::LANES;
    let features = (q.width - q.feature).min(panel);
    // SAFETY: as promised by the caller.
    unsafe {
        for b in 0..q.batch {
            let row = if q.order.is_null() { q.first + b } else { *q.order.add(b) as usize };
            let from = row * q.width + q.feature;
            let to = q.batch_major.add(b * panel);
            match q.source {
                Source::F32(values) if features == panel => {
                    S::store(to, S::load(values.add(from)));
                    S::store(to.add(S::LANES), S::load(values.add(from + S::LANES)));
                }
                Source::U8(values, scale) if features == panel => {
                    let scale = S::splat(scale);
                    S::store(to, S::mul(scale, S::load_u8(values.add(from))));
                    S::store(to.add(S::LANES), S::mul(scale, S::load_u8(values.add(from + S::LANES))));
                }
                source => {
                    for f in 0..panel {
                        *to.add(f) = match source {
                            _ if f >= features => 0.0,
                            Source::F32(values) => *values.add(from + f),
                            Source::U8(values, scale) => f32::from(*values.add(from + f)) * scale,
                        };
                    }
                }
            }
        }
        let padded = q.batch.next_multiple_of(panel);
        q.batch_major.add(q.batch * panel).write_bytes(0, (padded - q.batch) * panel);
        for b in (0..padded).step_by(S::LANES) {
            for f in [0, S::LANES] {
                let to = q.feature_major.add((b / panel) * q.stride + f * panel + b % panel);
                S::transpose(q.batch_major.add(b * panel + f), panel, to, panel);
            }
        }
    }
}

/// Turns one panel of features of a feature-major value batch-major.
pub(crate) struct BatchMajor {
    /// The panel's first feature in the first batch panel.
    pub(crate) feature_major: *const f32,
    /// Floats between batch panels.
    pub(crate) stride: usize,
    pub(crate) batch: usize,
    /// `[batch, rounded up to PW][PW]`.
    pub(crate) batch_major: *mut f32,
}

/// See [`BatchMajor`].
///
/// # Safety
/// Pointers as [`BatchMajor`] documents, whole panels; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn batch_major<S: Simd>(q: &BatchMajor) {
    let panel = 2 * S::LANES;
    for b in (0..q.batch).step_by(S::LANES) {
        for f in [0, S::LANES] {
            // SAFETY: values are padded to whole panels in both directions.
            unsafe {
                let from = q.feature_major.add((b / panel) * q.stride + f * panel + b % panel);
                S::transpose(from, panel, q.batch_major.add(b * panel + f), panel);
            }
        }
    }
}
