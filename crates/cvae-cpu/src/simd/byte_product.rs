//! The ways to multiply and add groups of bytes: those of a level itself, and those of further instructions.

use super::int8::{GROUP, Int8};

/// How groups of bytes are multiplied and added; every way gives the same sums.
///
/// # Safety
/// As for [`Int8`], and whatever instructions the implementing type is named after.
pub(crate) trait ByteProduct<S: Int8> {
    /// Rows of the register tile.
    const TILE: usize = S::BYTE_TILE;
    /// Rows of a tile of one vector, for a last panel of which half is used; 0 where that is worked on whole.
    const HALF_TILE: usize = 0;
    /// Whether two groups take less than twice the time of one.
    const PAIRS: bool = false;

    /// As [`Int8::dot`].
    unsafe fn dot(sums: S::A, x: S::B, w: S::B) -> S::A;
    /// As [`Int8::dot`] for two groups.
    #[inline(always)]
    unsafe fn dot_two(sums: S::A, x: [S::B; 2], w: [S::B; 2]) -> S::A {
        // SAFETY: as for the caller.
        unsafe { Self::dot(Self::dot(sums, x[0], w[0]), x[1], w[1]) }
    }
    /// Sums of `MR` rows and `NR` vectors of outputs.
    #[inline(always)]
    unsafe fn sums<const MR: usize, const NR: usize>(tile: &ByteTile)
    where
        Self: Sized,
    {
        // SAFETY: as for the caller.
        unsafe { sums::<S, Self, MR, NR>(tile) }
    }
}

/// Some rows and vectors of outputs of one panel. Groups that are taken by twos are whole pairs, the last one's partner
/// zeros.
pub(crate) struct ByteTile {
    pub(crate) groups: usize,
    /// `[rows][x_stride]`
    pub(crate) x: *const u8,
    pub(crate) x_stride: usize,
    /// `[groups][PW][4]`
    pub(crate) w: *const i8,
    /// `[PW]`: what sums begin with.
    pub(crate) start: *const i32,
    /// `[rows][vectors][LANES]`
    pub(crate) sums: *mut i32,
}

/// See [`ByteProduct::sums`].
#[inline(always)]
pub(super) unsafe fn sums<S: Int8, P: ByteProduct<S>, const MR: usize, const NR: usize>(tile: &ByteTile) {
    let ByteTile { groups, mut x, x_stride, mut w, start, sums } = *tile;
    let next_group = 2 * S::LANES * GROUP;
    // SAFETY: the caller promises the rows and the panel, and room for the sums.
    unsafe {
        let mut acc = [[S::load_sums(start); NR]; MR];
        for j in 1..NR {
            let start = S::load_sums(start.add(j * S::LANES));
            for i in 0..MR {
                acc[i][j] = start;
            }
        }
        for _ in 0..if P::PAIRS { groups.div_ceil(2) } else { groups / 2 } {
            let mut b = [[S::load_weights(w), S::load_weights(w.add(next_group))]; NR];
            for j in 1..NR {
                let w = w.add(j * S::LANES * GROUP);
                b[j] = [S::load_weights(w), S::load_weights(w.add(next_group))];
            }
            for i in 0..MR {
                let x = x.add(i * x_stride);
                let a = [S::broadcast(x), S::broadcast(x.add(GROUP))];
                for j in 0..NR {
                    acc[i][j] = P::dot_two(acc[i][j], a, b[j]);
                }
            }
            x = x.wrapping_add(2 * GROUP);
            w = w.wrapping_add(2 * next_group);
        }
        if !P::PAIRS && groups % 2 == 1 {
            for i in 0..MR {
                let a = S::broadcast(x.add(i * x_stride));
                for j in 0..NR {
                    acc[i][j] = P::dot(acc[i][j], a, S::load_weights(w.add(j * S::LANES * GROUP)));
                }
            }
        }
        for i in 0..MR {
            for j in 0..NR {
                S::store_sums(sums.add((i * NR + j) * S::LANES), acc[i][j]);
            }
        }
    }
}

/// With the instructions of the level itself.
pub(crate) struct Plain;

impl<S: Int8> ByteProduct<S> for Plain {
    #[inline(always)]
    unsafe fn dot(sums: S::A, x: S::B, w: S::B) -> S::A {
        // SAFETY: as for the caller.
        unsafe { S::dot(sums, x, w) }
    }
}

/// As [`Plain`] for weights that are [`joint`](crate::simd::int8::joint): two groups are added before they are widened.
pub(crate) struct Joint;

impl<S: Int8> ByteProduct<S> for Joint {
    const TILE: usize = S::JOINT_TILE;
    const HALF_TILE: usize = S::JOINT_HALF_TILE;
    const PAIRS: bool = true;

    #[inline(always)]
    unsafe fn dot(sums: S::A, x: S::B, w: S::B) -> S::A {
        // SAFETY: as for the caller.
        unsafe { S::dot(sums, x, w) }
    }

    #[inline(always)]
    unsafe fn dot_two(sums: S::A, x: [S::B; 2], w: [S::B; 2]) -> S::A {
        // SAFETY: as for the caller, who promises joint weights.
        unsafe { S::dot_joint(sums, x, w) }
    }

    #[inline(always)]
    unsafe fn sums<const MR: usize, const NR: usize>(tile: &ByteTile) {
        // SAFETY: as for the caller, who promises joint weights.
        unsafe { S::joint_sums::<MR, NR>(tile) }
    }
}

/// With `vpdpbusd`: AVX-512 VNNI on 512-bit vectors, AVX-VNNI on 256-bit ones.
#[cfg(target_arch = "x86_64")]
pub(crate) struct Vnni;
