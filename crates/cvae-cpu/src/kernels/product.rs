//! The innermost loops of the three products, for operands in floats and for operands rounded to bfloat16.
//!
//! Rounded operands lie in pairs along the contraction: rows of the factor that is broadcast, `[row][PW]`, have the
//! two of a pair beside each other anyway; panels are `[pair][PW][2]`. Either has the offsets of its form in floats,
//! counted in elements, and an odd last element has a partner of 0.

use crate::simd::Simd;
use crate::simd::bf16::{Bf16, Dot2};

/// How operands are stored and multiplied.
///
/// # Safety
/// The instruction set of `S`, pointers valid for what the loops read; behind the last row of `a` another 1024 bytes can be
/// read, whatever they hold.
pub(crate) trait Product<S: Simd> {
    /// An operand's element.
    type T: Copy;
    /// Most rows of a tile.
    const TILE: usize = S::TILE;

    /// `acc[i] += Σ_k a[i][k] · p[k]`: `depth` columns of `a` in panels `[row][PW]` that are `a_stride` elements apart.
    unsafe fn by_columns<const MR: usize, const NR: usize>(
        depth: usize,
        a: *const Self::T,
        a_stride: usize,
        p: *const Self::T,
        acc: &mut [[S::V; NR]; MR],
    );

    /// The same for the many panels of a batch.
    #[inline(always)]
    unsafe fn by_batch<const MR: usize, const NR: usize>(
        batch: usize,
        a: *const Self::T,
        a_stride: usize,
        p: *const Self::T,
        acc: &mut [[S::V; NR]; MR],
    ) {
        // SAFETY: the caller's promise.
        unsafe { Self::by_columns::<MR, NR>(batch, a, a_stride, p, acc) };
    }

    /// `acc[i] += Σ_k w[k][column + i] · x[k]`: `depth` rows of either at stride `PW`. Rounded rows of `w` are in the
    /// form that the level's kernel for weights gives them.
    unsafe fn by_rows<const MR: usize, const NR: usize>(
        depth: usize,
        column: usize,
        w: *const Self::T,
        x: *const Self::T,
        acc: &mut [[S::V; NR]; MR],
    );
}

/// Floats.
pub(crate) struct Floats;

impl<S: Simd> Product<S> for Floats {
    type T = f32;

    #[inline(always)]
    unsafe fn by_columns<const MR: usize, const NR: usize>(
        depth: usize,
        mut a: *const f32,
        a_stride: usize,
        mut p: *const f32,
        acc: &mut [[S::V; NR]; MR],
    ) {
        let width = 2 * S::LANES;
        let mut left = depth;
        // SAFETY: the caller promises `MR` rows of every panel of `a` and `depth` vectors of `p`.
        unsafe {
            while left > 0 {
                let depth = left.min(width);
                for k in 0..depth {
                    add_column::<S, MR, NR>(a.add(k), width, p, acc);
                    p = p.wrapping_add(width);
                }
                a = a.wrapping_add(a_stride);
                left -= depth;
            }
        }
    }

    #[inline(always)]
    unsafe fn by_batch<const MR: usize, const NR: usize>(
        batch: usize,
        a: *const f32,
        a_stride: usize,
        p: *const f32,
        acc: &mut [[S::V; NR]; MR],
    ) {
        let width = 2 * S::LANES;
        let mut panels = batch / width;
        // SAFETY: the caller's promise, as for `by_columns`; there are six rows of two sums.
        unsafe {
            let whole = MR == 6 && NR == 2 && panels > 0;
            if !(whole && S::six_rows(panels, a, a_stride, p, acc.as_mut_ptr().cast())) {
                panels = 0;
            }
            let (a, p) = (a.wrapping_add(panels * a_stride), p.wrapping_add(panels * width * width));
            <Self as Product<S>>::by_columns::<MR, NR>(batch - panels * width, a, a_stride, p, acc);
        }
    }

    #[inline(always)]
    unsafe fn by_rows<const MR: usize, const NR: usize>(
        depth: usize,
        column: usize,
        w: *const f32,
        mut x: *const f32,
        acc: &mut [[S::V; NR]; MR],
    ) {
        let width = 2 * S::LANES;
        let mut w = w.wrapping_add(column);
        // SAFETY: the caller promises `depth` rows with columns `column..column + MR`.
        unsafe {
            for _ in 0..depth / S::UNROLL {
                for u in 0..S::UNROLL {
                    add_column::<S, MR, NR>(w.add(u * width), 1, x.add(u * width), acc);
                }
                w = w.wrapping_add(S::UNROLL * width);
                x = x.wrapping_add(S::UNROLL * width);
            }
            for _ in 0..depth % S::UNROLL {
                add_column::<S, MR, NR>(w, 1, x, acc);
                w = w.wrapping_add(width);
                x = x.wrapping_add(width);
            }
        }
    }
}

