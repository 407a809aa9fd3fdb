//! One vector type per instruction set, behind one trait.
//!
//! Kernels are generic over [`Simd`] and marked `#[inline(always)]`; they become real code only inside the
//! `#[target_feature]` entry points of [`crate::kernels::table`], where every intrinsic inlines.
#![allow(clippy::needless_range_loop, reason = "plain counted loops over constant bounds keep the tile in registers")]

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod bf16;
pub(crate) mod byte_product;
#[cfg(target_arch = "x86_64")]
mod columns;
pub(crate) mod int8;
#[cfg(target_arch = "x86_64")]
mod joint;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod portable;

/// A vector of `LANES` floats and the operations that kernels need.
///
/// # Safety
/// Every method requires that the running processor has the implementing instruction set, and pointers valid
/// for the lanes they touch. Loads and stores need no alignment.
pub(crate) trait Simd: Copy + 'static {
    /// A vector register.
    type V: Copy;
    /// A lane mask.
    type M: Copy;
    /// Floats in a vector.
    const LANES: usize;
    /// Rows of the register tile of a matrix product (`TILE × 2` accumulators fit the register file).
    const TILE: usize;
    /// Rows of a tile of one vector: as many sums as hide the latency of an addition.
    const HALF_TILE: usize = if Self::TILE < 7 { 2 * Self::TILE } else { 14 };
    /// Steps of a long contraction that a loop takes at a time: where few registers make a tile small, counting and
    /// moving on is a large part of its instructions.
    const UNROLL: usize = 1;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    /// `LANES` bytes, converted.
    unsafe fn load_u8(p: *const u8) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `a·b + c`
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a·b − c`
    unsafe fn fms(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c − a·b`
    unsafe fn fnma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; `b` where either is NaN.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; `b` where either is NaN.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// Nearest integer, ties to even.
    unsafe fn round(a: Self::V) -> Self::V;
    /// `2^n` for an integral `n` in [−126, 127].
    unsafe fn exp2i(n: Self::V) -> Self::V;
    /// The square root, within 1 ulp; 0 may come out as up to 1e-18.
    unsafe fn sqrt(a: Self::V) -> Self::V;
    /// Lanes where `a > b`; false for NaN.
    unsafe fn gt(a: Self::V, b: Self::V) -> Self::M;
    /// The first `n` lanes.
    unsafe fn first(n: usize) -> Self::M;
    /// `a` where the mask is set, else `b`.
    unsafe fn select(mask: Self::M, a: Self::V, b: Self::V) -> Self::V;
    /// Sum of the lanes in a fixed order.
    unsafe fn sum(a: Self::V) -> f32;
    /// Transposes a `LANES × LANES` block: `dst[j·dst_stride + i] = src[i·src_stride + j]`.
    unsafe fn transpose(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize);

    /// `sums[i] += Σ_k a[i][k] · p[k]` over at least one panel of six rows, the next `a_stride` floats on, if the level has its
    /// own way of doing this; else nothing, and false.
    #[inline(always)]
    unsafe fn six_rows(_panels: usize, _a: *const f32, _a_stride: usize, _p: *const f32, _sums: *mut Self::V) -> bool {
        false
    }

    /// Asks for a cache line, where that was found to help.
    #[inline(always)]
    unsafe fn fetch(_p: *const u8) {}

    /// `|a|`
    #[inline(always)]
    unsafe fn abs(a: Self::V) -> Self::V {
        // SAFETY: as for the caller.
        unsafe { Self::max(Self::sub(Self::splat(0.0), a), a) }
    }
}
