//! Products of the forward pass and of input gradients.
//!
//! One register tile serves all: `MR` rows × `NR` vectors of batch lanes. Activations are panels
//! `[feature][PW]` with `PW = 2·LANES` batch rows in the lanes; weights are panels `[row][PW]` along the
//! split dimension. See docs/PERFORMANCE.md for the layout, and `product.rs` for operands in bfloat16.

use super::product::Product;
use crate::simd::Simd;
use crate::team::{MAX_SHARDS, Nodes};

/// Calls `$tile::<S, $P…, MR, NR>` for the row count `$mr`, which never exceeds `$max`.
macro_rules! by_rows {
    ($mr:expr, $max:expr, $tile:ident $([$($P:ident),*])?, $nr:expr, $($arg:expr),*) => {
        match $mr {
            1 => $tile::<S, $($($P,)*)? 1, { $nr }>($($arg),*),
            2 => $tile::<S, $($($P,)*)? 2, { $nr }>($($arg),*),
            3 => $tile::<S, $($($P,)*)? 3, { $nr }>($($arg),*),
            4 => $tile::<S, $($($P,)*)? 4, { $nr }>($($arg),*),
            5 if $max >= 5 => $tile::<S, $($($P,)*)? 5, { $nr }>($($arg),*),
            6 if $max >= 6 => $tile::<S, $($($P,)*)? 6, { $nr }>($($arg),*),
            7 if $max >= 7 => $tile::<S, $($($P,)*)? 7, { $nr }>($($arg),*),
            8 if $max >= 8 => $tile::<S, $($($P,)*)? 8, { $nr }>($($arg),*),
            9 if $max >= 9 => $tile::<S, $($($P,)*)? 9, { $nr }>($($arg),*),
            10 if $max >= 10 => $tile::<S, $($($P,)*)? 10, { $nr }>($($arg),*),
            11 if $max >= 11 => $tile::<S, $($($P,)*)? 11, { $nr }>($($arg),*),
            12 if $max >= 12 => $tile::<S, $($($P,)*)? 12, { $nr }>($($arg),*),
            13 if $max >= 13 => $tile::<S, $($($P,)*)? 13, { $nr }>($($arg),*),
            14 if $max >= 14 => $tile::<S, $($($P,)*)? 14, { $nr }>($($arg),*),
            15 if $max >= 15 => $tile::<S, $($($P,)*)? 15, { $nr }>($($arg),*),
            16 if $max >= 16 => $tile::<S, $($($P,)*)? 16, { $nr }>($($arg),*),
            _ => unreachable!("a tile has 1 to {} rows", $max),
        }
    };
}
pub(crate) use by_rows;

/// Sizes of balanced tiles of at most `max` rows that cover `rows`: 100 by 14 is 13,13,13,13,12,12,12,12.
#[derive(Clone, Copy)]
pub(crate) struct Tiles {
    size: usize,
    larger: usize,
    row: usize,
    end: usize,
}

impl Tiles {
    #[inline(always)]
    pub(crate) fn new(rows: usize, max: usize) -> Self {
        let count = rows.div_ceil(max).max(1);
        Self { size: rows / count, larger: rows % count, row: 0, end: rows }
    }

    /// The next tile as (first row, rows).
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<(usize, usize)> {
        if self.row >= self.end {
            return None;
        }
        let rows = self.size + usize::from(self.larger > 0);
        self.larger = self.larger.saturating_sub(1);
        let first = self.row;
        self.row += rows;
        Some((first, rows))
    }
}

/// A product over the split dimension, for one or two shards and one batch panel: `y[r] = Σ_k W[r][k] · x[k]`.
pub(crate) struct Partial<T = f32> {
    /// First panel of the first shard, first row.
    pub(crate) w: *const T,
    /// Elements between panels of `w`.
    pub(crate) panel_stride: usize,
    /// Columns of either shard, 0 for a second one that is not there. All panels of the first are whole if it is.
    pub(crate) depths: [usize; 2],
    /// `[depth][PW]` of the first shard, the second behind it.
    pub(crate) x: *const T,
    /// `[rows][PW]` in the buffer of shard 0.
    pub(crate) y: *mut f32,
    /// Floats between the buffers of shards.
    pub(crate) shard_stride: usize,
    /// The last shard.
    pub(crate) shard: usize,
    /// How many sums to its left the last shard completes: see [`crate::team::merges`]. The first is one of them.
    pub(crate) merges: usize,
    /// Rows of the result.
    pub(crate) rows: usize,
    /// Whether only the first `LANES` batch lanes are in use.
    pub(crate) half: bool,
}

