//! A frozen dense layer on bytes: `y = act(scale ⊙ (W·x) + b)` with integer sums.
//!
//! Activations are row-major bytes, weights panels `[panel][group][PW][4]` of `PW = 2·LANES` outputs and
//! groups of four inputs. Sums are exact, and what follows them is written in plain arithmetic without fused
//! operations, so that every instruction set gives the same bits. Formulas: docs/MATH.md, "Eight-bit inference".

use std::ops::Range;

use cvae_core::Activation;

use super::activation::{each_activation, value};
use super::dense::write;
use super::linear::{Tiles, by_rows};
use crate::simd::Simd;
use crate::simd::byte_product::{ByteProduct, ByteTile};
use crate::simd::int8::{GROUP, Int8, MAX_ACTIVATION};
use crate::simd::portable::Portable;

/// How real values become bytes: `q = clamp(round(inverse · v + zero), 0, 127)`, and 0 for NaN.
#[derive(Clone, Copy)]
pub(crate) struct Quantizer {
    /// One over the step.
    pub(crate) inverse: f32,
    /// The byte that stands for 0.
    pub(crate) zero: f32,
}

impl Quantizer {
    /// The levels of `LANES` values, which [`Int8::store_levels`] rounds and bounds from below.
    #[inline(always)]
    unsafe fn levels<S: Simd>(self, v: S::V) -> S::V {
        // SAFETY: register operations only. The bound comes first so that NaN passes through.
        unsafe {
            let level = S::add(S::mul(v, S::splat(self.inverse)), S::splat(self.zero));
            S::min(S::splat(f32::from(MAX_ACTIVATION)), level)
        }
    }
}

/// Where results go.
#[derive(Clone, Copy)]
pub(crate) enum Output {
    /// `[rows][stride]` floats; nothing is written beyond the layer's outputs.
    Real { y: *mut f32, stride: usize },
    /// `[rows][stride]` bytes; whole panels are written.
    Bytes { y: *mut u8, stride: usize, quantizer: Quantizer },
}

/// Memory that rows after these will read and write: fetched into a near cache, a part with every tile, while a layer computes.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    /// First byte and number of bytes.
    pub(crate) areas: [(*const u8, usize); 2],
}

impl Ahead {
    /// Nothing to fetch.
    pub(crate) const NOTHING: Self = Self { areas: [(std::ptr::null(), 0); 2] };
    /// Bytes of a cache line.
    const LINE: usize = 64;
    /// Most lines of an area that are fetched at a time; more would wait for one another.
    const LINES: usize = 16;

    /// Fetches part `part` of `parts`.
    #[inline(always)]
    unsafe fn fetch<S: Simd>(self, part: usize, parts: usize) {
        for (start, bytes) in self.areas {
            let lines = bytes / Self::LINE;
            let first = part * lines / parts;
            for line in first..((part + 1) * lines / parts).min(first + Self::LINES) {
                // SAFETY: a hint, which touches nothing.
                unsafe { S::fetch(start.wrapping_add(line * Self::LINE)) };
            }
        }
    }
}

/// Some panels of a layer's outputs for some rows.
pub(crate) struct DenseI8 {
    /// `[rows][x_stride]`, whole pairs of groups.
    pub(crate) x: *const u8,
    pub(crate) x_stride: usize,
    pub(crate) rows: usize,
    /// Groups of inputs.
    pub(crate) groups: usize,
    /// Groups of a panel, an even number: those of the inputs, and zeros.
    pub(crate) panel_groups: usize,
    /// `[panel][panel_groups][PW][4]` from panel 0.
    pub(crate) w: *const i8,
    /// `[panel][PW]`: what every sum begins with, `−zero · Σ w`.
    pub(crate) start: *const i32,
    /// `[panel][PW]`: value of one unit of a sum.
    pub(crate) scale: *const f32,
    /// `[panel][PW]`
    pub(crate) bias: *const f32,
    pub(crate) activation: Activation,
    /// Whether all weights are [`crate::simd::int8::joint`].
    pub(crate) joint: bool,
    /// First panel, and the one after the last.
    pub(crate) panels: (usize, usize),
    /// Outputs of the layer.
    pub(crate) units: usize,
    /// From output 0.
    pub(crate) output: Output,
    /// `[rows][PW]` of the calling thread's own: sums on their way out.
    pub(crate) sums: *mut i32,
    pub(crate) ahead: Ahead,
}

