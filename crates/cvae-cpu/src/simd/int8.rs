//! Dot products of bytes, exact in 32-bit integers and therefore equal on every instruction set.
//!
//! Activations are unsigned and at most [`MAX_ACTIVATION`], weights signed and at least −127: a sum of two
//! products then fits 16 bits, which is as much as AVX2 and AVX-512 BW hold between their two multiplications.

use super::Simd;
use super::byte_product::{ByteProduct, ByteTile, Joint, Plain, sums};
use super::portable::Portable;

/// Largest quantised activation.
pub(crate) const MAX_ACTIVATION: u8 = 127;
/// Bytes of the contraction that one lane takes at a time.
pub(crate) const GROUP: usize = 4;
/// Most that the magnitudes of the four weights may add to whose products [`Int8::dot_joint`] sums in 16 bits.
pub(crate) const JOINT_WEIGHTS: u16 = i16::MAX as u16 / MAX_ACTIVATION as u16;

/// Adding it rounds `|v| < 2²²` to the nearest integer, ties to even, and leaves that integer in the low bits.
const ROUND: f32 = 12_582_912.0;

/// Whether the weights of an output are small enough for [`Int8::dot_joint`].
pub(crate) fn joint(row: &[i8]) -> bool {
    row.chunks(2 * GROUP).all(|groups| {
        let mut sums = [0u16; 2];
        for (k, weight) in groups.iter().enumerate() {
            sums[k % GROUP / 2] += u16::from(weight.unsigned_abs());
        }
        sums.iter().all(|sum| *sum <= JOINT_WEIGHTS)
    })
}

/// Lanes of 32-bit sums, each over groups of [`GROUP`] bytes.
///
/// # Safety
/// As for [`Simd`]; the values behind the pointers keep the bounds above.
pub(crate) trait Int8: Simd {
    /// `LANES` sums.
    type A: Copy;
    /// `LANES` groups of bytes.
    type B: Copy;
    /// Rows of the register tile (`BYTE_TILE × 2` sums, and what a product needs, fit the register file).
    const BYTE_TILE: usize;
    /// The same for products of two groups.
    const JOINT_TILE: usize;
    /// Rows of a tile of one vector for products of two groups; 0 where none is worth its while.
    const JOINT_HALF_TILE: usize = 0;

    unsafe fn load_sums(p: *const i32) -> Self::A;
    unsafe fn store_sums(p: *mut i32, a: Self::A);
    /// One group of activations for every lane.
    unsafe fn broadcast(p: *const u8) -> Self::B;
    /// A group of weights per lane.
    unsafe fn load_weights(p: *const i8) -> Self::B;
    /// `sums[lane] + Σ_i x[lane][i] · w[lane][i]`
    unsafe fn dot(sums: Self::A, x: Self::B, w: Self::B) -> Self::A;
    /// As [`Int8::dot`] for two groups, whose weights are [`joint`].
    #[inline(always)]
    unsafe fn dot_joint(sums: Self::A, x: [Self::B; 2], w: [Self::B; 2]) -> Self::A {
        // SAFETY: as for the caller.
        unsafe { <Plain as ByteProduct<Self>>::dot_two(sums, x, w) }
    }
    /// As [`ByteProduct::sums`] for [`Joint`].
    #[inline(always)]
    unsafe fn joint_sums<const MR: usize, const NR: usize>(tile: &ByteTile) {
        // SAFETY: as for the caller.
        unsafe { sums::<Self, Joint, MR, NR>(tile) }
    }
    /// The nearest floats, ties to even.
    unsafe fn to_floats(sums: Self::A) -> Self::V;
    /// Stores `2 · LANES` levels of each of two rows as bytes: the nearest integers, ties to even, where values below 0 and
    /// NaN become 0. None is above [`MAX_ACTIVATION`].
    unsafe fn store_levels(rows: [*mut u8; 2], levels: [[Self::V; 2]; 2]);
}

impl<const N: usize, const TILE: usize> Int8 for Portable<N, TILE> {
    type A = [i32; N];
    type B = [[i8; GROUP]; N];
    const BYTE_TILE: usize = 4;
    const JOINT_TILE: usize = 4;

