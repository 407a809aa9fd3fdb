//! One table of entry points per instruction set.

#[cfg(test)]
use super::byte_tiles::EmulatedBytes;
#[cfg(any(test, target_arch = "x86_64"))]
use super::byte_tiles::{BLOCK_ROWS, GROUPS, dense_i8_tiles};
use super::dense::Dense;
use super::dense_bf16::{DenseBf16, Narrow, Widened};
use super::dense_i8::{DenseI8, Quantize};
use super::element::{Block, Element};
use super::gather::{BatchMajor, Gather};
use super::linear::{Expand, Partial, Reduce};
use super::linear_grad::{BiasGrad, WeightGrad};
use super::mmd::Pairs as PairsOfRows;
use super::optimizer::Apply;
use super::product::{Floats, Pairs};
use super::rounding::Rounding;
#[cfg(test)]
use super::tiles::Emulated;
#[cfg(any(test, target_arch = "x86_64"))]
use super::tiles::{Tiled, Unit};
use crate::simd::Simd;
#[cfg(target_arch = "x86_64")]
use crate::simd::amx::Amx;
use crate::simd::bf16::Bf16;
use crate::simd::byte_product::{Joint, Plain};

/// The kernels of one instruction set and the geometry they assume.
pub(crate) struct Kernels {
    /// Floats in a vector; a panel is two vectors wide.
    pub(crate) lanes: usize,
    /// Rows of the register tile of a frozen layer.
    pub(crate) tile: usize,
    pub(crate) partial: unsafe fn(&Partial),
    pub(crate) expand: unsafe fn(&Expand),
    pub(crate) reduce: unsafe fn(&Reduce<'_>),
    pub(crate) weight_grad: unsafe fn(&WeightGrad<'_>),
    pub(crate) bias_grad: unsafe fn(&BiasGrad),
    pub(crate) element: unsafe fn(&Block, &Element) -> f64,
    pub(crate) pairs: unsafe fn(&PairsOfRows) -> f64,
    pub(crate) gather: unsafe fn(&Gather),
    pub(crate) batch_major: unsafe fn(&BatchMajor),
    pub(crate) apply: unsafe fn(&Apply),
    pub(crate) square_sum: unsafe fn(*const f32, usize) -> f64,
    pub(crate) multiply_adds: unsafe fn() -> u64,
    pub(crate) dense: unsafe fn(&Dense),
    pub(crate) dense_half: unsafe fn(&Dense),
    pub(crate) dense_bf16: unsafe fn(&DenseBf16),
    pub(crate) dense_i8: unsafe fn(&DenseI8),
    /// Names of `dense_i8` for any weights and for joint ones.
    pub(crate) dense_i8_names: [&'static str; 2],
    /// `dense_i8` may read and write as many rows as a multiple of this, whatever those beyond its own hold.
    pub(crate) byte_rows: usize,
    /// Rows that `dense_i8` takes at a time.
    pub(crate) byte_tile: usize,
    /// Panels of `dense_i8` have a multiple of as many groups.
    pub(crate) byte_groups: usize,
    pub(crate) quantize: unsafe fn(&Quantize),
    /// The products of a level that rounds their operands to bfloat16.
    pub(crate) rounded: Option<&'static RoundedKernels>,
}

impl Kernels {
    /// Width of a panel in floats.
    pub(crate) fn panel(&self) -> usize {
        2 * self.lanes
    }
}

/// Defines a module with a `KERNELS` table: every generic kernel, compiled for `$simd` under `$feature`.
macro_rules! level {
    ($d:tt $(#[$cfg:meta])* $name:ident, $simd:ty $(, $feature:literal)?) => {
        $(#[$cfg])*
        pub(crate) mod $name {
            use super::*;
            use crate::kernels::{
                dense, dense_bf16, dense_i8, element, gather, linear, linear_grad, mmd, optimizer, peak,
            };

            macro_rules! entry {
                ($kernel:ident, $path:path, ($d($arg:ident: $ty:ty),*) $d(-> $ret:ty)?) => {
                    /// # Safety
                    /// As the generic kernel of this name.
                    $(#[target_feature(enable = $feature)])?
                    unsafe fn $kernel($d($arg: $ty),*) $d(-> $ret)? {
                        // SAFETY: the caller's promise; the attribute above provides the instruction set.
                        unsafe { $path($d($arg),*) }
                    }
                };
            }

            entry!(partial, linear::partial::<$simd, Floats>, (q: &Partial));
            entry!(expand, linear::expand::<$simd, Floats>, (q: &Expand));
            entry!(reduce, linear::reduce::<$simd>, (q: &Reduce<'_>));
            entry!(weight_grad, linear_grad::weight_grad::<$simd, Floats>, (q: &WeightGrad<'_>));
            entry!(bias_grad, linear_grad::bias_grad::<$simd>, (q: &BiasGrad));
            entry!(element_block, element::element::<$simd>, (block: &Block, op: &Element) -> f64);
            entry!(pairs, mmd::pairs::<$simd>, (q: &PairsOfRows) -> f64);
            entry!(gather_panel, gather::gather::<$simd>, (q: &Gather));
            entry!(batch_major, gather::batch_major::<$simd>, (q: &BatchMajor));
            entry!(apply, optimizer::apply::<$simd>, (q: &Apply));
            entry!(square_sum, optimizer::square_sum::<$simd>, (p: *const f32, count: usize) -> f64);

            entry!(multiply_adds, peak::multiply_adds::<$simd>, () -> u64);
            entry!(dense_layer, dense::dense::<$simd>, (q: &Dense));
            entry!(dense_half, dense::dense_half::<$simd>, (q: &Dense));
            entry!(dense_layer_bf16, dense_bf16::dense_bf16::<$simd, Widened>, (q: &DenseBf16));
            entry!(dense_layer_i8, dense_i8::dense_i8::<$simd, Plain, Joint>, (q: &DenseI8));
            entry!(quantize, dense_i8::quantize::<$simd>, (q: &Quantize));

            /// The table.
            pub(crate) static KERNELS: Kernels = Kernels {
                lanes: <$simd as Simd>::LANES,
                tile: <$simd as Simd>::TILE,
                partial,
                expand,
                reduce,
                weight_grad,
                bias_grad,
                element: element_block,
                pairs,
                gather: gather_panel,
                batch_major,
                apply,
                square_sum,
                multiply_adds,
                dense: dense_layer,
                dense_half,
                dense_bf16: dense_layer_bf16,
                dense_i8: dense_layer_i8,
                dense_i8_names: ["dense_i8", "dense_i8, joint groups"],
                byte_rows: 1,
                byte_tile: dense_i8::rows::<$simd, Joint>(),
                byte_groups: 2,
                quantize,
                rounded: None,
            };
        }
    };
}

level!($ portable, crate::simd::portable::Portable<4, 4>);
level!($ #[cfg(target_arch = "x86_64")] avx2, crate::simd::avx2::Avx2, "avx2,fma");
level!(
    $ #[cfg(target_arch = "x86_64")] avx512,
    crate::simd::avx512::Avx512,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"
);
level!($ #[cfg(target_arch = "aarch64")] neon, crate::simd::neon::Neon);

/// Kernels whose operands are rounded to bfloat16; sums, and all that follows them, are floats.
pub(crate) struct RoundedKernels {
    pub(crate) partial: unsafe fn(&Partial<Bf16>),
    pub(crate) expand: unsafe fn(&Expand<Bf16>),
    pub(crate) weight_grad: unsafe fn(&WeightGrad<'_, Bf16>),
    pub(crate) round: unsafe fn(&Rounding),
    /// The same for weights: in the place of pairs it writes what `expand` reads.
    pub(crate) round_weights: unsafe fn(&Rounding),
    /// Rows of a weight that `expand` takes at a time: room for whole ones is needed.
    pub(crate) expand_rows: usize,
    pub(crate) dense: unsafe fn(&DenseBf16<Bf16>),
    pub(crate) narrow: unsafe fn(&Narrow),
    /// Prepares a thread for the products of training.
    pub(crate) enter: unsafe fn(),
    /// Ends what `enter` began.
    pub(crate) leave: unsafe fn(),
}

/// Defines a module with the kernels of `$simd` under `$feature` that round and multiply by `$product`, in a table
/// otherwise that of `$level`. `$weights` rounds weights, of which products take `$rows` rows at a time; `$enter` and
/// `$leave` bracket training steps.
macro_rules! rounded_level {
    (
        $(#[$cfg:meta])* $name:ident, $level:ident, $simd:ty, $product:ty,
        [$weights:path, $rows:expr], [$enter:path, $leave:path] $(, $feature:literal)?
    ) => {
        $(#[$cfg])*
        pub(crate) mod $name {
            use super::*;
            use crate::kernels::dense_bf16::{self, Rounded};
            use crate::kernels::{linear, linear_grad, rounding};

            macro_rules! entry {
                ($kernel:ident, $path:path, $ty:ty) => {
                    /// # Safety
                    /// As the generic kernel of this name.
                    $(#[target_feature(enable = $feature)])?
                    unsafe fn $kernel(q: &$ty) {
                        // SAFETY: the caller's promise; the attribute above provides the instruction set.
                        unsafe { $path(q) }
                    }
                };
            }

            entry!(partial, linear::partial::<$simd, $product>, Partial<Bf16>);
            entry!(expand, linear::expand::<$simd, $product>, Expand<Bf16>);
            entry!(weight_grad, linear_grad::weight_grad::<$simd, $product>, WeightGrad<'_, Bf16>);
            entry!(round, rounding::round::<$simd>, Rounding);
            entry!(round_weights, $weights, Rounding);
            entry!(dense, dense_bf16::dense_bf16::<$simd, Rounded>, DenseBf16<Bf16>);
            entry!(narrow, dense_bf16::narrow::<$simd>, Narrow);

            /// The table.
            pub(crate) static KERNELS: Kernels = Kernels {
                rounded: Some(&RoundedKernels {
                    partial,
                    expand,
                    weight_grad,
                    round,
                    round_weights,
                    expand_rows: $rows,
                    dense,
                    narrow,
                    enter: $enter,
                    leave: $leave,
                }),
                ..$level::KERNELS
            };
        }
    };
}

/// For levels that need no preparation.
///
/// # Safety
/// None is needed.
unsafe fn nothing() {}

rounded_level!(
    portable_bf16,
    portable,
    crate::simd::portable::Portable<4, 4>,
    Pairs,
    [crate::kernels::rounding::round::<crate::simd::portable::Portable<4, 4>>, 2],
    [nothing, nothing]
);
rounded_level!(
    #[cfg(target_arch = "x86_64")]
    avx512_bf16,
    avx512,
    crate::simd::avx512::Avx512,
    Pairs,
    [crate::kernels::rounding::round::<crate::simd::avx512::Avx512>, 2],
    [nothing, nothing],
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512bf16"
);
rounded_level!(
    #[cfg(target_arch = "x86_64")]
    amx_bf16,
    avx512,
    crate::simd::avx512::Avx512,
    Tiled<Amx>,
    [crate::kernels::tiles::round_turned::<crate::simd::avx512::Avx512>, crate::kernels::tiles::DEPTH],
    [Amx::enter, Amx::leave],
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512bf16"
);

level!($ #[cfg(test)] portable16, crate::simd::portable::Portable<16, 14>);
rounded_level!(
    #[cfg(test)]
    emulated_tiles,
    portable16,
    crate::simd::portable::Portable<16, 14>,
    Tiled<Emulated>,
    [crate::kernels::tiles::round_turned::<crate::simd::portable::Portable<16, 14>>, crate::kernels::tiles::DEPTH],
    [Emulated::enter, Emulated::leave]
);

/// Plain Rust with an emulated unit for bytes.
#[cfg(test)]
pub(crate) mod emulated_byte_tiles {
    use super::*;

    /// # Safety
    /// As the generic kernel of this name.
    unsafe fn dense_i8(q: &DenseI8) {
        // SAFETY: the caller's promise.
        unsafe { dense_i8_tiles::<crate::simd::portable::Portable<16, 14>, Plain, EmulatedBytes>(q) }
    }

    /// The table.
    pub(crate) static KERNELS: Kernels = Kernels {
        dense_i8,
        dense_i8_names: ["dense_i8, emulated tiles"; 2],
        byte_rows: BLOCK_ROWS,
        byte_tile: BLOCK_ROWS,
        byte_groups: GROUPS,
        ..portable16::KERNELS
    };
}

/// Tables of x86 levels on processors that multiply and add four bytes, or tiles of them, in one instruction.
#[cfg(target_arch = "x86_64")]
pub(crate) mod vnni {
    use super::{Amx, BLOCK_ROWS, DenseI8, GROUPS, Kernels, avx2, avx512, dense_i8_tiles};
    use crate::kernels::dense_i8::{dense_i8, rows};
    use crate::simd::avx2::Avx2;
    use crate::simd::avx512::Avx512;
    use crate::simd::byte_product::Vnni;

    const NAMES: [&str; 2] = ["dense_i8, vpdpbusd"; 2];

    /// # Safety
    /// As the generic kernel of this name.
    #[target_feature(enable = "avx2,fma,avxvnni")]
    unsafe fn dense_i8_avx2(q: &DenseI8) {
        // SAFETY: the caller's promise; the attribute above provides the instruction sets.
        unsafe { dense_i8::<Avx2, Vnni, Vnni>(q) }
    }

    /// # Safety
    /// As the generic kernel of this name.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512vnni")]
    unsafe fn dense_i8_avx512(q: &DenseI8) {
        // SAFETY: the caller's promise; the attribute above provides the instruction sets.
        unsafe { dense_i8::<Avx512, Vnni, Vnni>(q) }
    }

    /// # Safety
    /// As the generic kernel of this name, and the processor has AMX-INT8.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512vnni")]
    unsafe fn dense_i8_amx(q: &DenseI8) {
        // SAFETY: the caller's promise; the attribute above provides the vectors.
        unsafe { dense_i8_tiles::<Avx512, Vnni, Amx>(q) }
    }

    /// The AVX2 level with AVX-VNNI.
    pub(crate) static AVX2: Kernels =
        Kernels { dense_i8: dense_i8_avx2, dense_i8_names: NAMES, byte_tile: rows::<Avx2, Vnni>(), ..avx2::KERNELS };
    /// The AVX-512 level with AVX-512 VNNI.
    pub(crate) static AVX512: Kernels = Kernels {
        dense_i8: dense_i8_avx512,
        dense_i8_names: NAMES,
        byte_tile: rows::<Avx512, Vnni>(),
        ..avx512::KERNELS
    };
    /// The same with AMX-INT8.
    pub(crate) static AMX: Kernels = Kernels {
        dense_i8: dense_i8_amx,
        dense_i8_names: ["dense_i8, tdpbusd"; 2],
        byte_rows: BLOCK_ROWS,
        byte_tile: BLOCK_ROWS,
        byte_groups: GROUPS,
        ..avx512::KERNELS
    };
}
