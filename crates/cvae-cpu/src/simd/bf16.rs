//! The upper half of a 32-bit float: a sign, eight bits of exponent, seven of mantissa.

use super::Simd;
use super::portable::Portable;

/// A bfloat16 number, as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(u16);

impl Bf16 {
    /// The number with these bits.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Its bits: the upper half of those of [`Bf16::to_f32`].
    pub const fn to_bits(self) -> u16 {
        self.0
    }

    /// The nearest number, ties to even; infinite beyond the largest. NaN stays NaN.
    #[inline(always)]
    pub const fn from_f32(x: f32) -> Self {
        let bits = x.to_bits();
        if x.is_nan() {
            return Self((bits >> 16) as u16 | 0x40);
        }
        Self(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) as u16)
    }

    /// The same number.
    #[inline(always)]
    pub const fn to_f32(self) -> f32 {
        f32::from_bits((self.0 as u32) << 16)
    }
}

/// Lanes that widen pairs of [`Bf16`] to floats in registers.
///
/// # Safety
/// As for [`Simd`].
pub(crate) trait Widen: Simd {
    /// The first of each of `LANES` pairs.
    unsafe fn load_first(p: *const Bf16) -> Self::V;
    /// The second of each of `LANES` pairs.
    unsafe fn load_second(p: *const Bf16) -> Self::V;
}

/// Lanes that multiply pairs of [`Bf16`] and add the products to floats, and that round floats to such pairs.
///
/// # Safety
/// As for [`Simd`], and whatever instructions the implementation says.
pub(crate) trait Dot2: Simd {
    /// `LANES` pairs.
    type P: Copy;

    unsafe fn load_pairs(p: *const Bf16) -> Self::P;
    /// One pair for every lane.
    unsafe fn broadcast_pair(p: *const Bf16) -> Self::P;
    /// `sums[lane] + a[lane][1]·b[lane][1] + a[lane][0]·b[lane][0]`, added from the left.
    unsafe fn dot2(sums: Self::V, a: Self::P, b: Self::P) -> Self::V;
    /// Stores `LANES` numbers, rounded to the nearest, ties to even.
    unsafe fn store_rounded(p: *mut Bf16, v: Self::V);
    /// Stores `LANES` pairs, each of a lane of `first` and a lane of `second`, rounded.
    unsafe fn store_pairs(p: *mut Bf16, first: Self::V, second: Self::V);
}

impl<const N: usize, const TILE: usize> Dot2 for Portable<N, TILE> {
    /// The first of a pair in the lower half.
    type P = [u32; N];

    #[inline(always)]
    unsafe fn load_pairs(p: *const Bf16) -> Self::P {
        // SAFETY: the caller promises `N` pairs.
        unsafe { p.cast::<[[u16; 2]; N]>().read() }.map(|[first, second]| (u32::from(second) << 16) | u32::from(first))
    }

    #[inline(always)]
    unsafe fn broadcast_pair(p: *const Bf16) -> Self::P {
        // SAFETY: the caller promises a pair.
        let [first, second] = unsafe { p.cast::<[u16; 2]>().read() };
        [(u32::from(second) << 16) | u32::from(first); N]
    }

    #[inline(always)]
    unsafe fn dot2(sums: Self::V, a: Self::P, b: Self::P) -> Self::V {
        let (first, second) = (|pair: u32| f32::from_bits(pair << 16), |pair: u32| f32::from_bits(pair & 0xFFFF_0000));
        std::array::from_fn(|i| sums[i] + second(a[i]) * second(b[i]) + first(a[i]) * first(b[i]))
    }

    #[inline(always)]
    unsafe fn store_rounded(p: *mut Bf16, v: Self::V) {
        // SAFETY: the caller promises room for `N` numbers.
        unsafe { p.cast::<[Bf16; N]>().write(v.map(Bf16::from_f32)) }
    }

    #[inline(always)]
    unsafe fn store_pairs(p: *mut Bf16, first: Self::V, second: Self::V) {
        let pairs: [[Bf16; 2]; N] = std::array::from_fn(|i| [Bf16::from_f32(first[i]), Bf16::from_f32(second[i])]);
        // SAFETY: the caller promises room for `N` pairs.
        unsafe { p.cast::<[[Bf16; 2]; N]>().write(pairs) }
    }
}

impl<const N: usize, const TILE: usize> Widen for Portable<N, TILE> {
    #[inline(always)]
    unsafe fn load_first(p: *const Bf16) -> Self::V {
        // SAFETY: the caller promises `N` pairs.
        unsafe { p.cast::<[[Bf16; 2]; N]>().read() }.map(|[first, _]| first.to_f32())
    }

    #[inline(always)]
    unsafe fn load_second(p: *const Bf16) -> Self::V {
        // SAFETY: the caller promises `N` pairs.
        unsafe { p.cast::<[[Bf16; 2]; N]>().read() }.map(|[_, second]| second.to_f32())
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Bf16, Dot2, Widen};
    use crate::simd::avx2::Avx2;
    use crate::simd::avx512::Avx512;

