//! A frozen dense layer with bfloat16 weights: `y = act(W·x + b)` with sums in 32-bit floats.
//!
//! Weights are panels `[panel][pair][PW][2]` of `PW = 2·LANES` outputs and pairs of inputs, so that one vector of
//! halves gives two vectors of weights. Inputs are floats ([`Widened`]), or rounded too where the level multiplies
//! pairs ([`Rounded`]). Otherwise as `dense.rs`: every output is one sum in a fixed order, begun with the bias.

use cvae_core::Activation;

use super::activation::{each_activation, value};
use super::dense::{Span, by_panels, write};
use super::linear::{Tiles, by_rows};
use super::product::add_pairs;
use crate::simd::Simd;
use crate::simd::bf16::{Bf16, Dot2, Widen};

/// Inputs whose weights, one panel wide, stay in the first-level cache while the rows pass by; even.
const BLOCK: usize = 512;

/// Some panels of a layer's outputs for some rows.
pub(crate) struct DenseBf16<X = f32> {
    /// `[rows][x_stride]`, `inputs` of each row in use; rounded inputs of an odd number are followed by a 0.
    pub(crate) x: *const X,
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

impl DenseBf16 {
    /// The same layer on other inputs.
    pub(crate) fn of<X>(&self, x: *const X, x_stride: usize) -> DenseBf16<X> {
        let Self { rows, inputs, w, bias, activation, panels, units, y, y_stride, sums, .. } = *self;
        DenseBf16 { x, x_stride, rows, inputs, w, bias, activation, panels, units, y, y_stride, sums }
    }
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

/// How inputs are stored and meet their weights.
///
/// # Safety
/// The instruction set of `S`, pointers valid for what is read.
pub(crate) trait Inputs<S: Simd> {
    /// An input.
    type X: Copy;

    /// Adds the products of `inputs` inputs of `MR` rows with their weights: two, or an odd last one, whose partner has
    /// weights of 0.
    unsafe fn add<const MR: usize, const NR: usize>(
        inputs: usize,
        x: *const Self::X,
        x_stride: usize,
        w: *const Bf16,
        next_panel: usize,
        acc: &mut [[S::V; NR]; MR],
    );
}

/// Floats, which meet weights widened in registers.
pub(crate) struct Widened;

impl<S: Widen> Inputs<S> for Widened {
    type X = f32;

    #[inline(always)]
    unsafe fn add<const MR: usize, const NR: usize>(
        inputs: usize,
        x: *const f32,
        x_stride: usize,
        w: *const Bf16,
        next_panel: usize,
        acc: &mut [[S::V; NR]; MR],
    ) {
        let vector = |j: usize| w.wrapping_add(j / 2 * next_panel + j % 2 * 2 * S::LANES);
        // SAFETY: as for the caller.
        unsafe {
            let mut b = [S::splat(0.0); NR];
            for j in 0..NR {
                b[j] = S::load_first(vector(j));
            }
            multiply::<S, MR, NR>(x, x_stride, b, acc);
            if inputs == 2 {
                for j in 0..NR {
                    b[j] = S::load_second(vector(j));
                }
                multiply::<S, MR, NR>(x.add(1), x_stride, b, acc);
            }
        }
    }
}

/// Halves, which meet their weights two at a time; a 0 follows an odd last input.
pub(crate) struct Rounded;

impl<S: Dot2> Inputs<S> for Rounded {
    type X = Bf16;

    #[inline(always)]
    unsafe fn add<const MR: usize, const NR: usize>(
        _inputs: usize,
        x: *const Bf16,
        x_stride: usize,
        w: *const Bf16,
        next_panel: usize,
        acc: &mut [[S::V; NR]; MR],
    ) {
        // SAFETY: as for the caller.
        unsafe { add_pairs::<S, MR, NR>(x, x_stride, w, next_panel, acc) }
    }
}

/// Adds a contraction block, which starts at a pair, to the sums of `MR` rows from `row`, `NR` vectors of outputs from
/// `panel`.
#[inline(always)]
unsafe fn tile<S: Simd, I: Inputs<S>, const MR: usize, const NR: usize>(
    q: &DenseBf16<I::X>,
    row: usize,
    panel: usize,
    span: Span,
) {
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
        for _ in 0..span.depth / 2 {
            I::add::<MR, NR>(2, x, q.x_stride, w, next_panel, &mut acc);
            x = x.wrapping_add(2);
            w = w.wrapping_add(2 * width);
        }
        if span.depth % 2 == 1 {
            I::add::<MR, NR>(1, x, q.x_stride, w, next_panel, &mut acc);
        }
        for i in 0..MR {
            for j in 0..NR {
                S::store(sums.add((i * NR + j) * S::LANES), acc[i][j]);
            }
        }
    }
}

/// Turns the sums of all rows, `vectors` vectors of outputs from `panel`, into results.
#[inline(always)]
unsafe fn finish<S: Simd, I: Inputs<S>>(q: &DenseBf16<I::X>, panel: usize, vectors: usize) {
    let first = panel * 2 * S::LANES;
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
/// Pointers as [`DenseBf16`] documents, at least one row; the instruction sets of `S` and `I`.
#[inline(always)]
pub(crate) unsafe fn dense_bf16<S: Simd, I: Inputs<S>>(q: &DenseBf16<I::X>) {
    // SAFETY: the caller's promise.
    unsafe {
        by_panels!(q, BLOCK, [I]);
    }
}

/// Rows of floats to rows of halves.
pub(crate) struct Narrow {
    /// `[rows][x_stride]`, `width` of each row in use.
    pub(crate) x: *const f32,
    pub(crate) x_stride: usize,
    pub(crate) width: usize,
    pub(crate) rows: usize,
    /// `[rows][stride]`; an odd last number is followed by a 0.
    pub(crate) y: *mut Bf16,
    pub(crate) stride: usize,
}

/// See [`Narrow`].
///
/// # Safety
/// Pointers as [`Narrow`] documents; the instruction set of `S` as a [`Dot2`].
#[inline(always)]
pub(crate) unsafe fn narrow<S: Dot2>(q: &Narrow) {
    let whole = q.width - q.width % S::LANES;
    for row in 0..q.rows {
        // SAFETY: the caller promises the rows; what is left of one passes through arrays with room for any vector.
        unsafe {
            let (x, y) = (q.x.add(row * q.x_stride), q.y.add(row * q.stride));
            for at in (0..whole).step_by(S::LANES) {
                S::store_rounded(y.add(at), S::load(x.add(at)));
            }
            let (mut floats, mut halves) = ([0.0; 16], [Bf16::default(); 16]);
            let left = q.width - whole;
            floats.as_mut_ptr().copy_from_nonoverlapping(x.add(whole), left);
            S::store_rounded(halves.as_mut_ptr(), S::load(floats.as_ptr()));
            y.add(whole).copy_from_nonoverlapping(halves.as_ptr(), left + q.width % 2);
        }
    }
}