impl Partial {
    /// The same product of other operands.
    pub(crate) fn of<T>(&self, w: *const T, x: *const T) -> Partial<T> {
        let Self { panel_stride, depths, y, shard_stride, shard, merges, rows, half, .. } = *self;
        Partial { w, panel_stride, depths, x, y, shard_stride, shard, merges, rows, half }
    }
}

#[inline(always)]
unsafe fn partial_tile<S: Simd, P: Product<S>, const MR: usize, const NR: usize>(q: &Partial<P::T>, row: usize) {
    let width = 2 * S::LANES;
    // SAFETY: `Partial` promises that rows `row..row + MR` and the shard's columns exist.
    unsafe {
        let mut acc = [[S::splat(0.0); NR]; MR];
        let mut w = q.w.add(row * width);
        let mut x = q.x;
        let mut first = acc;
        for (shard, depth) in q.depths.into_iter().enumerate() {
            P::by_columns::<MR, NR>(depth, w, q.panel_stride, x, &mut acc);
            w = w.wrapping_add(depth.div_ceil(width) * q.panel_stride);
            x = x.wrapping_add(depth * width);
            if shard == 0 && q.depths[1] > 0 {
                first = acc;
                acc = [[S::splat(0.0); NR]; MR];
            }
        }
        let mut level = 0;
        if q.depths[1] > 0 {
            for i in 0..MR {
                for j in 0..NR {
                    acc[i][j] = S::add(first[i][j], acc[i][j]);
                }
            }
            level = 1;
        }
        for level in level..q.merges {
            let left = q.y.add((q.shard + 1 - (2 << level)) * q.shard_stride + row * width);
            for i in 0..MR {
                for j in 0..NR {
                    acc[i][j] = S::add(S::load(left.add(i * width + j * S::LANES)), acc[i][j]);
                }
            }
        }
        let y = q.y.add((q.shard + 1 - (1 << q.merges)) * q.shard_stride + row * width);
        for i in 0..MR {
            for j in 0..NR {
                S::store(y.add(i * width + j * S::LANES), acc[i][j]);
            }
        }
    }
}

/// See [`Partial`].
///
/// # Safety
/// Pointers as [`Partial`] documents; the instruction sets of `S` and `P`.
#[inline(always)]
pub(crate) unsafe fn partial<S: Simd, P: Product<S>>(q: &Partial<P::T>) {
    let mut tiles = Tiles::new(q.rows, P::TILE);
    while let Some((row, rows)) = tiles.next() {
        // SAFETY: the tile lies inside `q.rows`.
        unsafe {
            if q.half {
                by_rows!(rows, P::TILE, partial_tile[P], 1, q, row);
            } else {
                by_rows!(rows, P::TILE, partial_tile[P], 2, q, row);
            }
        }
    }
}

/// A product that yields one panel of the split dimension, for one batch panel and one block of the
/// contraction: `y[c] = start + Σ_k W[k][c] · x[k]`.
pub(crate) struct Expand<T = f32> {
    /// `[depth][PW]`, one panel of the weights.
    pub(crate) w: *const T,
    /// Length of the contraction block.
    pub(crate) depth: usize,
    /// `[depth][PW]`.
    pub(crate) x: *const T,
    /// `[columns][PW]`.
    pub(crate) y: *mut f32,
    /// Columns of the panel, at most `PW`.
    pub(crate) columns: usize,
    /// Whether `y` holds the sum of the blocks before this one; otherwise it starts from the bias.
    pub(crate) accumulate: bool,
    /// `[columns]`, or null for no bias.
    pub(crate) bias: *const f32,
    /// Whether only the first `LANES` batch lanes are in use.
    pub(crate) half: bool,
}

impl Expand {
    /// The same product of other operands.
    pub(crate) fn of<T>(&self, w: *const T, x: *const T) -> Expand<T> {
        let Self { depth, y, columns, accumulate, bias, half, .. } = *self;
        Expand { w, depth, x, y, columns, accumulate, bias, half }
    }
}

#[inline(always)]
unsafe fn expand_tile<S: Simd, P: Product<S>, const MR: usize, const NR: usize>(q: &Expand<P::T>, column: usize) {
    let width = 2 * S::LANES;
    // SAFETY: `Expand` promises that columns `column..column + MR` exist in every operand.
    unsafe {
        let mut acc = [[S::splat(0.0); NR]; MR];
        let y = q.y.add(column * width);
        if q.accumulate {
            for i in 0..MR {
                for j in 0..NR {
                    acc[i][j] = S::load(y.add(i * width + j * S::LANES));
                }
            }
        } else if !q.bias.is_null() {
            for i in 0..MR {
                acc[i] = [S::splat(*q.bias.add(column + i)); NR];
            }
        }
        P::by_rows::<MR, NR>(q.depth, column, q.w, q.x, &mut acc);
        for i in 0..MR {
            for j in 0..NR {
                S::store(y.add(i * width + j * S::LANES), acc[i][j]);
            }
        }
    }
}