/// Sums of `MR` rows from `row`, the first `NR` vectors of a panel.
#[inline(always)]
unsafe fn tile<S: Int8, P: ByteProduct<S>, const MR: usize, const NR: usize>(q: &DenseI8, row: usize, panel: usize) {
    let width = 2 * S::LANES;
    // SAFETY: `DenseI8` promises the rows and the panel, and room for their sums.
    unsafe {
        P::sums::<MR, NR>(&ByteTile {
            groups: q.groups,
            x: q.x.add(row * q.x_stride),
            x_stride: q.x_stride,
            w: q.w.add(panel * q.panel_groups * width * GROUP),
            start: q.start.add(panel * width),
            sums: q.sums.add(row * NR * S::LANES),
        });
    }
}

/// `act(a)` with the same bits on every level: functions with fused operations are left to plain Rust.
#[inline(always)]
unsafe fn activate<S: Simd>(activation: Activation, a: S::V) -> S::V {
    // SAFETY: register operations, and arrays with room for any vector.
    unsafe {
        match activation {
            Activation::Identity | Activation::Relu | Activation::LeakyRelu => value::<S>(activation, a),
            Activation::Elu | Activation::Gelu | Activation::Silu | Activation::Tanh | Activation::Sigmoid => {
                let mut lanes = [[0.0; 4]; 4];
                S::store(lanes.as_mut_ptr().cast(), a);
                for lanes in &mut lanes[..S::LANES / 4] {
                    *lanes = value::<Portable<4, 4>>(activation, *lanes);
                }
                S::load(lanes.as_ptr().cast())
            }
        }
    }
}

/// Results of a row, vector `j` of the first `NR` of a panel.
#[inline(always)]
unsafe fn result<S: Int8, const NR: usize>(
    q: &DenseI8,
    activation: Activation,
    panel: usize,
    row: usize,
    j: usize,
) -> S::V {
    let column = (2 * panel + j) * S::LANES;
    // SAFETY: as for the tile.
    unsafe {
        let sums = S::to_floats(S::load_sums(q.sums.add((row * NR + j) * S::LANES)));
        activate::<S>(activation, S::add(S::mul(sums, S::load(q.scale.add(column))), S::load(q.bias.add(column))))
    }
}

/// Turns the sums of `rows`, the first `NR` vectors of a panel, into results.
#[inline(always)]
pub(super) unsafe fn finish<S: Int8, const NR: usize>(q: &DenseI8, rows: Range<usize>, panel: usize) {
    let first = panel * 2 * S::LANES;
    let activation = match (q.activation, q.output) {
        // Bytes have no room below 0.
        (Activation::Relu, Output::Bytes { quantizer: Quantizer { zero: 0.0, .. }, .. }) => Activation::Identity,
        (activation, _) => activation,
    };
    // SAFETY: as for the tile; nothing real is written beyond the layer's outputs.
    unsafe {
        each_activation!(activation, A => match q.output {
            Output::Bytes { y, stride, quantizer } => {
                for row in rows.clone().step_by(2) {
                    // A last single row is written twice.
                    let rows = [row, (row + 1).min(rows.end - 1)];
                    // Nobody reads the bytes of a vector that is left out.
                    let mut levels = [[S::splat(0.0); 2]; 2];
                    for i in 0..2 {
                        for j in 0..NR {
                            levels[i][j] = quantizer.levels::<S>(result::<S, NR>(q, A, panel, rows[i], j));
                        }
                    }
                    S::store_levels([y.add(rows[0] * stride + first), y.add(rows[1] * stride + first)], levels);
                }
            }
            Output::Real { y, stride } if first + NR * S::LANES <= q.units => {
                for row in rows {
                    for j in 0..NR {
                        S::store(y.add(row * stride + first + j * S::LANES), result::<S, NR>(q, A, panel, row, j));
                    }
                }
            }
            Output::Real { y, stride } => {
                for row in rows {
                    for at in (0..NR * S::LANES).step_by(S::LANES).take_while(|at| first + at < q.units) {
                        let v = result::<S, NR>(q, A, panel, row, at / S::LANES);
                        write::<S>(y.add(row * stride + first + at), q.units - first - at, v);
                    }
                }
            }
        });
    }
}

