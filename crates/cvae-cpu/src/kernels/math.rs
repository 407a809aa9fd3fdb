//! Vector forms of the transcendental functions, accurate to a few units in the last place.

use crate::simd::Simd;

/// Reduces `x` to `n·ln 2 + r` with `|r| ≤ ½ ln 2`; returns (`2^n`, `r`). `x` is clamped to ±87.
#[inline(always)]
unsafe fn reduce<S: Simd>(x: S::V) -> (S::V, S::V) {
    // SAFETY: register operations only.
    unsafe {
        // The bounds come first so that NaN passes through.
        let x = S::min(S::splat(87.0), S::max(S::splat(-87.0), x));
        let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        let r = S::fnma(n, S::splat(0.693_359_4), x);
        (S::exp2i(n), S::fnma(n, S::splat(-2.121_944_4e-4), r))
    }
}

/// `(e^r − 1 − r) / r²` for `|r| ≤ ½ ln 2` (minimax polynomial of the Cephes library's `expf`).
#[inline(always)]
unsafe fn tail<S: Simd>(r: S::V) -> S::V {
    // SAFETY: register operations only.
    unsafe {
        let mut p = S::splat(1.987_569_1e-4);
        for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = S::fma(p, r, S::splat(c));
        }
        p
    }
}

/// `e^x`; saturates at `e^±87`.
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    // SAFETY: register operations only.
    unsafe {
        let (scale, r) = reduce::<S>(x);
        let y = S::add(S::fma(S::mul(r, r), tail::<S>(r), r), S::splat(1.0));
        S::mul(y, scale)
    }
}

/// `e^x − 1`, accurate near zero.
#[inline(always)]
pub(crate) unsafe fn exp_m1<S: Simd>(x: S::V) -> S::V {
    // SAFETY: register operations only.
    unsafe {
        let (scale, r) = reduce::<S>(x);
        let y = S::fma(S::mul(r, r), tail::<S>(r), r);
        S::fma(scale, y, S::sub(scale, S::splat(1.0)))
    }
}

/// `ln(1 + y)` for `0 ≤ y ≤ 1`, as `2·artanh(y / (2 + y))`.
#[inline(always)]
pub(crate) unsafe fn ln_1p<S: Simd>(y: S::V) -> S::V {
    // SAFETY: register operations only.
    unsafe {
        let s = S::div(y, S::add(y, S::splat(2.0)));
        let z = S::mul(s, s);
        let mut p = S::splat(1.0 / 15.0);
        for c in [1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 0.2, 1.0 / 3.0] {
            p = S::fma(p, z, S::splat(c));
        }
        let s = S::add(s, s);
        S::fma(S::mul(s, z), p, s)
    }
}

/// `1 / (1 + e^−x)`
#[inline(always)]
pub(crate) unsafe fn sigmoid<S: Simd>(x: S::V) -> S::V {
    // SAFETY: register operations only.
    unsafe {
        let e = exp::<S>(S::sub(S::splat(0.0), x));
        S::div(S::splat(1.0), S::add(S::splat(1.0), e))
    }
}

/// `tanh(x)` through `e^(−2|x|) − 1`, accurate near zero.
#[inline(always)]
pub(crate) unsafe fn tanh<S: Simd>(x: S::V) -> S::V {
    // SAFETY: register operations only.
    unsafe {
        let t = exp_m1::<S>(S::mul(S::splat(-2.0), S::abs(x)));
        let y = S::div(t, S::add(t, S::splat(2.0)));
        // `y` is −tanh|x|.
        S::select(S::gt(x, S::splat(0.0)), S::sub(S::splat(0.0), y), y)
    }
}

/// The normal distribution function Φ(x), by the rational Chebyshev fit of `erfc` in Numerical Recipes
/// (Press et al., section 6.2; relative error below 1.2e-7).
#[inline(always)]
pub(crate) unsafe fn normal_cdf<S: Simd>(x: S::V) -> S::V {
    // SAFETY: register operations only.
    unsafe {
        let z = S::mul(S::abs(x), S::splat(std::f32::consts::FRAC_1_SQRT_2));
        let t = S::div(S::splat(1.0), S::fma(S::splat(0.5), z, S::splat(1.0)));
        let mut p = S::splat(0.170_872_77);
        for c in [
            -0.822_152_23,
            1.488_515_9,
            -1.135_204,
            0.278_868_07,
            -0.186_288_06,
            0.096_784_18,
            0.374_091_96,
            1.000_023_7,
            -1.265_512_2,
        ] {
            p = S::fma(p, t, S::splat(c));
        }
        let half = S::mul(S::mul(S::splat(0.5), t), exp::<S>(S::fnma(z, z, p)));
        S::select(S::gt(x, S::splat(0.0)), S::sub(S::splat(1.0), half), half)
    }
}
