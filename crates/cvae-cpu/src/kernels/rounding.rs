//! From floats to the rounded forms that products of pairs read; see `product.rs`.

use crate::simd::bf16::{Bf16, Dot2};

/// Rounds some rows `[row][PW]`.
pub(crate) struct Rounding {
    pub(crate) from: *const f32,
    pub(crate) rows: usize,
    /// Columns in use: in `columns` the others become 0.
    pub(crate) valid: usize,
    /// `[row][PW]`, or null.
    pub(crate) columns: *mut Bf16,
    /// `[row / 2][PW][2]`, the partner of an odd last row 0, or what [`super::tiles::round_turned`] makes of them, or null.
    pub(crate) pairs: *mut Bf16,
}

/// See [`Rounding`].
///
/// # Safety
/// Pointers as [`Rounding`] documents; the instruction set of `S` as a [`Dot2`].
#[inline(always)]
pub(crate) unsafe fn round<S: Dot2>(q: &Rounding) {
    let width = 2 * S::LANES;
    // SAFETY: as promised by the caller; nothing is read or written beyond `rows`, rounded up to pairs in `pairs`.
    unsafe {
        let zero = S::splat(0.0);
        let valid = [S::first(q.valid.min(S::LANES)), S::first(q.valid.saturating_sub(S::LANES))];
        for row in (0..q.rows).step_by(2) {
            let last = row + 1 == q.rows;
            for j in 0..2 {
                let at = row * width + j * S::LANES;
                let first = S::load(q.from.add(at));
                let second = if last { zero } else { S::load(q.from.add(at + width)) };
                if !q.pairs.is_null() {
                    S::store_pairs(q.pairs.add(row * width + j * width), first, second);
                }
                if !q.columns.is_null() {
                    S::store_rounded(q.columns.add(at), S::select(valid[j], first, zero));
                    if !last {
                        S::store_rounded(q.columns.add(at + width), S::select(valid[j], second, zero));
                    }
                }
            }
        }
    }
}
