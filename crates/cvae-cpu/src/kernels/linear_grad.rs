//! Weight and bias gradients, with the optimiser in the epilogue.

use super::linear::{Tiles, by_rows};
use super::optimizer::{Prepared, Rule};
use super::product::Product;
use crate::simd::Simd;

/// Two values whose product over the batch is part of a weight's gradient.
#[derive(Clone, Copy)]
pub(crate) struct Pair<T = f32> {
    /// Batch panels `[row][PW]` of the value that is not split.
    pub(crate) a: *const T,
    /// Elements between batch panels of `a`.
    pub(crate) a_stride: usize,
    /// `[batch][PW]`: one panel of the split value, batch-major.
    pub(crate) p: *const T,
}

/// Gradients of a panel of weights that are summed over the batch block by block.
#[derive(Clone, Copy)]
pub(crate) struct Sums {
    /// `[rows][PW]`; anything where one block is all.
    pub(crate) at: *mut f32,
    /// Whether blocks came before.
    pub(crate) begun: bool,
    /// Whether this block is the last.
    pub(crate) ends: bool,
}

impl Sums {
    /// The batch is one block.
    pub(crate) const WHOLE: Self = Self { at: std::ptr::null_mut(), begun: false, ends: true };

    /// Those behind `floats` floats.
    pub(crate) fn from(self, floats: usize) -> Self {
        Self { at: self.at.wrapping_add(floats), ..self }
    }
}

/// Gradient of one panel of weights: `g[r] = Σ_pairs Σ_b a[r][b] · p[b] + decay·w[r]`, then `rule`.
pub(crate) struct WeightGrad<'a, T = f32> {
    pub(crate) pairs: &'a [Pair<T>],
    /// Rows of the batch, or of a block of it.
    pub(crate) batch: usize,
    pub(crate) sums: Sums,
    /// `[rows][PW]`.
    pub(crate) w: *mut f32,
    /// `[rows][2][PW]`.
    pub(crate) moments: *mut f32,
    /// `[rows][PW]`, used by [`Rule::Store`].
    pub(crate) grad: *mut f32,
    /// Rows of the panel.
    pub(crate) rows: usize,
    /// λ of the parameter regulariser.
    pub(crate) decay: f32,
    /// Receives `Σ w²` before the update; may be null.
    pub(crate) square_sum: *mut f64,
    pub(crate) rule: Rule,
}

impl WeightGrad<'_> {
    /// The same update by the gradient of other pairs.
    pub(crate) fn of<'a, T>(&self, pairs: &'a [Pair<T>]) -> WeightGrad<'a, T> {
        let Self { batch, sums, w, moments, grad, rows, decay, square_sum, rule, .. } = *self;
        WeightGrad { pairs, batch, sums, w, moments, grad, rows, decay, square_sum, rule }
    }
}

#[inline(always)]
unsafe fn grad_tile<S: Simd, P: Product<S>, const MR: usize, const NR: usize>(
    q: &WeightGrad<'_, P::T>,
    rule: &Prepared<S>,
    row: usize,
    squares: &mut S::V,
) {
    let width = 2 * S::LANES;
    // SAFETY: `WeightGrad` promises that rows `row..row + MR` exist in every operand.
    unsafe {
        let mut acc = [[S::splat(0.0); NR]; MR];
        let sums = q.sums.at.wrapping_add(row * width);
        if q.sums.begun {
            for i in 0..MR {
                for j in 0..NR {
                    acc[i][j] = S::load(sums.add(i * width + j * S::LANES));
                }
            }
        }
        for pair in q.pairs {
            P::by_batch::<MR, NR>(q.batch, pair.a.add(row * width), pair.a_stride, pair.p, &mut acc);
        }
        if !q.sums.ends {
            for i in 0..MR {
                for j in 0..NR {
                    S::store(sums.add(i * width + j * S::LANES), acc[i][j]);
                }
            }
            return;
        }
        let w = q.w.add(row * width);
        if q.decay != 0.0 || !q.square_sum.is_null() {
            let decay = S::splat(q.decay);
            for i in 0..MR {
                for j in 0..NR {
                    let before = S::load(w.add(i * width + j * S::LANES));
                    *squares = S::fma(before, before, *squares);
                    acc[i][j] = S::fma(decay, before, acc[i][j]);
                }
            }
        }
        rule.apply(&acc, w, q.moments.add(row * 2 * width), q.grad.wrapping_add(row * width));
    }
}

