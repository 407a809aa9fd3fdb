//! A frozen dense layer with bfloat16 weights: `y = act(W·x + b)` with sums in 32-bit floats.
//!
//! Weights are panels `[panel][pair][PW][2]` of `PW = 2·LANES` outputs and pairs of inputs, so that one vector of
//! halves gives two vectors of weights. Otherwise as `dense.rs`: every output is one sum in the order of the
//! inputs, begun with the bias.

use cvae_core::Activation;

use super::activation::{each_activation, value};
use super::dense::{Span, by_panels, write};
use super::linear::{Tiles, by_rows};
use crate::simd::Simd;
use crate::simd::bf16::{Bf16, Widen};

/// Inputs whose weights, one panel wide, stay in the first-level cache while the rows pass by; even.
const BLOCK: usize = 512;

/// Some panels of a layer's outputs for some rows.
pub(crate) struct DenseBf16 {
    /// `[rows][x_stride]`, `inputs` of each row in use.
    pub(crate) x: *const f32,
    pub(crate) x_stride: usize,
    pub(crate) rows: usize,
    pub(crate) inputs: usize,
    /// `[panel][pairs][PW][2]` from panel 0; the partner of an odd last input is 0.
    pub(crate) w: *const Bf16,
    /// `[panel][PW]` from panel 0.
    pub(crate) bias: *const f32,
    pub(crate) activation: Activation,
    /// First panel, and the one after the last.
    pub(crate) panels: (usize, usize),
    /// Outputs of the layer: what the last panel has beyond them is not written.
    pub(crate) units: usize,
    /// `[rows][y_stride]` from output 0.
    pub(crate) y: *mut f32,
    pub(crate) y_stride: usize,
    /// `[rows][PW]`, at least four rows, of the calling thread's own: sums on their way out.
    pub(crate) sums: *mut f32,
}

/// `acc[i][j] += x[i] · w[j]` for one input of each row.
#[inline(always)]
unsafe fn multiply<S: Simd, const MR: usize, const NR: usize>(
    x: *const f32,
    x_stride: usize,
    w: [S::V; NR],
    acc: &mut [[S::V; NR]; MR],
) {
    for i in 0..MR {
        // SAFETY: the caller promises the input of `MR` rows.
        unsafe {
            let a = S::splat(*x.add(i * x_stride));
            for j in 0..NR {
                acc[i][j] = S::fma(a, w[j], acc[i][j]);
            }
        }
    }
}

/// Adds a contraction block, which starts at a pair, to the sums of `MR` rows from `row`, `NR` vectors of outputs from `panel`.
#[inline(always)]
unsafe fn tile<S: Widen, const MR: usize, const NR: usize>(q: &DenseBf16, row: usize, panel: usize, span: Span) {
    let width = 2 * S::LANES;
    // SAFETY: `DenseBf16` promises the rows and panels, and room for their sums.
    unsafe {
        let sums = q.sums.add(row * NR * S::LANES);
        let mut acc = [[S::splat(0.0); NR]; MR];
        for i in 0..MR {
            for j in 0..NR {
                acc[i][j] = S::load(match span.start {
                    0 => q.bias.add(panel * width + j * S::LANES),
                    _ => sums.add((i * NR + j) * S::LANES),
                });
            }
        }
        let next_panel = q.inputs.next_multiple_of(2) * width;
        let mut x = q.x.add(row * q.x_stride + span.start);
        let mut w = q.w.add(panel * next_panel + span.start * width);
        let vector = |w: *const Bf16, j: usize| w.add(j / 2 * next_panel + j % 2 * width);
        for _ in 0..span.depth / 2 {
            let mut b = [S::splat(0.0); NR];
            for j in 0..NR {
                b[j] = S::load_first(vector(w, j));
            }
            multiply::<S, MR, NR>(x, q.x_stride, b, &mut acc);
            for j in 0..NR {
                b[j] = S::load_second(vector(w, j));
            }
            multiply::<S, MR, NR>(x.add(1), q.x_stride, b, &mut acc);
            x = x.wrapping_add(2);
            w = w.wrapping_add(2 * width);
        }
        if span.depth % 2 == 1 {
            let mut b = [S::splat(0.0); NR];
            for j in 0..NR {
                b[j] = S::load_first(vector(w, j));
            }
            multiply::<S, MR, NR>(x, q.x_stride, b, &mut acc);
        }
        for i in 0..MR {
            for j in 0..NR {
                S::store(sums.add((i * NR + j) * S::LANES), acc[i][j]);
            }
        }
    }
}

/// Turns the sums of all rows, `panels` panels of outputs from `panel`, into results.
#[inline(always)]
unsafe fn finish<S: Simd>(q: &DenseBf16, panel: usize, panels: usize) {
    let (first, vectors) = (panel * 2 * S::LANES, 2 * panels);
    // SAFETY: as for the tile; nothing is written beyond the layer's outputs.
    unsafe {
        each_activation!(q.activation, A => for row in 0..q.rows {
            let y = q.y.add(row * q.y_stride + first);
            for at in (0..vectors * S::LANES).step_by(S::LANES).take_while(|at| first + at < q.units) {
                let v = value::<S>(A, S::load(q.sums.add(row * vectors * S::LANES + at)));
                write::<S>(y.add(at), q.units - first - at, v);
            }
        });
    }
}

/// See [`DenseBf16`].
///
/// # Safety
/// Pointers as [`DenseBf16`] documents, at least one row; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn dense_bf16<S: Widen>(q: &DenseBf16) {
    // SAFETY: the caller's promise.
    unsafe {
        by_panels!(q, BLOCK);
    }
}
