//! The tiles of [`crate::simd::byte_product::Joint`] with AVX2, in assembly.
//!
//! Eight sums, four vectors of weights, two of activations and two of products leave no register for the ones that add
//! neighbours. The compiler keeps them in one all the same, and has sums and addresses come and go in every turn.

use std::arch::asm;

use super::byte_product::ByteTile;
use super::int8::GROUP;

/// The operand that adds neighbours.
#[repr(align(32))]
struct Ones([i16; 16]);

static ONES: Ones = Ones([1; 16]);

/// The pair of groups at `$x`, in `ymm12` and `ymm13`.
macro_rules! pair {
    ($x:literal) => {
        concat!("vpbroadcastd ymm12, dword ptr [", $x, "]\nvpbroadcastd ymm13, dword ptr [", $x, " + 4]")
    };
}

/// A pair meets the weights `$w0` and `$w1`, and is added to `$sums`; `ymm14` and `ymm15` hold what is between.
macro_rules! add {
    ($w0:literal, $w1:literal, $sums:literal) => {
        concat!(
            concat!("vpmaddubsw ymm14, ymm12, ", $w0, "\nvpmaddubsw ymm15, ymm13, ", $w1),
            "\nvpaddw ymm14, ymm14, ymm15\nvpmaddwd ymm14, ymm14, [{ones}]",
            concat!("\nvpaddd ", $sums, ", ", $sums, ", ymm14"),
        )
    };
}

/// A whole tile: `$begin` fills `ymm0` to `ymm7`, which are the sums, and `$step` adds a pair of groups to them. Rows are reached
/// from `x`, the first, and from each `$pointer`, row `$row`.
macro_rules! tile {
    ($tile:expr, [$($begin:literal),* $(,)?], [$($step:expr),* $(,)?], [$($pointer:ident: $row:literal),*]) => {{
        let ByteTile { groups, x, x_stride, w, start, sums } = *$tile;
        debug_assert!(groups > 0 && w.addr().is_multiple_of(32), "`vmovdqa` and a loop that ends with its condition");
        asm!(
            $($begin,)*
            "2:",
            $($step,)*
            "add {x}, {step}",
            $(concat!("add {", stringify!($pointer), "}, {step}"),)*
            "sub {w}, -128",
            "dec {pairs}",
            "jnz 2b",
            "vmovdqu [{sums}], ymm0",
            "vmovdqu [{sums} + 32], ymm1",
            "vmovdqu [{sums} + 64], ymm2",
            "vmovdqu [{sums} + 96], ymm3",
            "vmovdqu [{sums} + 128], ymm4",
            "vmovdqu [{sums} + 160], ymm5",
            "vmovdqu [{sums} + 192], ymm6",
            "vmovdqu [{sums} + 224], ymm7",
            x = inout(reg) x => _,
            $($pointer = inout(reg) x.add($row * x_stride) => _,)*
            stride = in(reg) x_stride,
            step = const 2 * GROUP,
            w = inout(reg) w => _,
            pairs = inout(reg) groups.div_ceil(2) => _,
            ones = in(reg) &raw const ONES.0,
            start = in(reg) start,
            sums = in(reg) sums,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
            out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
            out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nostack),
        );
    }};
}

/// Sums of four rows and two vectors of outputs.
///
/// # Safety
/// The processor has AVX2, the weights are joint, and everything the tile points to is there; groups are taken by twos.
#[inline(always)]
pub(super) unsafe fn four_rows(tile: &ByteTile) {
    // SAFETY: the caller's promise; four rows of two sums are written.
    unsafe {
        tile!(
            tile,
            [
                "vmovdqu ymm0, [{start}]",
                "vmovdqu ymm1, [{start} + 32]",
                "vmovdqa ymm2, ymm0",
                "vmovdqa ymm3, ymm1",
                "vmovdqa ymm4, ymm0",
                "vmovdqa ymm5, ymm1",
                "vmovdqa ymm6, ymm0",
                "vmovdqa ymm7, ymm1",
            ],
            [
                "vmovdqa ymm8, [{w}]",
                "vmovdqa ymm9, [{w} + 32]",
                "vmovdqa ymm10, [{w} + 64]",
                "vmovdqa ymm11, [{w} + 96]",
                pair!("{x}"),
                add!("ymm8", "ymm10", "ymm0"),
                add!("ymm9", "ymm11", "ymm1"),
                pair!("{x} + {stride}"),
                add!("ymm8", "ymm10", "ymm2"),
                add!("ymm9", "ymm11", "ymm3"),
                pair!("{x} + 2 * {stride}"),
                add!("ymm8", "ymm10", "ymm4"),
                add!("ymm9", "ymm11", "ymm5"),
                pair!("{last}"),
                add!("ymm8", "ymm10", "ymm6"),
                add!("ymm9", "ymm11", "ymm7"),
            ],
            [last: 3]
        );
    }
}

/// Sums of eight rows and one vector of outputs.
///
/// # Safety
/// As for [`four_rows`].
#[inline(always)]
pub(super) unsafe fn eight_rows(tile: &ByteTile) {
    // SAFETY: the caller's promise; eight rows of one sum are written.
    unsafe {
        tile!(
            tile,
            [
                "vmovdqu ymm0, [{start}]",
                "vmovdqa ymm1, ymm0",
                "vmovdqa ymm2, ymm0",
                "vmovdqa ymm3, ymm0",
                "vmovdqa ymm4, ymm0",
                "vmovdqa ymm5, ymm0",
                "vmovdqa ymm6, ymm0",
                "vmovdqa ymm7, ymm0",
            ],
            [
                "vmovdqa ymm8, [{w}]",
                "vmovdqa ymm9, [{w} + 64]",
                pair!("{x}"),
                add!("ymm8", "ymm9", "ymm0"),
                pair!("{x} + {stride}"),
                add!("ymm8", "ymm9", "ymm1"),
                pair!("{x} + 2 * {stride}"),
                add!("ymm8", "ymm9", "ymm2"),
                pair!("{middle}"),
                add!("ymm8", "ymm9", "ymm3"),
                pair!("{middle} + {stride}"),
                add!("ymm8", "ymm9", "ymm4"),
                pair!("{middle} + 2 * {stride}"),
                add!("ymm8", "ymm9", "ymm5"),
                pair!("{last}"),
                add!("ymm8", "ymm9", "ymm6"),
                pair!("{last} + {stride}"),
                add!("ymm8", "ymm9", "ymm7"),
            ],
            [middle: 3, last: 6]
        );
    }
}
