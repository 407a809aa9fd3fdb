//! Optimiser updates, as epilogues of weight gradients and as passes of their own.

use cvae_core::Update;

use crate::simd::Simd;

/// What happens to a finished gradient.
#[derive(Clone, Copy)]
pub(crate) enum Rule {
    /// Kept in the gradient buffer.
    Store,
    /// docs/MATH.md, "Optimisers".
    Adam {
        /// `1 − β₁`.
        rest1: f32,
        /// `1 − β₂`.
        rest2: f32,
        step_size: f32,
        inv_sqrt_correction: f32,
        eps: f32,
        keep: f32,
    },
    /// Gradient descent with momentum.
    Sgd { momentum: f32, learning_rate: f32 },
}

impl From<Update> for Rule {
    fn from(update: Update) -> Self {
        match update {
            Update::Adam { beta1, beta2, eps, step_size, inv_sqrt_correction, keep } => Self::Adam {
                rest1: (1.0 - beta1) as f32,
                rest2: (1.0 - beta2) as f32,
                step_size: step_size as f32,
                inv_sqrt_correction: inv_sqrt_correction as f32,
                eps: eps as f32,
                keep: keep as f32,
            },
            Update::Sgd { momentum, learning_rate } => {
                Self::Sgd { momentum: momentum as f32, learning_rate: learning_rate as f32 }
            }
        }
    }
}

/// A [`Rule`] whose numbers are vectors already, for the inner loops.
#[derive(Clone, Copy)]
pub(crate) enum Prepared<S: Simd> {
    /// [`Rule::Store`].
    Store,
    /// [`Rule::Adam`].
    Adam { rest1: S::V, rest2: S::V, step_size: S::V, inv_sqrt_correction: S::V, eps: S::V, keep: S::V },
    /// [`Rule::Sgd`].
    Sgd { momentum: S::V, learning_rate: S::V },
}

impl<S: Simd> Prepared<S> {
    /// The rule in vectors.
    ///
    /// # Safety
    /// The instruction set of `S`.
    #[inline(always)]
    pub(crate) unsafe fn new(rule: &Rule) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            match *rule {
                Rule::Store => Self::Store,
                Rule::Adam { rest1, rest2, step_size, inv_sqrt_correction, eps, keep } => Self::Adam {
                    rest1: S::splat(rest1),
                    rest2: S::splat(rest2),
                    step_size: S::splat(step_size),
                    inv_sqrt_correction: S::splat(inv_sqrt_correction),
                    eps: S::splat(eps),
                    keep: S::splat(keep),
                },
                Rule::Sgd { momentum, learning_rate } => {
                    Self::Sgd { momentum: S::splat(momentum), learning_rate: S::splat(learning_rate) }
                }
            }
        }
    }

    /// Applies the rule to `MR` rows of `NR` vectors: gradients `g`, parameters `[MR][PW]` at `w`, moments
    /// `[MR][2][PW]`, and gradients to store `[MR][PW]` at `grad`.
    ///
    /// # Safety
    /// Rows as described, those at `grad` for [`Rule::Store`] alone; the instruction set of `S`.
    #[inline(always)]
    pub(crate) unsafe fn apply<const MR: usize, const NR: usize>(
        &self,
        g: &[[S::V; NR]; MR],
        w: *mut f32,
        moments: *mut f32,
        grad: *mut f32,
    ) {
        let width = 2 * S::LANES;
        let at = |i: usize, j: usize| i * width + j * S::LANES;
        // SAFETY: the caller's promise.
        unsafe {
            match *self {
                Self::Store => {
                    for i in 0..MR {
                        for j in 0..NR {
                            S::store(grad.add(at(i, j)), g[i][j]);
                        }
                    }
                }
                Self::Adam { rest1, rest2, step_size, inv_sqrt_correction, eps, keep } => {
                    for i in 0..MR {
                        for j in 0..NR {
                            let (w, m) = (w.add(at(i, j)), moments.add(at(2 * i, j)));
                            let v = m.add(width);
                            let (g, m0, v0) = (g[i][j], S::load(m), S::load(v));
                            // `m + (1 − β₁)(g − m)` and `v + (1 − β₂)(g² − v)`: one rounding less and one product
                            // fewer than the textbook form.
                            let m1 = S::fma(rest1, S::sub(g, m0), m0);
                            let v1 = S::fma(rest2, S::fms(g, g, v0), v0);
                            let root = S::fma(S::sqrt(v1), inv_sqrt_correction, eps);
                            let change = S::div(S::mul(step_size, m1), root);
                            S::store(m, m1);
                            S::store(v, v1);
                            S::store(w, S::fms(keep, S::load(w), change));
                        }
                    }
                }
                Self::Sgd { momentum, learning_rate } => {
                    for i in 0..MR {
                        for j in 0..NR {
                            let (w, m) = (w.add(at(i, j)), moments.add(at(2 * i, j)));
                            let m1 = S::fma(momentum, S::load(m), g[i][j]);
                            S::store(m, m1);
                            S::store(w, S::fnma(learning_rate, m1, S::load(w)));
                        }
                    }
                }
            }
        }
    }
}

/// Applies `rule` to stored gradients of whole vectors; moments are interleaved `[m; PW][v; PW]` per `PW`
/// parameters.
pub(crate) struct Apply {
    /// Factor of the gradients (1 without clipping).
    pub(crate) scale: f32,
    pub(crate) rule: Rule,
    /// `[count][PW]`.
    pub(crate) w: *mut f32,
    /// `[count][2][PW]`.
    pub(crate) moments: *mut f32,
    /// `[count][PW]`.
    pub(crate) grad: *const f32,
    /// Rows of `PW` parameters.
    pub(crate) count: usize,
}

/// See [`Apply`].
///
/// # Safety
/// Pointers as [`Apply`] documents; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn apply<S: Simd>(q: &Apply) {
    let width = 2 * S::LANES;
    // SAFETY: every row lies inside every buffer.
    unsafe {
        let (rule, scale) = (Prepared::<S>::new(&q.rule), S::splat(q.scale));
        for row in 0..q.count {
            let grad = q.grad.add(row * width);
            let g = [S::mul(scale, S::load(grad)), S::mul(scale, S::load(grad.add(S::LANES)))];
            rule.apply(&[g], q.w.add(row * width), q.moments.add(row * 2 * width), std::ptr::null_mut());
        }
    }
}

/// Sum of squares of `count` rows of `PW` floats.
///
/// # Safety
/// `count · PW` readable floats at `p`; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn square_sum<S: Simd>(p: *const f32, count: usize) -> f64 {
    let width = 2 * S::LANES;
    let mut total = 0.0f64;
    // Short vector sums keep single precision accurate for any size.
    let mut row = 0;
    while row < count {
        let end = (row + 64).min(count);
        // SAFETY: rows below `count` exist.
        unsafe {
            let mut sum = [S::splat(0.0); 2];
            while row < end {
                for (j, sum) in sum.iter_mut().enumerate() {
                    let x = S::load(p.add(row * width + j * S::LANES));
                    *sum = S::fma(x, x, *sum);
                }
                row += 1;
            }
            total += f64::from(S::sum(S::add(sum[0], sum[1])));
        }
    }
    total
}