/// See [`WeightGrad`].
///
/// # Safety
/// Pointers as [`WeightGrad`] documents; the instruction sets of `S` and `P`.
#[inline(always)]
pub(crate) unsafe fn weight_grad<S: Simd, P: Product<S>>(q: &WeightGrad<'_, P::T>) {
    let mut tiles = Tiles::new(q.rows, P::TILE);
    let mut total = 0.0f64;
    // SAFETY: the instruction set, by promise.
    let rule = unsafe { Prepared::<S>::new(&q.rule) };
    while let Some((row, rows)) = tiles.next() {
        // SAFETY: the tile lies inside `q.rows`.
        unsafe {
            let mut squares = S::splat(0.0);
            by_rows!(rows, P::TILE, grad_tile[P], 2, q, &rule, row, &mut squares);
            if !q.square_sum.is_null() {
                total += f64::from(S::sum(squares));
            }
        }
    }
    if q.sums.ends && !q.square_sum.is_null() {
        // SAFETY: not null, and writable by promise.
        unsafe { *q.square_sum = total };
    }
}

/// Gradient of the biases of one panel of features: `g[f] = Σ_b d[f][b] + decay·w[f]`, then `rule`.
///
/// `d` is feature-major, batch panels of `[feature][PW]`. Lanes beyond the batch are zero up to the next multiple
/// of `LANES`, and of no meaning after that.
pub(crate) struct BiasGrad {
    pub(crate) d: *const f32,
    /// Floats between batch panels of `d`.
    pub(crate) stride: usize,
    /// Vectors of batch lanes in use.
    pub(crate) vectors: usize,
    /// Features of the panel, at most `PW`.
    pub(crate) features: usize,
    /// `[PW]`.
    pub(crate) w: *mut f32,
    /// `[2][PW]`.
    pub(crate) moments: *mut f32,
    /// `[PW]`.
    pub(crate) grad: *mut f32,
    pub(crate) decay: f32,
    /// Receives `Σ w²` before the update; may be null.
    pub(crate) square_sum: *mut f64,
    pub(crate) rule: Rule,
}

/// See [`BiasGrad`].
///
/// # Safety
/// Pointers as [`BiasGrad`] documents; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn bias_grad<S: Simd>(q: &BiasGrad) {
    let width = 2 * S::LANES;
    // The widest panel of any level.
    let mut sums = [0.0f32; 32];
    for (feature, sum) in sums.iter_mut().enumerate().take(q.features) {
        // SAFETY: `feature` lies inside the panel.
        unsafe {
            let mut acc = S::splat(0.0);
            for vector in 0..q.vectors {
                let d = q.d.add((vector / 2) * q.stride + feature * width + (vector % 2) * S::LANES);
                acc = S::add(acc, S::load(d));
            }
            *sum = S::sum(acc);
        }
    }
    // SAFETY: a whole panel of parameters and moments exists; features beyond the last are zero and stay so.
    unsafe {
        let mut squares = S::splat(0.0);
        let mut g = [[S::splat(0.0); 2]];
        for j in 0..2 {
            let at = j * S::LANES;
            let before = S::load(q.w.add(at));
            squares = S::fma(before, before, squares);
            g[0][j] = S::fma(S::splat(q.decay), before, S::load(sums.as_ptr().add(at)));
        }
        Prepared::<S>::new(&q.rule).apply(&g, q.w, q.moments, q.grad);
        if !q.square_sum.is_null() {
            *q.square_sum = f64::from(S::sum(squares));
        }
    }
}