    // SAFETY (all blocks of this impl): the caller promises AVX2 and valid pointers; see `Widen`.
    impl Widen for Avx2 {
        #[inline(always)]
        unsafe fn load_first(p: *const Bf16) -> __m256 {
            // SAFETY: see the impl; the first of a pair is the lower half of its lane.
            unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_loadu_si256(p.cast()))) }
        }

        #[inline(always)]
        unsafe fn load_second(p: *const Bf16) -> __m256 {
            // SAFETY: see the impl.
            unsafe {
                let upper = _mm256_set1_epi32(0xFFFF_0000_u32.cast_signed());
                _mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(p.cast()), upper))
            }
        }
    }

    // SAFETY (all blocks of this impl): the caller promises AVX-512 F, BW and BF16, and valid pointers; see `Dot2`.
    impl Dot2 for Avx512 {
        type P = __m512i;

        #[inline(always)]
        unsafe fn load_pairs(p: *const Bf16) -> __m512i {
            // SAFETY: see the impl.
            unsafe { _mm512_loadu_si512(p.cast()) }
        }

        #[inline(always)]
        unsafe fn broadcast_pair(p: *const Bf16) -> __m512i {
            // SAFETY: see the impl.
            unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
        }

        #[inline(always)]
        unsafe fn dot2(sums: __m512, a: __m512i, b: __m512i) -> __m512 {
            // SAFETY: see the impl; vectors of equal size, and any bits are a vector of halves.
            unsafe {
                let (a, b) = (std::mem::transmute::<__m512i, __m512bh>(a), std::mem::transmute::<__m512i, __m512bh>(b));
                _mm512_dpbf16_ps(sums, a, b)
            }
        }

        #[inline(always)]
        unsafe fn store_rounded(p: *mut Bf16, v: __m512) {
            // SAFETY: see the impl; vectors of equal size.
            unsafe { _mm256_storeu_si256(p.cast(), std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v))) }
        }

        #[inline(always)]
        unsafe fn store_pairs(p: *mut Bf16, first: __m512, second: __m512) {
            // SAFETY: see the impl; vectors of equal size.
            unsafe {
                // The lower half of the register is the first vector, the upper half the second.
                let halves = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
                let lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
                let from =
                    _mm512_or_si512(lane, _mm512_slli_epi32::<16>(_mm512_add_epi32(lane, _mm512_set1_epi32(16))));
                _mm512_storeu_si512(p.cast(), _mm512_permutexvar_epi16(from, halves));
            }
        }
    }

    // SAFETY (all blocks of this impl): the caller promises AVX-512 F and valid pointers; see `Widen`.
    impl Widen for Avx512 {
        #[inline(always)]
        unsafe fn load_first(p: *const Bf16) -> __m512 {
            // SAFETY: see the impl; the first of a pair is the lower half of its lane.
            unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_loadu_si512(p.cast()))) }
        }

        #[inline(always)]
        unsafe fn load_second(p: *const Bf16) -> __m512 {
            // SAFETY: see the impl.
            unsafe {
                let upper = _mm512_set1_epi32(0xFFFF_0000_u32.cast_signed());
                _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p.cast()), upper))
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::{Bf16, Widen};
    use crate::simd::neon::Neon;

    // SAFETY (all blocks of this impl): the caller promises valid pointers; see `Widen`.
    impl Widen for Neon {
        #[inline(always)]
        unsafe fn load_first(p: *const Bf16) -> float32x4_t {
            // SAFETY: see the impl; the first of a pair is the lower half of its lane.
            unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(vld1q_u32(p.cast()))) }
        }

        #[inline(always)]
        unsafe fn load_second(p: *const Bf16) -> float32x4_t {
            // SAFETY: see the impl.
            unsafe { vreinterpretq_f32_u32(vandq_u32(vld1q_u32(p.cast()), vdupq_n_u32(0xFFFF_0000))) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_nearest_even() {
        for (x, bits) in [
            (0.0f32, 0x0000u16),
            (-0.0, 0x8000),
            (1.0, 0x3F80),
            // Halfway to the next: to the even one, below and above.
            (1.0 + 1.0 / 256.0, 0x3F80),
            (1.0 + 3.0 / 256.0, 0x3F82),
            (f32::from_bits(0x3F80_8001), 0x3F81),
            (-1.0 - 3.0 / 256.0, 0xBF82),
            (f32::from_bits(1), 0x0000),
            (f32::from_bits(0x0000_8001), 0x0001),
            (f32::MAX, 0x7F80),
            (f32::INFINITY, 0x7F80),
            (f32::NEG_INFINITY, 0xFF80),
        ] {
            assert_eq!(Bf16::from_f32(x).to_bits(), bits, "{x:e}");
        }
        assert!(Bf16::from_f32(f32::from_bits(0x7F80_0001)).to_f32().is_nan());
        for bits in 0..=u16::MAX {
            let x = Bf16::from_bits(bits);
            let back = Bf16::from_f32(x.to_f32());
            assert!(back == x || x.to_f32().is_nan() && back.to_f32().is_nan(), "{bits:#x}");
        }
    }

    #[test]
    fn every_other_number_is_nearest() {
        for bits in (0..0x7F7F_0000u32).step_by(0x4321) {
            let x = f32::from_bits(bits);
            let found = Bf16::from_f32(x);
            let error = |to: u16| (f64::from(Bf16::from_bits(to).to_f32()) - f64::from(x)).abs();
            let (own, bits) = (error(found.to_bits()), found.to_bits());
            assert!(own <= error(bits + 1) && (bits == 0 || own <= error(bits - 1)), "{x:e}");
        }
    }
}
