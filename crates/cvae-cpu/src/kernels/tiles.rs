//! Products of pairs of bfloat16 by a unit that multiplies whole tiles of them (Intel AMX).
//!
//! The unit multiplies 16 rows of 32 numbers, each row contiguous, by 16 pairs of 16 lanes, and adds to 16 rows of 16
//! floats. Columns `[row][PW]` of a panel of 32 are rows of such a tile as they lie, pairs `[pair][PW][2]` are two
//! tiles beside each other; weights that are contracted by rows are turned over when they are rounded, 32 rows at a time.
//! What is left of a contraction beside whole tiles goes through a copy with zeros behind it.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::product::Product;
use super::rounding::{self, Rounding};
use crate::simd::Simd;
use crate::simd::bf16::{Bf16, Dot2};

/// Rows of a tile, and lanes of a tile of sums.
pub(crate) const ROWS: usize = 16;
/// Numbers that a tile contracts.
pub(crate) const DEPTH: usize = 2 * ROWS;

/// The factors of a chain of tiles.
pub(crate) struct Chain {
    /// `[steps]` tiles, each 16 rows of 32 numbers that follow each other.
    pub(crate) a: *const Bf16,
    /// Numbers between tiles of `a`.
    pub(crate) a_step: usize,
    /// `[steps]` tiles `[16 pairs][32 lanes][2]`.
    pub(crate) b: *const Bf16,
    /// At least 1.
    pub(crate) steps: usize,
}

/// Sums of one chain, `[16 rows][32 lanes]`.
#[repr(align(64))]
struct Sums(MaybeUninit<[[f32; 2 * ROWS]; ROWS]>);

/// What multiplies tiles.
///
/// # Safety
/// The unit is there.
pub(crate) trait Unit {
    /// Prepares this thread.
    unsafe fn enter();
    /// Lets go of the unit.
    unsafe fn leave();
}

/// A unit for bfloat16.
///
/// # Safety
/// The unit has been entered on this thread; a chain's pointers are valid. Of `a`, only the first `rows` rows count:
/// the unit may read all 16 and make of the others what it likes.
pub(crate) trait Bf16Unit: Unit {
    /// `sums[i][lane] = Σ a[i][k] · b[k][lane]` for the first 16 lanes, or for all 32; rows of `sums` are 32 floats.
    unsafe fn multiply(chain: &Chain, rows: usize, both: bool, sums: *mut f32);
}

/// Products by `U`, for levels of 16 lanes.
pub(crate) struct Tiled<U>(PhantomData<U>);

/// Two tiles of pairs beside each other.
#[repr(align(64))]
struct Staged([[u32; ROWS]; 2 * ROWS]);

impl<S: Simd, U: Bf16Unit> Product<S> for Tiled<U> {
    type T = Bf16;
    const TILE: usize = ROWS;

    #[inline(always)]
    unsafe fn by_columns<const MR: usize, const NR: usize>(
        depth: usize,
        a: *const Bf16,
        a_stride: usize,
        p: *const Bf16,
        acc: &mut [[S::V; NR]; MR],
    ) {
        const { assert!(S::LANES == ROWS && MR <= ROWS && NR <= 2) };
        let (whole, rest) = (depth / DEPTH, depth % DEPTH);
        // SAFETY: the caller promises the panels; the last one's pairs are read as far as they go.
        unsafe {
            if whole > 0 {
                let chain = Chain { a, a_step: a_stride, b: p, steps: whole };
                add::<S, U, MR, NR>(&chain, acc);
            }
            if rest > 0 {
                let (a, p) = (a.wrapping_add(whole * a_stride), p.wrapping_add(whole * DEPTH * DEPTH));
                let mut b = Staged([[0; ROWS]; 2 * ROWS]);
                stage_pairs::<S>(p, rest.div_ceil(2), &mut b);
                let b = b.0.as_ptr().cast();
                add::<S, U, MR, NR>(&Chain { a, a_step: 0, b, steps: 1 }, acc);
            }
        }
    }

    #[inline(always)]
    unsafe fn by_rows<const MR: usize, const NR: usize>(
        depth: usize,
        column: usize,
        w: *const Bf16,
        x: *const Bf16,
        acc: &mut [[S::V; NR]; MR],
    ) {
        // SAFETY: of turned rows, 32 at a time are columns of a panel of their own.
        unsafe {
            <Self as Product<S>>::by_columns::<MR, NR>(depth, w.wrapping_add(column * DEPTH), DEPTH * DEPTH, x, acc)
        }
    }
}

