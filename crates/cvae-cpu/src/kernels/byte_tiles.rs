//! A frozen dense layer on bytes by a unit that multiplies whole tiles of them (Intel AMX).
//!
//! The unit multiplies 16 rows of 64 bytes by 16 groups of 16 lanes, and adds to 16 rows of 16 integers. Activations
//! are such rows as they lie, and 16 groups of a panel are two tiles beside each other. Panels are whole tiles, the
//! groups beyond the inputs zeros, so that it does not matter which bytes of a row they meet. The last rows are
//! multiplied with as many behind them as a tile has, whose sums nobody reads.

use super::dense_i8::{DenseI8, dense_i8, finish};
use super::tiles::{ROWS, Unit};
use crate::simd::byte_product::ByteProduct;
use crate::simd::int8::{GROUP, Int8};

/// Groups that a tile contracts.
pub(crate) const GROUPS: usize = 16;
/// Most rows that the unit takes at a time: two blocks, which meet two tiles of weights.
pub(crate) const BLOCK_ROWS: usize = 2 * ROWS;
/// Rows below which vectors multiply them: from here on the unit is not slower in layers of any size.
const FEW: usize = 8;

/// Some rows by one panel.
pub(crate) struct ByteChain {
    /// `[rows][stride]`, of which `steps` times 64 bytes are contracted.
    pub(crate) x: *const u8,
    pub(crate) stride: usize,
    /// `[steps]` pairs of tiles `[16 groups][32 lanes][4]`.
    pub(crate) w: *const i8,
    /// `[32 lanes]`: what every sum begins with.
    pub(crate) start: *const i32,
    /// `[rows][32 lanes]`
    pub(crate) sums: *mut i32,
    /// At least 1.
    pub(crate) steps: usize,
}

/// A unit for bytes.
///
/// # Safety
/// The unit has been entered on this thread; a chain's pointers are valid for all rows of the blocks.
pub(crate) trait ByteUnit: Unit {
    /// `sums[i][lane] = start[lane] + Σ x[i][k] · w[k][lane]` for one or two blocks of 16 rows.
    unsafe fn multiply<const BLOCKS: usize>(chain: &ByteChain);
}

/// See [`DenseI8`]. Vectors take a few rows, `U` takes more.
///
/// # Safety
/// As [`dense_i8`], for the unit too; `panel_groups` is a multiple of [`GROUPS`], and there are rows and sums, whatever
/// they hold, up to a multiple of [`BLOCK_ROWS`].
#[inline(always)]
pub(crate) unsafe fn dense_i8_tiles<S: Int8, P: ByteProduct<S>, U: ByteUnit>(q: &DenseI8) {
    const { assert!(S::LANES == ROWS) };
    let width = 2 * S::LANES;
    let steps = q.panel_groups / GROUPS;
    debug_assert_eq!(q.panel_groups % GROUPS, 0);
    debug_assert!(q.x_stride >= steps * GROUPS * GROUP);
    // SAFETY: the caller's promise; blocks begin at rows that count, and the thread that enters the unit leaves it.
    unsafe {
        if q.rows < FEW {
            return dense_i8::<S, P, P>(q);
        }
        U::enter();
        for panel in q.panels.0..q.panels.1 {
            let w = q.w.add(panel * q.panel_groups * width * GROUP);
            let start = q.start.add(panel * width);
            for row in (0..q.rows).step_by(BLOCK_ROWS) {
                let (x, sums) = (q.x.add(row * q.x_stride), q.sums.add(row * width));
                let chain = ByteChain { x, stride: q.x_stride, w, start, sums, steps };
                if q.rows - row > ROWS {
                    U::multiply::<2>(&chain);
                } else {
                    U::multiply::<1>(&chain);
                }
            }
            finish::<S, 2>(q, 0..q.rows, panel);
        }
        U::leave();
    }
}

/// The unit in plain Rust: the same integers, for tests.
#[cfg(test)]
pub(crate) struct EmulatedBytes;

#[cfg(test)]
thread_local! {
    static ENTERED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

#[cfg(test)]
impl Unit for EmulatedBytes {
    unsafe fn enter() {
        assert!(!ENTERED.replace(true), "entered twice");
    }

    unsafe fn leave() {
        assert!(ENTERED.replace(false), "left before it was entered");
    }
}

#[cfg(test)]
impl ByteUnit for EmulatedBytes {
    unsafe fn multiply<const BLOCKS: usize>(chain: &ByteChain) {
        const LANES: usize = 2 * ROWS;
        assert!(ENTERED.get(), "not entered");
        assert!(chain.steps > 0);
        for row in 0..BLOCKS * ROWS {
            // SAFETY: the caller promises the chain, for rows that do not count too.
            unsafe {
                let mut sums = chain.start.cast::<[i32; LANES]>().read();
                for k in 0..chain.steps * GROUPS * GROUP {
                    let x = i32::from(*chain.x.add(row * chain.stride + k));
                    let w = chain.w.add(k / GROUP * LANES * GROUP + k % GROUP);
                    for lane in 0..LANES {
                        sums[lane] = sums[lane].wrapping_add(x * i32::from(*w.add(lane * GROUP)));
                    }
                }
                chain.sums.add(row * LANES).cast::<[i32; LANES]>().write(sums);
            }
        }
    }
}
