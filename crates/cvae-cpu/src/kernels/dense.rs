//! A frozen dense layer on row-major activations: `y = act(W·x + b)`.
//!
//! Outputs lie in the lanes: weights are panels `[panel][input][PW]` of `PW = 2·LANES` outputs, and a tile of
//! rows takes each weight vector once from the cache. Every output is one sum in the order of the inputs,
//! begun with the bias, so that its bits depend neither on the other rows nor on who computes it.

use cvae_core::Activation;

use super::activation::{each_activation, value};
use super::linear::{Tiles, by_rows};
use super::table::Kernels;
use crate::simd::Simd;

/// Inputs whose weights, one panel wide, stay in the first-level cache while the rows pass by.
const BLOCK: usize = 256;

/// Some panels of a layer's outputs for some rows.
#[derive(Clone, Copy)]
pub(crate) struct Dense {
    /// `[rows][x_stride]`, `inputs` of each row in use.
    pub(crate) x: *const f32,
    pub(crate) x_stride: usize,
    pub(crate) rows: usize,
    pub(crate) inputs: usize,
    /// `[panel][inputs][PW]` from panel 0.
    pub(crate) w: *const f32,
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

/// A contraction block.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) depth: usize,
}

/// Adds a contraction block to the sums of `MR` rows from `row`, `NR` vectors of outputs from `panel`.
#[inline(always)]
unsafe fn tile<S: Simd, const MR: usize, const NR: usize>(q: &Dense, row: usize, panel: usize, span: Span) {
    let width = 2 * S::LANES;
    // SAFETY: `Dense` promises the rows and panels, and room for their sums.
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
        let mut x = q.x.add(row * q.x_stride + span.start);
        let mut w = q.w.add((panel * q.inputs + span.start) * width);
        let next_panel = q.inputs * width;
        for _ in 0..span.depth / S::UNROLL {
            for u in 0..S::UNROLL {
                add_input::<S, MR, NR>(x.add(u), q.x_stride, w.add(u * width), next_panel, &mut acc);
            }
            x = x.wrapping_add(S::UNROLL);
            w = w.wrapping_add(S::UNROLL * width);
        }
        for _ in 0..span.depth % S::UNROLL {
            add_input::<S, MR, NR>(x, q.x_stride, w, next_panel, &mut acc);
            x = x.wrapping_add(1);
            w = w.wrapping_add(width);
        }
        for i in 0..MR {
            for j in 0..NR {
                S::store(sums.add((i * NR + j) * S::LANES), acc[i][j]);
            }
        }
    }
}

/// Adds one input of `MR` rows, at stride `x_stride`, times its weights for `NR` vectors of outputs; panels of weights
/// are `next_panel` floats apart.
#[inline(always)]
unsafe fn add_input<S: Simd, const MR: usize, const NR: usize>(
    x: *const f32,
    x_stride: usize,
    w: *const f32,
    next_panel: usize,
    acc: &mut [[S::V; NR]; MR],
) {
    // SAFETY: the caller promises the rows and the weights.
    unsafe {
        let mut b = [S::splat(0.0); NR];
        for j in 0..NR {
            b[j] = S::load(w.add(j / 2 * next_panel + j % 2 * S::LANES));
        }
        // Two starting points, from which every row of a tile is at most twice the stride away: an address that needs
        // no instruction of its own.
        let middle = x.wrapping_add(3 * x_stride);
        for i in 0..MR {
            let a = S::splat(*if i < 3 { x.add(i * x_stride) } else { middle.add((i - 3) * x_stride) });
            for j in 0..NR {
                acc[i][j] = S::fma(a, b[j], acc[i][j]);
            }
        }
    }
}

