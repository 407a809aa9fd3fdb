//! The encoder's input in training: marks and missing values. Formulas: docs/MATH.md, "Corruption".

use super::element::Block;
use crate::simd::Simd;

/// `output = value` where `mark` is 0 or, with `keep`, where it is not; 0 elsewhere.
///
/// # Safety
/// A block of floats behind each pointer; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn select<S: Simd>(block: &Block, keep: bool, value: *const f32, mark: *const f32, output: *mut f32) {
    // SAFETY: `block.vectors` stays inside the block.
    unsafe {
        let zero = S::splat(0.0);
        for at in block.vectors::<S>() {
            let marked = S::gt(S::abs(S::load(mark.add(at))), zero);
            let value = S::load(value.add(at));
            let (marked_value, other) = if keep { (value, zero) } else { (zero, value) };
            S::store(output.add(at), S::select(marked, marked_value, other));
        }
    }
}

/// `output = input` with 0 for NaN; `weights`, if not null, are 0 for NaN and 1 for a number.
///
/// # Safety
/// A block of floats behind each pointer that is not null; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn observe<S: Simd>(block: &Block, input: *const f32, output: *mut f32, weights: *mut f32) {
    // SAFETY: `block.vectors` stays inside the block.
    unsafe {
        let (zero, one) = (S::splat(0.0), S::splat(1.0));
        for at in block.vectors::<S>() {
            let x = S::load(input.add(at));
            // NaN is neither above nor below.
            let (above, below) = (S::gt(x, zero), S::gt(zero, x));
            S::store(output.add(at), S::select(above, x, S::select(below, x, zero)));
            if !weights.is_null() {
                let low = S::select(S::gt(one, x), one, zero);
                S::store(weights.add(at), S::select(above, one, low));
            }
        }
    }
}
