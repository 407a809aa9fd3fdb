//! One row of codes against the rows of a batch, for the discrepancy from the prior. Formulas: docs/MATH.md,
//! "Latent terms".

use cvae_core::Latent;

use crate::simd::Simd;

/// A row, the rows it is compared with, and where the gradient of the row goes.
pub(crate) struct Pairs {
    /// Feature 0 of the row; features are `PW` floats apart.
    pub(crate) row: *const f32,
    /// Batch panels `[feature][PW]` of the other rows.
    pub(crate) others: *const f32,
    /// Floats between batch panels of `others`.
    pub(crate) stride: usize,
    /// Features of a row.
    pub(crate) features: usize,
    /// Rows of `others`.
    pub(crate) rows: usize,
    /// Features of the gradient that are wanted, from `own.0` to `own.1`.
    pub(crate) own: (usize, usize),
    /// Factor of the gradient.
    pub(crate) scale: f32,
    /// Feature 0 of the row's gradient, which is added to.
    pub(crate) output: *mut f32,
    /// A float for each row of `others`, padded to whole batch panels.
    pub(crate) slopes: *mut f32,
}

/// Adds `scale·Σ_j ∂k(row, other_j)/∂row` to the gradient and returns `Σ_j k(row, other_j)`, with
/// `k(q) = Σ_s C/(C + q)`, `q = ‖row − other‖²`, `C = 2·features·s`.
///
/// # Safety
/// Pointers as [`Pairs`] documents; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn pairs<S: Simd>(q: &Pairs) -> f64 {
    let width = 2 * S::LANES;
    let mut total = 0.0;
    // SAFETY: every row and feature lies inside its operand, by promise.
    unsafe {
        let zero = S::splat(0.0);
        for vector in 0..q.rows.div_ceil(width) * 2 {
            let others = q.others.add(vector / 2 * q.stride + vector % 2 * S::LANES);
            let mut distance = zero;
            for feature in 0..q.features {
                let difference = S::sub(S::splat(*q.row.add(feature * width)), S::load(others.add(feature * width)));
                distance = S::fma(difference, difference, distance);
            }
            let (mut value, mut slope) = (zero, zero);
            for scale in Latent::MMD_SCALES {
                let c = 2.0 * q.features as f32 * scale as f32;
                let share = S::div(S::splat(c), S::add(S::splat(c), distance));
                value = S::add(value, share);
                slope = S::fnma(S::mul(share, share), S::splat(1.0 / c), slope);
            }
            let valid = S::first(q.rows.saturating_sub(vector * S::LANES).min(S::LANES));
            total += f64::from(S::sum(S::select(valid, value, zero)));
            S::store(q.slopes.add(vector * S::LANES), S::select(valid, slope, zero));
        }
        for feature in q.own.0..q.own.1 {
            let own = S::splat(*q.row.add(feature * width));
            let mut sum = zero;
            for vector in 0..q.rows.div_ceil(width) * 2 {
                let other = S::load(q.others.add(vector / 2 * q.stride + vector % 2 * S::LANES + feature * width));
                sum = S::fma(S::load(q.slopes.add(vector * S::LANES)), S::sub(own, other), sum);
            }
            *q.output.add(feature * width) += 2.0 * q.scale * S::sum(sum);
        }
    }
    total
}