/// From rows of a panel to what [`Tiled`] contracts by rows: `columns` as [`rounding::round`] writes them, and in the
/// place of pairs `[row / 32][PW][32]`. Where the last 32 rows are not all there, zeros must be behind them.
///
/// # Safety
/// Pointers as [`Rounding`] documents; the instruction set of `S` as a [`Dot2`].
#[inline(always)]
pub(crate) unsafe fn round_turned<S: Dot2>(q: &Rounding) {
    const { assert!(S::LANES == ROWS) };
    // SAFETY: the caller's promise; a last block of less than 16 rows passes through a copy with zeros behind them.
    unsafe {
        if !q.columns.is_null() {
            rounding::round::<S>(&Rounding { pairs: std::ptr::null_mut(), ..*q });
        }
        if q.pairs.is_null() {
            return;
        }
        let mut turned = Block([[0.0; ROWS]; ROWS]);
        for row in (0..q.rows).step_by(ROWS) {
            let rows = (q.rows - row).min(ROWS);
            let to = q.pairs.add(row / DEPTH * DEPTH * DEPTH + row % DEPTH);
            for half in 0..2 {
                let from = q.from.add(row * DEPTH + half * ROWS);
                if rows == ROWS {
                    S::transpose(from, DEPTH, turned.0.as_mut_ptr().cast(), ROWS);
                } else {
                    let mut block = Block([[0.0; ROWS]; ROWS]);
                    for (i, floats) in block.0[..rows].iter_mut().enumerate() {
                        S::store(floats.as_mut_ptr(), S::load(from.add(i * DEPTH)));
                    }
                    S::transpose(block.0.as_ptr().cast(), ROWS, turned.0.as_mut_ptr().cast(), ROWS);
                }
                for (column, floats) in turned.0.iter().enumerate() {
                    S::store_rounded(to.add((half * ROWS + column) * DEPTH), S::load(floats.as_ptr()));
                }
            }
        }
    }
}

/// 16 rows of 16 floats.
#[repr(align(64))]
struct Block([[f32; ROWS]; ROWS]);

/// Copies the first pairs of a panel, two vectors each.
#[inline(always)]
unsafe fn stage_pairs<S: Simd>(from: *const Bf16, pairs: usize, to: &mut Staged) {
    for pair in 0..pairs {
        for j in 0..2 {
            // SAFETY: the caller promises the pairs; there are 16 at most.
            unsafe {
                let vector = S::load(from.cast::<f32>().add((2 * pair + j) * ROWS));
                S::store(to.0[2 * pair + j].as_mut_ptr().cast(), vector);
            }
        }
    }
}

/// `acc += a · b`.
#[inline(always)]
unsafe fn add<S: Simd, U: Bf16Unit, const MR: usize, const NR: usize>(chain: &Chain, acc: &mut [[S::V; NR]; MR]) {
    let mut sums = Sums(MaybeUninit::uninit());
    let sums = sums.0.as_mut_ptr().cast::<f32>();
    // SAFETY: the caller promises the chain; the unit writes every sum that is read.
    unsafe {
        U::multiply(chain, MR, NR == 2, sums);
        for i in 0..MR {
            for j in 0..NR {
                acc[i][j] = S::add(acc[i][j], S::load(sums.add((2 * i + j) * ROWS)));
            }
        }
    }
}

/// The unit in plain Rust: the same sums in the same order, for tests.
#[cfg(test)]
pub(crate) struct Emulated;

#[cfg(test)]
impl Unit for Emulated {
    unsafe fn enter() {}

    unsafe fn leave() {}
}

#[cfg(test)]
impl Bf16Unit for Emulated {
    unsafe fn multiply(chain: &Chain, rows: usize, both: bool, sums: *mut f32) {
        let lanes = if both { 2 * ROWS } else { ROWS };
        for (i, lane) in (0..rows).flat_map(|i| (0..lanes).map(move |lane| (i, lane))) {
            let mut sum = 0.0f32;
            for (step, k) in (0..chain.steps).flat_map(|step| (0..DEPTH).map(move |k| (step, k))) {
                // SAFETY: the caller promises the chain.
                let (a, b) = unsafe {
                    let a = *chain.a.add(step * chain.a_step + i * DEPTH + k);
                    let b = *chain.b.add(step * DEPTH * DEPTH + (k / 2 * 2 * ROWS + lane) * 2 + k % 2);
                    (a, b)
                };
                sum += a.to_f32() * b.to_f32();
            }
            // SAFETY: there are sums for 16 rows.
            unsafe { sums.add(i * 2 * ROWS + lane).write(sum) };
        }
    }
}
