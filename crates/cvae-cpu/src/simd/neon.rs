//! NEON: four lanes, part of every 64-bit Arm.

use std::arch::aarch64::*;

use super::Simd;

/// 128-bit vectors.
#[derive(Clone, Copy)]
pub(crate) struct Neon;

// SAFETY (all blocks of this file): NEON is part of the aarch64 baseline; the caller promises valid pointers.
impl Simd for Neon {
    type V = float32x4_t;
    type M = uint32x4_t;
    const LANES: usize = 4;
    const TILE: usize = 12;

    #[inline(always)]
    unsafe fn splat(x: f32) -> float32x4_t {
        // SAFETY: see the impl.
        unsafe { vdupq_n_f32(x) }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> float32x4_t {
        // SAFETY: see the impl.
        unsafe { vld1q_f32(p) }
    }

    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> float32x4_t {
        // SAFETY: see the impl; four bytes are read.
        unsafe {
            let bytes = p.cast::<[u8; 4]>().read();
            let lanes = bytes.map(u32::from);
            vcvtq_f32_u32(vld1q_u32(lanes.as_ptr()))
        }
    }

    #[inline(always)]
    unsafe fn store(p: *mut f32, v: float32x4_t) {
        // SAFETY: see the impl.
        unsafe { vst1q_f32(p, v) }
    }

    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see the impl.
        unsafe { vaddq_f32(a, b) }
    }

    #[inline(always)]
    unsafe fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see the impl.
        unsafe { vsubq_f32(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see the impl.
        unsafe { vmulq_f32(a, b) }
    }

    #[inline(always)]
    unsafe fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see the impl.
        unsafe { vdivq_f32(a, b) }
    }

    #[inline(always)]
    unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: see the impl.
        unsafe { vfmaq_f32(c, a, b) }
    }

    #[inline(always)]
    unsafe fn fms(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: see the impl.
        unsafe { vnegq_f32(vfmsq_f32(c, a, b)) }
    }

    #[inline(always)]
    unsafe fn fnma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: see the impl.
        unsafe { vfmsq_f32(c, a, b) }
    }

    #[inline(always)]
    unsafe fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see the impl.
        unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
    }

    #[inline(always)]
    unsafe fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see the impl.
        unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
    }

    #[inline(always)]
    unsafe fn round(a: float32x4_t) -> float32x4_t {
        // SAFETY: see the impl.
        unsafe { vrndnq_f32(a) }
    }

    #[inline(always)]
    unsafe fn exp2i(n: float32x4_t) -> float32x4_t {
        // SAFETY: see the impl.
        unsafe { vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)))) }
    }

    #[inline(always)]
    unsafe fn sqrt(a: float32x4_t) -> float32x4_t {
        // SAFETY: see the impl.
        unsafe { vsqrtq_f32(a) }
    }

    #[inline(always)]
    unsafe fn gt(a: float32x4_t, b: float32x4_t) -> uint32x4_t {
        // SAFETY: see the impl.
        unsafe { vcgtq_f32(a, b) }
    }

    #[inline(always)]
    unsafe fn first(n: usize) -> uint32x4_t {
        let lanes: [u32; 4] = std::array::from_fn(|i| if i < n { u32::MAX } else { 0 });
        // SAFETY: the array holds four words.
        unsafe { vld1q_u32(lanes.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn select(mask: uint32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see the impl.
        unsafe { vbslq_f32(mask, a, b) }
    }

    #[inline(always)]
    unsafe fn sum(a: float32x4_t) -> f32 {
        // SAFETY: see the impl.
        unsafe { vaddvq_f32(a) }
    }

    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        // SAFETY: see the impl; the caller promises a 4 × 4 block at either stride.
        unsafe {
            let r0 = vld1q_f32(src);
            let r1 = vld1q_f32(src.add(src_stride));
            let r2 = vld1q_f32(src.add(2 * src_stride));
            let r3 = vld1q_f32(src.add(3 * src_stride));
            let (a, b) = (vtrnq_f32(r0, r1), vtrnq_f32(r2, r3));
            vst1q_f32(dst, vcombine_f32(vget_low_f32(a.0), vget_low_f32(b.0)));
            vst1q_f32(dst.add(dst_stride), vcombine_f32(vget_low_f32(a.1), vget_low_f32(b.1)));
            vst1q_f32(dst.add(2 * dst_stride), vcombine_f32(vget_high_f32(a.0), vget_high_f32(b.0)));
            vst1q_f32(dst.add(3 * dst_stride), vcombine_f32(vget_high_f32(a.1), vget_high_f32(b.1)));
        }
    }
}
