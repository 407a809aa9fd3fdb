//! Intel AMX: tiles of bfloat16.

use std::arch::asm;

use crate::kernels::tiles::{Chain, ROWS, Unit};

/// The tile unit of processors with AMX-BF16.
pub(crate) struct Amx;

/// What `ldtilecfg` reads: tiles 0 to 4 have 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Two tiles of sums, one of the first factor, two of the second.
static SHAPES: Shapes = {
    let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
    let mut tile = 0;
    while tile < 5 {
        (row_bytes[tile], rows[tile]) = (64, ROWS as u8);
        tile += 1;
    }
    Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
};

/// Whether the processor has AMX-BF16 and the system lets this process use it, for which it is asked.
pub(crate) fn available() -> bool {
    has_unit() && permitted()
}

/// AMX-BF16 and AMX-TILE by the processor's own word.
fn has_unit() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    const BOTH: u32 = 1 << 22 | 1 << 24;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & BOTH == BOTH
}

/// Linux keeps the tiles' 8 KiB of every thread only for processes that ask; asking again changes nothing.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory of the program.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// A chain of products in the instructions given: those before, in and after its loop. Sums are tiles 0 and 1, factors
/// tiles 2 to 4.
macro_rules! multiply {
    ($chain:expr, $sums:expr, [$($before:literal),*], [$($step:literal),*], [$($after:literal),*]) => {{
        let Chain { a, a_row, a_step, b, b_step, steps } = *$chain;
        asm!(
            $($before,)*
            "2:",
            $($step,)*
            "add {a}, {a_step}",
            "add {b}, {b_step}",
            "dec {steps}",
            "jnz 2b",
            $($after,)*
            a = inout(reg) a => _,
            b = inout(reg) b => _,
            steps = inout(reg) steps => _,
            a_row = in(reg) 2 * a_row,
            a_step = in(reg) 2 * a_step,
            b_row = in(reg) 8 * ROWS,
            b_step = in(reg) 2 * b_step,
            sums = in(reg) $sums,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _,
            options(nostack),
        );
    }};
}

impl Unit for Amx {
    #[inline(always)]
    unsafe fn multiply(chain: &Chain, _rows: usize, both: bool, sums: *mut f32) {
        // SAFETY: the caller promises the tiles at every step, and 16 rows of sums are there. Sums of rows that do not
        // count are made of whatever lies behind the rows that do.
        unsafe {
            if both {
                multiply!(
                    chain,
                    sums,
                    ["tilezero tmm0", "tilezero tmm1"],
                    [
                        "tileloadd tmm2, [{a} + {a_row}]",
                        "tileloadd tmm3, [{b} + {b_row}]",
                        "tileloadd tmm4, [{b} + {b_row} + 64]",
                        "tdpbf16ps tmm0, tmm2, tmm3",
                        "tdpbf16ps tmm1, tmm2, tmm4"
                    ],
                    ["tilestored [{sums} + {b_row}], tmm0", "tilestored [{sums} + {b_row} + 64], tmm1"]
                );
            } else {
                multiply!(
                    chain,
                    sums,
                    ["tilezero tmm0"],
                    [
                        "tileloadd tmm2, [{a} + {a_row}]",
                        "tileloadd tmm3, [{b} + {b_row}]",
                        "tdpbf16ps tmm0, tmm2, tmm3"
                    ],
                    ["tilestored [{sums} + {b_row}], tmm0"]
                );
            }
        }
    }

    #[inline(always)]
    unsafe fn enter() {
        // SAFETY: the unit is there, by promise.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const SHAPES, options(nostack, preserves_flags, readonly)) }
    }

    #[inline(always)]
    unsafe fn leave() {
        // SAFETY: the unit is there, by promise.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) }
    }
}
