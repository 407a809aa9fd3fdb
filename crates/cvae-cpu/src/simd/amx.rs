//! Intel AMX: tiles of bfloat16 and of bytes.

use std::arch::asm;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::kernels::byte_tiles::{ByteChain, ByteUnit, GROUPS};
use crate::kernels::tiles::{Bf16Unit, Chain, DEPTH, ROWS, Unit};
use crate::simd::int8::GROUP;

/// The tile unit of processors with AMX-BF16, AMX-INT8 or both.
pub(crate) struct Amx;

/// What `ldtilecfg` reads: all eight tiles have 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static SHAPES: Shapes = {
    let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
    let mut tile = 0;
    while tile < 8 {
        (row_bytes[tile], rows[tile]) = (64, ROWS as u8);
        tile += 1;
    }
    Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
};

/// What this process may use: nothing is known yet while it is 0.
static FOUND: AtomicU8 = AtomicU8::new(0);
const KNOWN: u8 = 1;
const BF16: u8 = 2;
const INT8: u8 = 4;

/// Whether the processor has AMX-BF16 and the system lets this process use it.
pub(crate) fn has_bf16() -> bool {
    found() & BF16 != 0
}

/// Whether the processor has AMX-INT8 and the system lets this process use it.
pub(crate) fn has_int8() -> bool {
    found() & INT8 != 0
}

/// Asks once, since a virtual machine answers slowly; threads that ask at the same time find the same.
fn found() -> u8 {
    match FOUND.load(Ordering::Relaxed) {
        0 => {
            let units = units();
            let found = KNOWN | if units != 0 && permitted() { units } else { 0 };
            FOUND.store(found, Ordering::Relaxed);
            found
        }
        found => found,
    }
}

/// AMX-BF16 and AMX-INT8, each beside AMX-TILE, by the processor's own word.
fn units() -> u8 {
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    let features = if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).edx } else { 0 };
    let has = |bit: u32| features & (1 << bit) != 0;
    let unit = |bit: u32, unit: u8| if has(24) && has(bit) { unit } else { 0 };
    unit(22, BF16) | unit(25, INT8)
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
        let Chain { a, a_step, b, steps } = *$chain;
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
            a_row = in(reg) 2 * DEPTH,
            a_step = in(reg) 2 * a_step,
            b_row = in(reg) 8 * ROWS,
            b_step = const 2 * DEPTH * DEPTH,
            sums = in(reg) $sums,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _,
            options(nostack),
        );
    }};
}

impl Unit for Amx {
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

impl Bf16Unit for Amx {
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
}

/// A chain of bytes in the instructions given: those before, in and after its loop, and operands that only they use.
/// Sums are tiles 0 to 3, factors tiles 4 to 7; a stride of 0 makes all rows of a tile alike.
macro_rules! multiply_bytes {
    (
        $chain:expr,
        [$($operand:tt)*],
        [$($before:literal),*],
        [$($step:literal),*],
        [$($after:literal),*]
    ) => {{
        let ByteChain { x, stride, w, start, sums, steps } = *$chain;
        asm!(
            $($before,)*
            "2:",
            $($step,)*
            "add {x}, 64",
            "add {w}, {w_step}",
            "dec {steps}",
            "jnz 2b",
            $($after,)*
            x = inout(reg) x => _,
            w = inout(reg) w => _,
            steps = inout(reg) steps => _,
            x_row = in(reg) stride,
            row = in(reg) 2 * ROWS * GROUP,
            start = in(reg) start,
            alike = in(reg) 0usize,
            sums = in(reg) sums,
            w_step = const 2 * ROWS * GROUP * GROUPS,
            $($operand)*
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }};
}

impl ByteUnit for Amx {
    #[inline(always)]
    unsafe fn multiply<const BLOCKS: usize>(chain: &ByteChain) {
        const { assert!(BLOCKS == 1 || BLOCKS == 2) };
        // SAFETY: the caller promises the tiles at every step, and the sums of all rows.
        unsafe {
            if BLOCKS == 2 {
                multiply_bytes!(
                    chain,
                    [second = inout(reg) chain.x.wrapping_add(ROWS * chain.stride) => _,],
                    [
                        "tileloadd tmm0, [{start} + {alike}]",
                        "tileloadd tmm1, [{start} + {alike} + 64]",
                        "tileloadd tmm2, [{start} + {alike}]",
                        "tileloadd tmm3, [{start} + {alike} + 64]"
                    ],
                    [
                        "tileloadd tmm4, [{x} + {x_row}]",
                        "tileloadd tmm6, [{w} + {row}]",
                        "tileloadd tmm7, [{w} + {row} + 64]",
                        "tdpbusd tmm0, tmm4, tmm6",
                        "tileloadd tmm5, [{second} + {x_row}]",
                        "tdpbusd tmm1, tmm4, tmm7",
                        "tdpbusd tmm2, tmm5, tmm6",
                        "tdpbusd tmm3, tmm5, tmm7",
                        "add {second}, 64"
                    ],
                    [
                        "tilestored [{sums} + {row}], tmm0",
                        "tilestored [{sums} + {row} + 64], tmm1",
                        "tilestored [{sums} + {row} + 2048], tmm2",
                        "tilestored [{sums} + {row} + 2112], tmm3"
                    ]
                );
            } else {
                multiply_bytes!(
                    chain,
                    [],
                    ["tileloadd tmm0, [{start} + {alike}]", "tileloadd tmm1, [{start} + {alike} + 64]"],
                    [
                        "tileloadd tmm4, [{x} + {x_row}]",
                        "tileloadd tmm6, [{w} + {row}]",
                        "tileloadd tmm7, [{w} + {row} + 64]",
                        "tdpbusd tmm0, tmm4, tmm6",
                        "tdpbusd tmm1, tmm4, tmm7"
                    ],
                    ["tilestored [{sums} + {row}], tmm0", "tilestored [{sums} + {row} + 64], tmm1"]
                );
            }
        }
    }
}