/// `acc[i] += a[i] · p`: rows of `a` at stride `a_stride`, `NR` vectors of `p`.
#[inline(always)]
unsafe fn add_column<S: Simd, const MR: usize, const NR: usize>(
    a: *const f32,
    a_stride: usize,
    p: *const f32,
    acc: &mut [[S::V; NR]; MR],
) {
    // SAFETY: the caller promises the rows and the vectors.
    unsafe {
        let mut b = [S::splat(0.0); NR];
        for j in 0..NR {
            b[j] = S::load(p.add(j * S::LANES));
        }
        for i in 0..MR {
            let x = S::splat(*a.add(i * a_stride));
            for j in 0..NR {
                acc[i][j] = S::fma(x, b[j], acc[i][j]);
            }
        }
    }
}

/// Pairs of bfloat16, with sums in floats.
pub(crate) struct Pairs;

impl<S: Dot2> Product<S> for Pairs {
    type T = Bf16;

    #[inline(always)]
    unsafe fn by_columns<const MR: usize, const NR: usize>(
        depth: usize,
        mut a: *const Bf16,
        a_stride: usize,
        mut p: *const Bf16,
        acc: &mut [[S::V; NR]; MR],
    ) {
        let width = 2 * S::LANES;
        let mut left = depth;
        // SAFETY: the caller promises `MR` rows of every panel of `a` and `depth` vectors of `p`, rounded up to whole
        // pairs; a panel has an even number of columns.
        unsafe {
            while left > 0 {
                let depth = left.min(width);
                for pair in 0..depth.div_ceil(2) {
                    add_pairs::<S, MR, NR>(a.add(2 * pair), width, p, 0, acc);
                    p = p.wrapping_add(2 * width);
                }
                a = a.wrapping_add(a_stride);
                left -= depth;
            }
        }
    }

    #[inline(always)]
    unsafe fn by_rows<const MR: usize, const NR: usize>(
        depth: usize,
        column: usize,
        w: *const Bf16,
        mut x: *const Bf16,
        acc: &mut [[S::V; NR]; MR],
    ) {
        let width = 2 * S::LANES;
        let mut w = w.wrapping_add(2 * column);
        // SAFETY: the caller promises `depth` rows with columns `column..column + MR`, rounded up to whole pairs.
        unsafe {
            for _ in 0..depth.div_ceil(2) {
                add_pairs::<S, MR, NR>(w, 2, x, 0, acc);
                w = w.wrapping_add(2 * width);
                x = x.wrapping_add(2 * width);
            }
        }
    }
}

