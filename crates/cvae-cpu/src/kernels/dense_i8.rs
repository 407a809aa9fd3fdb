//! A frozen dense layer on bytes: `y = act(scale ⊙ (W·x) + b)` with integer sums.
//!
//! Activations are row-major bytes, weights panels `[panel][group][PW][4]` of `PW = 2·LANES` outputs and
//! groups of four inputs. Sums are exact, and what follows them is written in plain arithmetic without fused
//! operations, so that every instruction set gives the same bits. Formulas: docs/MATH.md, "Eight-bit inference".

use cvae_core::Activation;

use super::activation::{each_activation, value};
use super::linear::Tiles;
use crate::simd::Simd;
use crate::simd::int8::{ByteProduct, GROUP, Int8, MAX_ACTIVATION};
use crate::simd::portable::Portable;

/// Adding it rounds `|v| < 2²²` to the nearest integer, ties to even, and leaves that integer in the low bits.
const ROUND: f32 = 12_582_912.0;

/// How real values become bytes: `q = clamp(round(inverse · v + zero), 0, 127)`.
#[derive(Clone, Copy)]
pub(crate) struct Quantizer {
    /// One over the step.
    pub(crate) inverse: f32,
    /// The byte that stands for 0.
    pub(crate) zero: f32,
}

impl Quantizer {
    /// The bytes of `LANES` values, each as the low byte of its lane. NaN becomes 0.
    #[inline(always)]
    unsafe fn levels<S: Simd>(self, v: S::V) -> S::V {
        // SAFETY: register operations only.
        unsafe {
            let level = S::add(S::mul(v, S::splat(self.inverse)), S::splat(self.zero));
            let level = S::min(S::max(level, S::splat(0.0)), S::splat(f32::from(MAX_ACTIVATION)));
            S::add(level, S::splat(ROUND))
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

/// Some panels of a layer's outputs for some rows.
pub(crate) struct DenseI8 {
    /// `[rows][x_stride]`, whole groups.
    pub(crate) x: *const u8,
    pub(crate) x_stride: usize,
    pub(crate) rows: usize,
    /// Groups of inputs.
    pub(crate) groups: usize,
    /// Groups of a panel: those of the inputs, and zeros.
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
}

/// Sums of `MR` rows from `row`, one panel.
#[inline(always)]
unsafe fn tile<S: Int8, P: ByteProduct<S>, const MR: usize>(q: &DenseI8, row: usize, panel: usize) {
    let width = 2 * S::LANES;
    // SAFETY: `DenseI8` promises the rows and the panel, and room for their sums.
    unsafe {
        let begin = q.start.add(panel * width);
        let mut acc = [[S::load_sums(begin), S::load_sums(begin.add(S::LANES))]; MR];
        let mut x = q.x.add(row * q.x_stride);
        let mut w = q.w.add(panel * q.panel_groups * width * GROUP);
        for _ in 0..q.groups / 2 {
            let weights = |w: *const i8| [S::load_weights(w), S::load_weights(w.add(width * GROUP))];
            let b = [weights(w), weights(w.add(S::LANES * GROUP))];
            for i in 0..MR {
                let x = x.add(i * q.x_stride);
                let a = [S::broadcast(x), S::broadcast(x.add(GROUP))];
                for j in 0..2 {
                    acc[i][j] = P::dot_two(acc[i][j], a, b[j]);
                }
            }
            x = x.wrapping_add(2 * GROUP);
            w = w.wrapping_add(2 * width * GROUP);
        }
        if q.groups % 2 == 1 {
            let b = [S::load_weights(w), S::load_weights(w.add(S::LANES * GROUP))];
            for i in 0..MR {
                let a = S::broadcast(x.add(i * q.x_stride));
                for j in 0..2 {
                    acc[i][j] = P::dot(acc[i][j], a, b[j]);
                }
            }
        }
        for i in 0..MR {
            for j in 0..2 {
                S::store_sums(q.sums.add((row + i) * width + j * S::LANES), acc[i][j]);
            }
        }
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

/// Turns the sums of all rows of a panel into results.
#[inline(always)]
pub(super) unsafe fn finish<S: Int8>(q: &DenseI8, panel: usize) {
    let width = 2 * S::LANES;
    // SAFETY: as for the tile; nothing real is written beyond the layer's outputs.
    unsafe {
        each_activation!(q.activation, A => for j in 0..2 {
            let column = panel * width + j * S::LANES;
            let (scale, bias) = (S::load(q.scale.add(column)), S::load(q.bias.add(column)));
            let result = |row: usize| {
                let sums = S::to_floats(S::load_sums(q.sums.add(row * width + j * S::LANES)));
                activate::<S>(A, S::add(S::mul(sums, scale), bias))
            };
            match q.output {
                Output::Bytes { y, stride, quantizer } => {
                    for row in 0..q.rows {
                        S::store_bytes(y.add(row * stride + column), quantizer.levels::<S>(result(row)));
                    }
                }
                Output::Real { y, stride } if column + S::LANES <= q.units => {
                    for row in 0..q.rows {
                        S::store(y.add(row * stride + column), result(row));
                    }
                }
                Output::Real { y, stride } if column < q.units => {
                    for row in 0..q.rows {
                        let mut lanes = [0.0; 16];
                        S::store(lanes.as_mut_ptr(), result(row));
                        y.add(row * stride + column).copy_from_nonoverlapping(lanes.as_ptr(), q.units - column);
                    }
                }
                Output::Real { .. } => {}
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

#[inline(always)]
unsafe fn by_panels<S: Int8, P: ByteProduct<S>>(q: &DenseI8) {
    for panel in q.panels.0..q.panels.1 {
        let mut tiles = Tiles::new(q.rows, P::TILE);
        while let Some((row, rows)) = tiles.next() {
            // SAFETY: the tile lies inside the rows and panels.
            unsafe {
                match rows {
                    1 => tile::<S, P, 1>(q, row, panel),
                    2 => tile::<S, P, 2>(q, row, panel),
                    3 => tile::<S, P, 3>(q, row, panel),
                    4 => tile::<S, P, 4>(q, row, panel),
                    5 if P::TILE >= 5 => tile::<S, P, 5>(q, row, panel),
                    6 if P::TILE >= 6 => tile::<S, P, 6>(q, row, panel),
                    7 if P::TILE >= 7 => tile::<S, P, 7>(q, row, panel),
                    8 if P::TILE >= 8 => tile::<S, P, 8>(q, row, panel),
                    9 if P::TILE >= 9 => tile::<S, P, 9>(q, row, panel),
                    10 if P::TILE >= 10 => tile::<S, P, 10>(q, row, panel),
                    11 if P::TILE >= 11 => tile::<S, P, 11>(q, row, panel),
                    12 if P::TILE >= 12 => tile::<S, P, 12>(q, row, panel),
                    _ => unreachable!("a tile has 1 to {} rows", P::TILE),
                }
            }
        }
        // SAFETY: the sums of the panel are complete.
        unsafe { finish::<S>(q, panel) };
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
    let whole = q.width - q.width % S::LANES;
    for row in 0..q.rows {
        // SAFETY: the caller promises the rows; what is left of one passes through an array.
        unsafe {
            let (x, y) = (q.x.add(row * q.x_stride), q.y.add(row * q.stride));
            for at in (0..whole).step_by(S::LANES) {
                S::store_bytes(y.add(at), q.quantizer.levels::<S>(S::load(x.add(at))));
            }
            let (mut floats, mut bytes) = ([0.0; 16], [0; 16]);
            floats.as_mut_ptr().copy_from_nonoverlapping(x.add(whole), q.width - whole);
            S::store_bytes(bytes.as_mut_ptr(), q.quantizer.levels::<S>(S::load(floats.as_ptr())));
            y.add(whole).copy_from_nonoverlapping(bytes.as_ptr(), q.width - whole);
        }
    }
}
