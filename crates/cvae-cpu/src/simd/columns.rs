//! The innermost loop of weight gradients with AVX2, in assembly.
//!
//! A panel of the batch has 16 columns. The compiler either counts them in a loop or, where it unrolls that, no longer keeps the sums in
//! registers; here 16 columns are a turn, with every address a constant away from two pointers.

use std::arch::asm;
use std::arch::x86_64::__m256;

/// Row `$row` of a column meets the vectors of the panel.
macro_rules! row {
    ($row:literal, $k:literal, $low:literal, $high:literal) => {
        concat!(
            concat!("vbroadcastss ymm14, dword ptr [{a} + 64 * ", $row, " + 4 * ", $k, "]"),
            concat!("\nvfmadd231ps ", $low, ", ymm12, ymm14"),
            concat!("\nvfmadd231ps ", $high, ", ymm13, ymm14"),
        )
    };
}

/// Column `$k` of all rows.
macro_rules! column {
    ($k:literal) => {
        concat!(
            concat!("vmovups ymm12, [{p} + 64 * ", $k, "]"),
            concat!("\nvmovups ymm13, [{p} + 64 * ", $k, " + 32]\n"),
            row!(0, $k, "ymm0", "ymm1"),
            "\n",
            row!(1, $k, "ymm2", "ymm3"),
            "\n",
            row!(2, $k, "ymm4", "ymm5"),
            "\n",
            row!(3, $k, "ymm6", "ymm7"),
            "\n",
            row!(4, $k, "ymm8", "ymm9"),
            "\n",
            row!(5, $k, "ymm10", "ymm11"),
        )
    };
}

/// `sums[i] += Σ_k a[i][k] · p[k]` over `panels` whole panels of `a`, `[row][16]`, that are `a_stride` floats apart.
///
/// # Safety
/// The processor has AVX2 and FMA; six rows of every panel and 16 vectors of `p` for each are there, and six sums.
#[inline(always)]
pub(super) unsafe fn six_rows(panels: usize, a: *const f32, a_stride: usize, p: *const f32, sums: *mut __m256) {
    debug_assert!(panels > 0, "a loop that ends with its condition");
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "vmovups ymm0, [{sums}]",
            "vmovups ymm1, [{sums} + 32]",
            "vmovups ymm2, [{sums} + 64]",
            "vmovups ymm3, [{sums} + 96]",
            "vmovups ymm4, [{sums} + 128]",
            "vmovups ymm5, [{sums} + 160]",
            "vmovups ymm6, [{sums} + 192]",
            "vmovups ymm7, [{sums} + 224]",
            "vmovups ymm8, [{sums} + 256]",
            "vmovups ymm9, [{sums} + 288]",
            "vmovups ymm10, [{sums} + 320]",
            "vmovups ymm11, [{sums} + 352]",
            "2:",
            column!(0),
            column!(1),
            column!(2),
            column!(3),
            column!(4),
            column!(5),
            column!(6),
            column!(7),
            column!(8),
            column!(9),
            column!(10),
            column!(11),
            column!(12),
            column!(13),
            column!(14),
            column!(15),
            "add {p}, 1024",
            "add {a}, {step}",
            "dec {panels}",
            "jnz 2b",
            "vmovups [{sums}], ymm0",
            "vmovups [{sums} + 32], ymm1",
            "vmovups [{sums} + 64], ymm2",
            "vmovups [{sums} + 96], ymm3",
            "vmovups [{sums} + 128], ymm4",
            "vmovups [{sums} + 160], ymm5",
            "vmovups [{sums} + 192], ymm6",
            "vmovups [{sums} + 224], ymm7",
            "vmovups [{sums} + 256], ymm8",
            "vmovups [{sums} + 288], ymm9",
            "vmovups [{sums} + 320], ymm10",
            "vmovups [{sums} + 352], ymm11",
            a = inout(reg) a => _,
            p = inout(reg) p => _,
            step = in(reg) a_stride * size_of::<f32>(),
            panels = inout(reg) panels => _,
            sums = in(reg) sums,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
            out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
            out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            out("ymm12") _, out("ymm13") _, out("ymm14") _,
            options(nostack),
        );
    }
}