/// `acc[i] += a[i] · p` for one pair of the contraction: pairs of `a` at stride `a_stride`, `NR` vectors of pairs of
/// `p`, two to a panel; panels are `next_panel` halves apart.
#[inline(always)]
pub(super) unsafe fn add_pairs<S: Dot2, const MR: usize, const NR: usize>(
    a: *const Bf16,
    a_stride: usize,
    p: *const Bf16,
    next_panel: usize,
    acc: &mut [[S::V; NR]; MR],
) {
    // SAFETY: the caller promises the pairs.
    unsafe {
        let mut b = [S::load_pairs(p); NR];
        for j in 1..NR {
            b[j] = S::load_pairs(p.add(j / 2 * next_panel + j % 2 * 2 * S::LANES));
        }
        for i in 0..MR {
            let x = S::broadcast_pair(a.add(i * a_stride));
            for j in 0..NR {
                acc[i][j] = S::dot2(acc[i][j], x, b[j]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::linear::{Expand, Partial};
    use super::super::linear_grad::{Pair, Sums, WeightGrad};
    use super::super::optimizer::Rule;
    use super::super::rounding::Rounding;
    use super::super::table::{self, Kernels, RoundedKernels};
    use super::Bf16;
    use crate::backend::Level;

    /// The tables of levels that round and that this processor has, and of emulated tiles.
    fn levels() -> impl Iterator<Item = (String, &'static Kernels, &'static RoundedKernels)> {
        let levels = Level::BF16.into_iter().filter_map(|level| {
            let kernels = level.kernels();
            if kernels.is_none() {
                eprintln!("skipped: {level} needs {}", level.requirement());
            }
            Some((level.to_string(), kernels?))
        });
        let emulated = ("emulated tiles".to_owned(), &table::emulated_tiles::KERNELS);
        levels.chain([emulated]).map(|(name, kernels)| {
            let rounded = kernels.rounded.expect("a level of bfloat16 rounds");
            // SAFETY: the processor has the level; a test's thread ends with the test.
            unsafe { (rounded.enter)() };
            (name, kernels, rounded)
        })
    }

    /// Rows `[row][width]` of numbers that bfloat16 cannot hold; NaN in the columns that are not in use.
    fn rows(count: usize, width: usize, valid: usize, seed: usize) -> Vec<f32> {
        let value = |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0;
        (0..count * width).map(|i| if i % width < valid { value(i) } else { f32::NAN }).collect()
    }

    fn nearest(x: f32) -> f64 {
        f64::from(Bf16::from_f32(x).to_f32())
    }

    /// Both forms of some rows, with 7 in every place that nothing is written to.
    fn forms(kernels: &RoundedKernels, from: &[f32], width: usize, valid: usize) -> (Vec<Bf16>, Vec<Bf16>) {
        let rows = from.len() / width;
        // Room behind the last row: see `Product`.
        let mut columns = Vec::with_capacity(rows * width + 512);
        columns.resize(rows * width, Bf16::from_f32(7.0));
        let mut pairs = vec![Bf16::from_f32(7.0); rows.next_multiple_of(2) * width];
        let (to_columns, to_pairs) = (columns.as_mut_ptr(), pairs.as_mut_ptr());
        let q = Rounding { from: from.as_ptr(), rows, valid, columns: to_columns, pairs: to_pairs };
        // SAFETY: the buffers hold the rows in either form, and `levels` gives what the processor can run.
        unsafe { (kernels.round)(&q) };
        (columns, pairs)
    }

    /// What `expand` reads of a panel of weights.
    fn weights(kernels: &RoundedKernels, from: &[f32], width: usize, valid: usize) -> Vec<Bf16> {
        let rows = from.len() / width;
        let count = rows.next_multiple_of(kernels.expand_rows) * width;
        let mut pairs = Vec::with_capacity(count + 512);
        pairs.resize(count, Bf16::default());
        let (columns, to_pairs) = (std::ptr::null_mut(), pairs.as_mut_ptr());
        let q = Rounding { from: from.as_ptr(), rows, valid, columns, pairs: to_pairs };
        // SAFETY: as for `forms`.
        unsafe { (kernels.round_weights)(&q) };
        pairs
    }

    #[test]
    fn forms_hold_the_nearest_numbers_and_zeros_where_nothing_is() {
        for (level, kernels, rounded) in levels() {
            let width = kernels.panel();
            for count in [1, 2, 3, 8, 9] {
                for valid in [1, width / 2, width - 1, width] {
                    let from = rows(count, width, valid, count);
                    let (columns, pairs) = forms(rounded, &from, width, valid);
                    for (i, x) in from.iter().enumerate() {
                        let (row, column) = (i / width, i % width);
                        let expected = if column < valid { nearest(*x) } else { 0.0 };
                        assert_eq!(f64::from(columns[i].to_f32()), expected, "{level}: column {column} of row {row}");
                        let pair = pairs[(row / 2 * width + column) * 2 + row % 2];
                        let same = f64::from(pair.to_f32()) == nearest(*x) || column >= valid && pair.to_f32().is_nan();
                        assert!(same, "{level}: pair at {column} of row {row}");
                    }
                    for column in (0..width).filter(|_| count % 2 == 1) {
                        assert_eq!(pairs[(count / 2 * width + column) * 2 + 1].to_bits(), 0, "{level}: the odd row");
                    }
                }
            }
        }
    }

    /// Asserts that a sum of rounded products is what was found.
    fn check(found: f32, products: impl Iterator<Item = f64>, context: &str) {
        let (mut sum, mut size) = (0.0, 1e-3);
        for product in products {
            sum += product;
            size += product.abs();
        }
        assert!((f64::from(found) - sum).abs() <= 1e-6 * size, "{context}: {found} instead of {sum}");
    }

    #[test]
    fn products_are_those_of_rounded_operands() {
        for (level, kernels, rounded) in levels() {
            let width = kernels.panel();
            for depth in [1, 2, 3, width - 1, width, width + 1, 2 * width + 5] {
                for units in [1, 2, 13, 15, width - 1] {
                    for half in [true, false] {
                        let lanes = if half { width / 2 } else { width };
                        let context = format!("{level}: {units} of {depth}, half {half}");
                        let x = rows(depth, width, lanes, 1);
                        let (_, pairs) = forms(rounded, &x, width, lanes);
                        let mut y = vec![f32::NAN; units * width];

                        let panels = depth.div_ceil(width);
                        let valid = |panel: usize| (depth - panel * width).min(width);
                        let w: Vec<_> = (0..panels).map(|panel| rows(units, width, valid(panel), 5 + panel)).collect();
                        let mut columns = Vec::with_capacity(panels * units * width + 512);
                        for (panel, w) in w.iter().enumerate() {
                            columns.extend(forms(rounded, w, width, valid(panel)).0);
                        }
                        let q = Partial {
                            w: columns.as_ptr(),
                            panel_stride: units * width,
                            depths: [depth, 0],
                            x: pairs.as_ptr(),
                            y: y.as_mut_ptr(),
                            shard_stride: 0,
                            shard: 0,
                            merges: 0,
                            rows: units,
                            half,
                        };
                        // SAFETY: the buffers have these extents; see `forms` for the rest.
                        unsafe { (rounded.partial)(&q) };
                        for (row, lane) in (0..units).flat_map(|row| (0..lanes).map(move |lane| (row, lane))) {
                            let of = |k: usize| {
                                nearest(w[k / width][row * width + k % width]) * nearest(x[k * width + lane])
                            };
                            check(y[row * width + lane], (0..depth).map(of), &context);
                        }

                        // A panel has no more columns than lanes.
                        let units = units.min(width);
                        let w = rows(depth, width, units, 3);
                        let panel = weights(rounded, &w, width, units);
                        let bias: Vec<f32> = (0..units).map(|unit| unit as f32 * 0.3).collect();
                        let q = Expand {
                            w: panel.as_ptr(),
                            depth,
                            x: pairs.as_ptr(),
                            y: y.as_mut_ptr(),
                            columns: units,
                            accumulate: false,
                            bias: bias.as_ptr(),
                            half,
                        };
                        // SAFETY: as above.
                        unsafe { (rounded.expand)(&q) };
                        for (column, lane) in (0..units).flat_map(|row| (0..lanes).map(move |lane| (row, lane))) {
                            let of = |k: usize| nearest(w[k * width + column]) * nearest(x[k * width + lane]);
                            let terms = (0..depth).map(of).chain([f64::from(bias[column])]);
                            check(y[column * width + lane], terms, &context);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn gradients_are_those_of_rounded_operands() {
        for (level, kernels, rounded) in levels() {
            let width = kernels.panel();
            for batch in [1, 2, width - 1, width, width + 1, 2 * width + 3] {
                let units = 15;
                let panels = batch.div_ceil(width);
                let valid = |panel: usize| (batch - panel * width).min(width);
                let a: Vec<_> = (0..panels).map(|panel| rows(units, width, valid(panel), 9 + panel)).collect();
                let mut columns = Vec::with_capacity(panels * units * width + 512);
                for (panel, a) in a.iter().enumerate() {
                    columns.extend(forms(rounded, a, width, valid(panel)).0);
                }
                let p = rows(batch, width, width, 4);
                let (_, pairs) = forms(rounded, &p, width, width);
                let pair = Pair { a: columns.as_ptr(), a_stride: units * width, p: pairs.as_ptr() };
                let mut w = rows(units, width, width, 2);
                let before = w.clone();
                let (mut moments, mut grad) = (vec![0.0; 2 * units * width], vec![f32::NAN; units * width]);
                let q = WeightGrad {
                    pairs: &[pair, pair],
                    sums: Sums::WHOLE,
                    batch,
                    w: w.as_mut_ptr(),
                    moments: moments.as_mut_ptr(),
                    grad: grad.as_mut_ptr(),
                    rows: units,
                    decay: 0.5,
                    square_sum: std::ptr::null_mut(),
                    rule: Rule::Store,
                };
                // SAFETY: the buffers have these extents; see `forms` for the rest.
                unsafe { (rounded.weight_grad)(&q) };
                for (i, found) in grad.iter().enumerate() {
                    let of = |b: usize| {
                        2.0 * nearest(a[b / width][i / width * width + b % width]) * nearest(p[b * width + i % width])
                    };
                    let terms = (0..batch).map(of).chain([0.5 * f64::from(before[i])]);
                    check(*found, terms, &format!("{level}: {batch} rows, element {i}"));
                }
            }
        }
    }
}
