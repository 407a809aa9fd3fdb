//! The arithmetic limit of an instruction set, against which kernels are measured.

use std::hint::black_box;

use crate::simd::Simd;

/// Turns of one block.
const TURNS: u64 = 50_000;

/// Runs independent chains of multiply-adds, enough to hide their latency; returns the operations done, two
/// per multiply-add.
///
/// # Safety
/// The instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn multiply_adds<S: Simd>() -> u64 {
    const CHAINS: usize = 12;
    // SAFETY: register operations, and stores into an array that is large enough for any level.
    unsafe {
        let (x, y) = (S::splat(black_box(0.999)), S::splat(black_box(1e-3)));
        let mut sums = [S::splat(0.0); CHAINS];
        for _ in 0..TURNS {
            for i in 0..CHAINS {
                sums[i] = S::fma(sums[i], x, y);
            }
        }
        let mut out = [0.0f32; 16];
        for sum in sums {
            S::store(out.as_mut_ptr(), sum);
            black_box(&out);
        }
    }
    TURNS * (CHAINS * S::LANES * 2) as u64
}