/// Turns the sums of all rows, `vectors` vectors of outputs from `panel`, into results.
#[inline(always)]
unsafe fn finish<S: Simd>(q: &Dense, panel: usize, vectors: usize) {
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

/// Stores the first `columns` lanes, all of them where there are more.
#[inline(always)]
pub(super) unsafe fn write<S: Simd>(y: *mut f32, columns: usize, v: S::V) {
    // SAFETY: the caller promises as many writable floats as are written; no vector is wider than 16 lanes.
    unsafe {
        if columns >= S::LANES {
            S::store(y, v);
        } else {
            let mut lanes = [0.0; 16];
            S::store(lanes.as_mut_ptr(), v);
            y.copy_from_nonoverlapping(lanes.as_ptr(), columns);
        }
    }
}

/// Takes every row of the query `$q` through its panels: `tile` and `finish` of the calling module, of the types `$I`
/// beside the instruction set, blocks of `$block` inputs. Every tile lies inside the rows and panels, of which the query
/// promises at least one row.
macro_rules! by_panels {
    ($q:expr, $block:expr $(, [$($I:ident),*])?) => {
        let q = $q;
        let (mut panel, end) = q.panels;
        let whole = Span { start: 0, depth: q.inputs };
        // One or two rows have too few sums in a panel to hide the latency of an addition: take more panels.
        while q.rows == 1 && panel < end {
            let panels = (end - panel).min(4);
            match panels {
                1 => tile::<S, $($($I,)*)? 1, 2>(q, 0, panel, whole),
                2 => tile::<S, $($($I,)*)? 1, 4>(q, 0, panel, whole),
                3 => tile::<S, $($($I,)*)? 1, 6>(q, 0, panel, whole),
                _ => tile::<S, $($($I,)*)? 1, 8>(q, 0, panel, whole),
            }
            finish::<S $(, $($I),*)?>(q, panel, 2 * panels);
            panel += panels;
        }
        while q.rows == 2 && end - panel >= 2 {
            tile::<S, $($($I,)*)? 2, 4>(q, 0, panel, whole);
            finish::<S $(, $($I),*)?>(q, panel, 4);
            panel += 2;
        }
        // A single tile of rows meets each weight once: blocks would only add traffic.
        let block = if q.rows <= S::TILE { q.inputs } else { $block };
        for panel in panel..end {
            let mut start = 0;
            while start < q.inputs {
                let span = Span { start, depth: block.min(q.inputs - start) };
                let mut tiles = Tiles::new(q.rows, S::TILE);
                while let Some((row, rows)) = tiles.next() {
                    by_rows!(rows, S::TILE, tile $([$($I),*])?, 2, q, row, panel, span);
                }
                start += span.depth;
            }
            finish::<S $(, $($I),*)?>(q, panel, 2);
        }
    };
}
pub(super) use by_panels;

/// See [`Dense`].
///
/// # Safety
/// Pointers as [`Dense`] documents, at least one row; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn dense<S: Simd>(q: &Dense) {
    // SAFETY: the caller's promise.
    unsafe {
        by_panels!(q, BLOCK);
    }
}

/// As [`dense`] for one panel whose second vector lies beyond the outputs, and is left out.
///
/// # Safety
/// As for [`dense`].
#[inline(always)]
pub(crate) unsafe fn dense_half<S: Simd>(q: &Dense) {
    let (panel, span) = (q.panels.0, Span { start: 0, depth: q.inputs });
    let mut tiles = Tiles::new(q.rows, S::HALF_TILE);
    while let Some((row, rows)) = tiles.next() {
        // SAFETY: the tile lies inside the rows and the panel.
        unsafe { by_rows!(rows, S::HALF_TILE, tile, 1, q, row, panel, span) };
    }
    // SAFETY: the sums of the vector are complete.
    unsafe { finish::<S>(q, panel, 1) };
}

impl Kernels {
    /// Runs `q`, a last panel of which half is used by itself. A row or two take several panels at a time, whatever
    /// is used of them.
    ///
    /// # Safety
    /// Pointers as [`Dense`] documents, at least one row; the level's instruction set.
    pub(crate) unsafe fn dense_layer(&self, q: &Dense) {
        let (first, end) = q.panels;
        let last = end.saturating_sub(1);
        // SAFETY: the caller's promise.
        unsafe {
            if q.rows > 2 && first < end && last * self.panel() + self.lanes >= q.units {
                (self.dense)(&Dense { panels: (first, last), ..*q });
                (self.dense_half)(&Dense { panels: (last, end), ..*q });
            } else {
                (self.dense)(q);
            }
        }
    }
}