    #[inline(always)]
    unsafe fn load_sums(p: *const i32) -> Self::A {
        // SAFETY: the caller promises `N` readable integers.
        unsafe { p.cast::<[i32; N]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_sums(p: *mut i32, a: Self::A) {
        // SAFETY: the caller promises `N` writable integers.
        unsafe { p.cast::<[i32; N]>().write_unaligned(a) }
    }

    #[inline(always)]
    unsafe fn broadcast(p: *const u8) -> Self::B {
        // SAFETY: the caller promises a group; its bytes are at most 127, so that the sign bit is clear.
        [unsafe { p.cast::<[i8; GROUP]>().read() }; N]
    }

    #[inline(always)]
    unsafe fn load_weights(p: *const i8) -> Self::B {
        // SAFETY: the caller promises `N` groups.
        unsafe { p.cast::<[[i8; GROUP]; N]>().read() }
    }

    #[inline(always)]
    unsafe fn dot(sums: Self::A, x: Self::B, w: Self::B) -> Self::A {
        let product = |lane: usize, i: usize| i32::from(x[lane][i]) * i32::from(w[lane][i]);
        std::array::from_fn(|lane| (0..GROUP).fold(sums[lane], |sum, i| sum + product(lane, i)))
    }

    #[inline(always)]
    unsafe fn to_floats(sums: Self::A) -> Self::V {
        sums.map(|sum| sum as f32)
    }

    #[inline(always)]
    unsafe fn store_levels(rows: [*mut u8; 2], levels: [[Self::V; 2]; 2]) {
        let byte = |level: f32| (if level > 0.0 { level } else { 0.0 } + ROUND).to_bits() as u8;
        for (row, levels) in rows.into_iter().zip(levels) {
            // SAFETY: the caller promises `2 · N` writable bytes.
            unsafe { row.cast::<[[u8; N]; 2]>().write(levels.map(|levels| levels.map(byte))) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Int8;
    use crate::simd::avx2::Avx2;
    use crate::simd::avx512::Avx512;
    use crate::simd::byte_product::{ByteProduct, ByteTile, Joint, Vnni, sums};
    use crate::simd::joint;

    // SAFETY (all blocks of this impl): the caller promises AVX2 and valid pointers; see `Int8`.
    impl Int8 for Avx2 {
        type A = __m256i;
        type B = __m256i;
        const BYTE_TILE: usize = 6;
        const JOINT_TILE: usize = 4;
        const JOINT_HALF_TILE: usize = 8;

        #[inline(always)]
        unsafe fn load_sums(p: *const i32) -> __m256i {
            // SAFETY: see the impl.
            unsafe { _mm256_loadu_si256(p.cast()) }
        }

        #[inline(always)]
        unsafe fn store_sums(p: *mut i32, a: __m256i) {
            // SAFETY: see the impl.
            unsafe { _mm256_storeu_si256(p.cast(), a) }
        }

        #[inline(always)]
        unsafe fn broadcast(p: *const u8) -> __m256i {
            // SAFETY: see the impl.
            unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
        }

        #[inline(always)]
        unsafe fn load_weights(p: *const i8) -> __m256i {
            // SAFETY: see the impl.
            unsafe { _mm256_loadu_si256(p.cast()) }
        }

        #[inline(always)]
        unsafe fn dot(sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
            // SAFETY: see the impl; the bounds of the operands keep the 16-bit sums from saturating.
            unsafe {
                let pairs = _mm256_maddubs_epi16(x, w);
                _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            }
        }

        #[inline(always)]
        unsafe fn dot_joint(sums: __m256i, x: [__m256i; 2], w: [__m256i; 2]) -> __m256i {
            // SAFETY: see the impl; `joint` weights keep the sum of both groups within 16 bits.
            unsafe {
                let pairs = _mm256_add_epi16(_mm256_maddubs_epi16(x[0], w[0]), _mm256_maddubs_epi16(x[1], w[1]));
                _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            }
        }

        #[inline(always)]
        unsafe fn joint_sums<const MR: usize, const NR: usize>(tile: &ByteTile) {
            // SAFETY: see the impl; the tile is there by promise.
            unsafe {
                match (MR, NR) {
                    (Self::JOINT_TILE, 2) => joint::four_rows(tile),
                    (Self::JOINT_HALF_TILE, 1) => joint::eight_rows(tile),
                    _ => sums::<Self, Joint, MR, NR>(tile),
                }
            }
        }

        #[inline(always)]
        unsafe fn to_floats(sums: __m256i) -> __m256 {
            // SAFETY: see the impl.
            unsafe { _mm256_cvtepi32_ps(sums) }
        }

        #[inline(always)]
        unsafe fn store_levels(rows: [*mut u8; 2], levels: [[__m256; 2]; 2]) {
            // SAFETY: see the impl; sixteen bytes of each row are written. What is not in the range of integers becomes
            // the least of them, and saturation makes 0 of all that is below.
            unsafe {
                let low = _mm256_packs_epi32(_mm256_cvtps_epi32(levels[0][0]), _mm256_cvtps_epi32(levels[0][1]));
                let high = _mm256_packs_epi32(_mm256_cvtps_epi32(levels[1][0]), _mm256_cvtps_epi32(levels[1][1]));
                let bytes = _mm256_packus_epi16(low, high);
                // Packing has left the lower and the upper half of every vector in a half of its own.
                let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
                _mm_storeu_si128(rows[0].cast(), _mm256_castsi256_si128(bytes));
                _mm_storeu_si128(rows[1].cast(), _mm256_extracti128_si256::<1>(bytes));
            }
        }
    }

    impl ByteProduct<Avx2> for Vnni {
        #[inline(always)]
        unsafe fn dot(sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
            // SAFETY: the caller promises AVX-VNNI; sums within 32 bits do not wrap.
            unsafe { _mm256_dpbusd_avx_epi32(sums, x, w) }
        }
    }

    impl ByteProduct<Avx512> for Vnni {
        #[inline(always)]
        unsafe fn dot(sums: __m512i, x: __m512i, w: __m512i) -> __m512i {
            // SAFETY: the caller promises AVX-512 VNNI; sums within 32 bits do not wrap.
            unsafe { _mm512_dpbusd_epi32(sums, x, w) }
        }
    }

    // SAFETY (all blocks of this impl): the caller promises AVX-512 BW and valid pointers; see `Int8`.
    impl Int8 for Avx512 {
        type A = __m512i;
        type B = __m512i;
        const BYTE_TILE: usize = 12;
        const JOINT_TILE: usize = 11;

        #[inline(always)]
        unsafe fn load_sums(p: *const i32) -> __m512i {
            // SAFETY: see the impl.
            unsafe { _mm512_loadu_si512(p.cast()) }
        }

        #[inline(always)]
        unsafe fn store_sums(p: *mut i32, a: __m512i) {
            // SAFETY: see the impl.
            unsafe { _mm512_storeu_si512(p.cast(), a) }
        }

        #[inline(always)]
        unsafe fn broadcast(p: *const u8) -> __m512i {
            // SAFETY: see the impl.
            unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
        }

        #[inline(always)]
        unsafe fn load_weights(p: *const i8) -> __m512i {
            // SAFETY: see the impl.
            unsafe { _mm512_loadu_si512(p.cast()) }
        }

        #[inline(always)]
        unsafe fn dot(sums: __m512i, x: __m512i, w: __m512i) -> __m512i {
            // SAFETY: see the impl; the bounds of the operands keep the 16-bit sums from saturating.
            unsafe {
                let pairs = _mm512_maddubs_epi16(x, w);
                _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
            }
        }

        #[inline(always)]
        unsafe fn dot_joint(sums: __m512i, x: [__m512i; 2], w: [__m512i; 2]) -> __m512i {
            // SAFETY: see the impl; `joint` weights keep the sum of both groups within 16 bits.
            unsafe {
                let pairs = _mm512_add_epi16(_mm512_maddubs_epi16(x[0], w[0]), _mm512_maddubs_epi16(x[1], w[1]));
                _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
            }
        }

        #[inline(always)]
        unsafe fn to_floats(sums: __m512i) -> __m512 {
            // SAFETY: see the impl.
            unsafe { _mm512_cvtepi32_ps(sums) }
        }

        #[inline(always)]
        unsafe fn store_levels(rows: [*mut u8; 2], levels: [[__m512; 2]; 2]) {
            // SAFETY: see the impl; thirty-two bytes of each row are written. The zero comes second so that NaN becomes it.
            unsafe {
                for i in 0..2 {
                    for j in 0..2 {
                        let level = _mm512_cvtps_epi32(_mm512_max_ps(levels[i][j], _mm512_setzero_ps()));
                        _mm_storeu_si128(rows[i].add(16 * j).cast(), _mm512_cvtepi32_epi8(level));
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::{GROUP, Int8, Portable, Simd};
    use crate::simd::neon::Neon;

    /// Four lanes of plain Rust, which the compiler turns into NEON instructions.
    type Plain = Portable<4, 4>;

    // SAFETY (all blocks of this impl): as for `Plain`, to which every call goes.
    impl Int8 for Neon {
        type A = [i32; 4];
        type B = [[i8; GROUP]; 4];
        const BYTE_TILE: usize = 4;
        const JOINT_TILE: usize = 4;

        #[inline(always)]
        unsafe fn load_sums(p: *const i32) -> Self::A {
            // SAFETY: see the impl.
            unsafe { Plain::load_sums(p) }
        }

        #[inline(always)]
        unsafe fn store_sums(p: *mut i32, a: Self::A) {
            // SAFETY: see the impl.
            unsafe { Plain::store_sums(p, a) }
        }

        #[inline(always)]
        unsafe fn broadcast(p: *const u8) -> Self::B {
            // SAFETY: see the impl.
            unsafe { Plain::broadcast(p) }
        }

        #[inline(always)]
        unsafe fn load_weights(p: *const i8) -> Self::B {
            // SAFETY: see the impl.
            unsafe { Plain::load_weights(p) }
        }

        #[inline(always)]
        unsafe fn dot(sums: Self::A, x: Self::B, w: Self::B) -> Self::A {
            // SAFETY: see the impl.
            unsafe { Plain::dot(sums, x, w) }
        }

        #[inline(always)]
        unsafe fn to_floats(sums: Self::A) -> Self::V {
            // SAFETY: see the impl; four floats in an array.
            unsafe { Self::load(Plain::to_floats(sums).as_ptr()) }
        }

        #[inline(always)]
        unsafe fn store_levels(rows: [*mut u8; 2], levels: [[Self::V; 2]; 2]) {
            // SAFETY: see the impl; the arrays have room for the vectors.
            unsafe {
                let floats = |level: Self::V| {
                    let mut lanes = [0.0; 4];
                    Self::store(lanes.as_mut_ptr(), level);
                    lanes
                };
                Plain::store_levels(rows, levels.map(|levels| levels.map(floats)));
            }
        }
    }
}