/// See [`Expand`].
///
/// # Safety
/// Pointers as [`Expand`] documents; the instruction sets of `S` and `P`.
#[inline(always)]
pub(crate) unsafe fn expand<S: Simd, P: Product<S>>(q: &Expand<P::T>) {
    let mut tiles = Tiles::new(q.columns, P::TILE);
    while let Some((column, columns)) = tiles.next() {
        // SAFETY: the tile lies inside `q.columns`.
        unsafe {
            if q.half {
                by_rows!(columns, P::TILE, expand_tile[P], 1, q, column);
            } else {
                by_rows!(columns, P::TILE, expand_tile[P], 2, q, column);
            }
        }
    }
}

/// Sum of the shards of a [`Partial`] product, as a binary tree over them, plus the bias.
pub(crate) struct Reduce<'a> {
    /// `[shards]` blocks of `[features][PW]` at stride `shard_stride`.
    pub(crate) parts: *const f32,
    /// Floats between shards.
    pub(crate) shard_stride: usize,
    /// The sums that threads formed.
    pub(crate) nodes: &'a Nodes,
    /// `[features]`, or null for no bias.
    pub(crate) bias: *const f32,
    /// `[features][PW]`.
    pub(crate) y: *mut f32,
    /// Rows of the block.
    pub(crate) features: usize,
}

/// See [`Reduce`].
///
/// # Safety
/// Pointers as [`Reduce`] documents; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn reduce<S: Simd>(q: &Reduce<'_>) {
    // SAFETY: the caller's promise; there are as many nodes.
    unsafe {
        match (q.nodes.are_whole(), q.nodes.as_slice().len()) {
            (true, 1) => reduce_tree::<S, 1>(q),
            (true, 2) => reduce_tree::<S, 2>(q),
            (true, 4) => reduce_tree::<S, 4>(q),
            (true, 8) => reduce_tree::<S, 8>(q),
            _ => reduce_nodes::<S>(q),
        }
    }
}

/// [`reduce`] for `N` nodes that are a whole tree.
#[inline(always)]
unsafe fn reduce_tree<S: Simd, const N: usize>(q: &Reduce<'_>) {
    let (width, nodes) = (2 * S::LANES, q.nodes.as_slice());
    for feature in 0..q.features {
        for at in [feature * width, feature * width + S::LANES] {
            // SAFETY: `at` lies inside the block of every shard.
            unsafe {
                let mut sums = [S::splat(0.0); N];
                for i in 0..N {
                    sums[i] = S::load(q.parts.add(nodes[i].shard * q.shard_stride + at));
                }
                let mut apart = 1;
                while apart < N {
                    for i in (0..N).step_by(2 * apart) {
                        sums[i] = S::add(sums[i], sums[i + apart]);
                    }
                    apart *= 2;
                }
                finish::<S>(q, feature, at, sums[0]);
            }
        }
    }
}

/// [`reduce`] for any nodes.
#[inline(always)]
unsafe fn reduce_nodes<S: Simd>(q: &Reduce<'_>) {
    let width = 2 * S::LANES;
    for feature in 0..q.features {
        for at in [feature * width, feature * width + S::LANES] {
            // SAFETY: `at` lies inside the block of every shard.
            unsafe {
                // Sums that wait for their right-hand side: no more than there are shards.
                let mut stack = [S::splat(0.0); MAX_SHARDS];
                let mut top = 0;
                for node in q.nodes.as_slice() {
                    let mut sum = S::load(q.parts.add(node.shard * q.shard_stride + at));
                    for _ in 0..node.merges {
                        top -= 1;
                        sum = S::add(stack[top], sum);
                    }
                    stack[top] = sum;
                    top += 1;
                }
                let mut sum = stack[0];
                for other in &stack[1..top.max(1)] {
                    sum = S::add(sum, *other);
                }
                finish::<S>(q, feature, at, sum);
            }
        }
    }
}

/// Adds the bias to a sum and stores it.
#[inline(always)]
unsafe fn finish<S: Simd>(q: &Reduce<'_>, feature: usize, at: usize, sum: S::V) {
    // SAFETY: the caller's promise for `reduce`.
    unsafe {
        let sum = if q.bias.is_null() { sum } else { S::add(sum, S::splat(*q.bias.add(feature))) };
        S::store(q.y.add(at), sum);
    }
}