/// See [`DenseI8`].
///
/// # Safety
/// Pointers as [`DenseI8`] documents, bytes of `x` at most [`MAX_ACTIVATION`], no weight of −128; the
/// instruction sets of `S`, of `P`, and of `J`, which multiplies joint weights.
#[inline(always)]
pub(crate) unsafe fn dense_i8<S: Int8, P: ByteProduct<S>, J: ByteProduct<S>>(q: &DenseI8) {
    // SAFETY: the caller's promise.
    unsafe {
        if q.joint {
            by_panels::<S, J>(q);
        } else {
            by_panels::<S, P>(q);
        }
    }
}

/// Rows that a layer is best at: whole tiles of two vectors, and of one.
pub(crate) const fn rows<S: Int8, P: ByteProduct<S>>() -> usize {
    2 * P::TILE
}

/// Takes rows through the first `$vectors` vectors of a panel, up to `$max` rows at a time.
macro_rules! by_tiles {
    ($S:ident, $P:ident, $vectors:literal, $max:expr, $q:expr, $rows:expr, $panel:expr) => {{
        let rows = $rows;
        let mut tiles = Tiles::new(rows.len(), $max);
        while let Some((row, count)) = tiles.next() {
            by_rows!(count, $max, tile[$P], $vectors, $q, rows.start + row, $panel);
        }
        finish::<$S, $vectors>($q, rows, $panel);
    }};
}

#[inline(always)]
unsafe fn by_panels<S: Int8, P: ByteProduct<S>>(q: &DenseI8) {
    // A row of floats is a page of memory or so: few at a time, lest every panel miss the translations of all of them.
    let block = match q.output {
        Output::Bytes { .. } => q.rows,
        Output::Real { .. } => rows::<S, P>(),
    };
    let (mut part, parts) = (0, q.rows.div_ceil(block) * (q.panels.1 - q.panels.0));
    for first in (0..q.rows).step_by(block) {
        let rows = first..(first + block).min(q.rows);
        for panel in q.panels.0..q.panels.1 {
            let half = (2 * panel + 1) * S::LANES >= q.units;
            // SAFETY: the caller promises the rows and panels.
            unsafe {
                q.ahead.fetch::<S>(part, parts);
                part += 1;
                if half && P::HALF_TILE > 0 {
                    by_tiles!(S, P, 1, P::HALF_TILE, q, rows.clone(), panel);
                } else {
                    by_tiles!(S, P, 2, P::TILE, q, rows.clone(), panel);
                }
            }
        }
    }
}

/// Rows of floats to rows of bytes.
pub(crate) struct Quantize {
    /// `[rows][x_stride]`, `width` of each row in use.
    pub(crate) x: *const f32,
    pub(crate) x_stride: usize,
    pub(crate) width: usize,
    pub(crate) rows: usize,
    /// `[rows][stride]`
    pub(crate) y: *mut u8,
    pub(crate) stride: usize,
    pub(crate) quantizer: Quantizer,
}

/// See [`Quantize`].
///
/// # Safety
/// Pointers as [`Quantize`] documents; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn quantize<S: Int8>(q: &Quantize) {
    let block = 4 * S::LANES;
    let whole = q.width - q.width % block;
    for row in 0..q.rows {
        // SAFETY: the caller promises the rows; what is left of one passes through an array.
        unsafe {
            let (x, y) = (q.x.add(row * q.x_stride), q.y.add(row * q.stride));
            for at in (0..whole).step_by(block) {
                quantize_block::<S>(q.quantizer, x.add(at), y.add(at));
            }
            if whole < q.width {
                let (mut floats, mut bytes) = ([0.0; 64], [0; 64]);
                floats.as_mut_ptr().copy_from_nonoverlapping(x.add(whole), q.width - whole);
                quantize_block::<S>(q.quantizer, floats.as_ptr(), bytes.as_mut_ptr());
                y.add(whole).copy_from_nonoverlapping(bytes.as_ptr(), q.width - whole);
            }
        }
    }
}

/// Four vectors of floats to bytes.
#[inline(always)]
unsafe fn quantize_block<S: Int8>(quantizer: Quantizer, x: *const f32, y: *mut u8) {
    // SAFETY: the caller promises the floats, and as many bytes.
    unsafe {
        let mut levels = [[S::splat(0.0); 2]; 2];
        for i in 0..2 {
            for j in 0..2 {
                levels[i][j] = quantizer.levels::<S>(S::load(x.add((2 * i + j) * S::LANES)));
            }
        }
        S::store_levels([y, y.add(2 * S::LANES)], levels);
    }
}
