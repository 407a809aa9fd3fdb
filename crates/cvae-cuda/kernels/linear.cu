// The matrix products of a dense layer: forward, gradient of the input, gradient of the parameters.
//
// Every product is C[i, j] = Σ_k A(i, k)·B(k, j). A block computes one tile of C: it streams slices of A and B
// through shared memory with asynchronous copies, several slices ahead, while its warps accumulate; then the
// tile goes through shared memory once more, so that the epilogue (the task's points) runs in plain row order.
// Sums have a fixed order that depends on the task alone, never on the grid.
#pragma once

// Tile of C, slice of k and copies ahead, per TileShape. WARP_* say how the tile and the slice are split.
struct SmallTile {
  static constexpr int ROWS = 16, COLUMNS = 16, SLICE = 128, STAGES = 2;
  static constexpr int WARP_ROWS = 16, WARP_COLUMNS = 16, WARP_SLICE = 16;
};
struct LargeTile {
  static constexpr int ROWS = 64, COLUMNS = 64, SLICE = 32, STAGES = 3;
  static constexpr int WARP_ROWS = 16, WARP_COLUMNS = 32, WARP_SLICE = 32;
};

// A slice of an operand in shared memory, `OUTER` being the operand's rows or columns of C. With DEPTH_MAJOR the
// depth is contiguous (as in an activation or weight read along its row), otherwise the outer index is. The
// padding keeps the warps' reads free of bank conflicts.
template <int OUTER, int SLICE, bool DEPTH_MAJOR> struct Operand {
  static constexpr int LINES = DEPTH_MAJOR ? OUTER : SLICE;
  static constexpr int LENGTH = DEPTH_MAJOR ? SLICE : OUTER;
  static constexpr int STRIDE = LENGTH + (DEPTH_MAJOR ? 4 : 8);
  static constexpr int SIZE = LINES * STRIDE;

  // Starts the copies of the slice at depth `k0` of the tile at `outer0`; elements beyond a limit become zero.
  DEVICE static void fetch(float *slice, const float *matrix, int ld, int outer0, int outer_limit, int k0, int k_limit) {
    const int line0 = DEPTH_MAJOR ? outer0 : k0, line_limit = DEPTH_MAJOR ? outer_limit : k_limit;
    const int start0 = DEPTH_MAJOR ? k0 : outer0, start_limit = DEPTH_MAJOR ? k_limit : outer_limit;
    UNROLL
    for (int piece = thread_index(); piece < LINES * LENGTH / 4; piece += THREADS) {
      const int line = piece / (LENGTH / 4), start = piece % (LENGTH / 4) * 4;
      const bool inside = within(line0 + line, line_limit);
      const int elements = inside ? within4(start0 + start, start_limit) : 0;
      const float *source = elements ? matrix + (size_t)(line0 + line) * ld + start0 + start : matrix;
      copy_async(slice + line * STRIDE + start, source, elements);
    }
  }

  DEVICE static float at(const float *slice, int outer, int k) {
    return slice[DEPTH_MAJOR ? outer * STRIDE + k : k * STRIDE + outer];
  }
};

// ---- Precisions: how a warp multiplies its part of a slice ----

// Single precision: fused multiply-adds, lane (l / 8, l % 8) taking every fourth row and every eighth column.
struct F32 {
  template <int ROWS, int COLUMNS> struct Sums {
    float sum[ROWS / 4][COLUMNS / 8];

    template <int DEPTH, class A, class B> DEVICE void add(const float *a, const float *b, int row0, int column0, int k0) {
      const int lane = thread_index() % 32, row = row0 + lane / 8, column = column0 + lane % 8;
      for (int k = k0; k < k0 + DEPTH; ++k) {
        float left[ROWS / 4], right[COLUMNS / 8];
        UNROLL
        for (int i = 0; i < ROWS / 4; ++i) left[i] = A::at(a, row + 4 * i, k);
        UNROLL
        for (int j = 0; j < COLUMNS / 8; ++j) right[j] = B::at(b, column + 8 * j, k);
        UNROLL
        for (int i = 0; i < ROWS / 4; ++i)
          UNROLL
          for (int j = 0; j < COLUMNS / 8; ++j) sum[i][j] = fused(left[i], right[j], sum[i][j]);
      }
    }

    // Writes the sums to a row-major array.
    DEVICE void store(float *tile, int stride, int row0, int column0) const {
      const int lane = thread_index() % 32;
      UNROLL
      for (int i = 0; i < ROWS / 4; ++i)
        UNROLL
        for (int j = 0; j < COLUMNS / 8; ++j)
          tile[(row0 + lane / 8 + 4 * i) * stride + column0 + lane % 8 + 8 * j] = sum[i][j];
    }
  };
};

// Sums of the tensor cores: 16 rows by eight columns each, in mma's layout.
template <int ROWS, int COLUMNS> struct TensorSums {
  static_assert(ROWS == 16, "one mma is 16 rows high");
  float sum[COLUMNS / 8][4];

  DEVICE void store(float *tile, int stride, int row0, int column0) const {
    const int lane = thread_index() % 32, row = row0 + lane / 4, column = column0 + lane % 4 * 2;
    UNROLL
    for (int j = 0; j < COLUMNS / 8; ++j)
      UNROLL
      for (int e = 0; e < 4; ++e) tile[(row + e / 2 * 8) * stride + column + 8 * j + e % 2] = sum[j][e];
  }
};

// TF32 operands, single-precision sums.
struct Tf32 {
  template <int ROWS, int COLUMNS> struct Sums : TensorSums<ROWS, COLUMNS> {
    template <int DEPTH, class A, class B> DEVICE void add(const float *a, const float *b, int row0, int column0, int k0) {
      const int lane = thread_index() % 32, row = row0 + lane / 4, column = column0 + lane / 4;
      UNROLL
      for (int k = k0 + lane % 4; k < k0 + DEPTH; k += 8) {
        const unsigned left[4] = {to_tf32(A::at(a, row, k)), to_tf32(A::at(a, row + 8, k)),
                                  to_tf32(A::at(a, row, k + 4)), to_tf32(A::at(a, row + 8, k + 4))};
        UNROLL
        for (int j = 0; j < COLUMNS / 8; ++j) {
          const unsigned right[2] = {to_tf32(B::at(b, column + 8 * j, k)), to_tf32(B::at(b, column + 8 * j, k + 4))};
          mma_tf32(this->sum[j], left, right);
        }
      }
    }
  };
};

// bfloat16 operands, single-precision sums.
struct Bf16 {
  template <int ROWS, int COLUMNS> struct Sums : TensorSums<ROWS, COLUMNS> {
    template <class X> DEVICE static unsigned pair(const float *slice, int outer, int k) {
      return to_bf16x2(X::at(slice, outer, k), X::at(slice, outer, k + 1));
    }

    template <int DEPTH, class A, class B> DEVICE void add(const float *a, const float *b, int row0, int column0, int k0) {
      const int lane = thread_index() % 32, row = row0 + lane / 4, column = column0 + lane / 4;
      UNROLL
      for (int k = k0 + lane % 4 * 2; k < k0 + DEPTH; k += 16) {
        const unsigned left[4] = {pair<A>(a, row, k), pair<A>(a, row + 8, k), pair<A>(a, row, k + 8),
                                  pair<A>(a, row + 8, k + 8)};
        UNROLL
        for (int j = 0; j < COLUMNS / 8; ++j) {
          const unsigned right[2] = {pair<B>(b, column + 8 * j, k), pair<B>(b, column + 8 * j, k + 8)};
          mma_bf16(this->sum[j], left, right);
        }
      }
    }
  };
};

// ---- One tile of a product ----

// The epilogue: adds the `parts` row-major parts of the tile that lie in shared memory, in order, and applies the
// task's points to every element inside the output.
DEVICE_CALL void finish_tile(const Task &task, const Step &step, int tile, int row0, int column0, int side, int parts) {
  const float *sums = shared_memory();
  const int rows = output_rows(task, (int)step.rows), stride = side + 1;
  float loss = 0.f;
  NO_UNROLL
  for (int i = thread_index(); i < side * side; i += THREADS) {
    const int row = i / side, column = i % side;
    if (!within(row0 + row, rows)) continue;
    if (!within(column0 + column, task.columns)) continue;
    float value = 0.f;
    for (int part = 0; part < parts; ++part) value += sums[(part * side + row) * stride + column];
    apply_points(task, step, row0 + row, column0 + column, value, 1.f, loss);
  }
  block_barrier(); // the sums are read: the next tile may overwrite them
  store_loss(task, tile, loss);
}

// Computes one tile of C. `A_DEPTH` and `B_DEPTH` say which operands have a contiguous depth.
template <class Precision, class Tile, bool A_DEPTH, bool B_DEPTH>
DEVICE void product_tile(const Task &task, const Step &step, int tile) {
  using A = Operand<Tile::ROWS, Tile::SLICE, A_DEPTH>;
  using B = Operand<Tile::COLUMNS, Tile::SLICE, B_DEPTH>;
  constexpr int ROW_WARPS = Tile::ROWS / Tile::WARP_ROWS, COLUMN_WARPS = Tile::COLUMNS / Tile::WARP_COLUMNS;
  constexpr int PARTS = Tile::SLICE / Tile::WARP_SLICE, STAGE = A::SIZE + B::SIZE;
  static_assert(ROW_WARPS * COLUMN_WARPS * PARTS == WARPS, "the warps cover the tile and the slice");

  const int rows = output_rows(task, (int)step.rows), depth = task.depth ? task.depth : (int)step.rows;
  const int row_tiles = divide_up(rows, Tile::ROWS);
  const int row0 = tile % row_tiles * Tile::ROWS, column0 = tile / row_tiles * Tile::COLUMNS;
  const int warp = thread_index() / 32, part = warp / (ROW_WARPS * COLUMN_WARPS);
  const int warp_row = warp % ROW_WARPS * Tile::WARP_ROWS;
  const int warp_column = warp / ROW_WARPS % COLUMN_WARPS * Tile::WARP_COLUMNS;
  float *stages = shared_memory();

  // Further pairs of operands lengthen the sums: their slices follow those of the first.
  const int pair_slices = divide_up(depth, Tile::SLICE), slices = pair_slices * (1 + (int)task.pair_count);
  auto fetch = [&](int slice) {
    if (slice < slices) {
      const int pair = slice / pair_slices, k0 = (slice - pair * pair_slices) * Tile::SLICE;
      const Pair operands = pair == 0 ? Pair{task.a, task.b} : task.pairs[pair - 1];
      float *stage = stages + slice % Tile::STAGES * STAGE;
      A::fetch(stage, operands.a, task.lda, row0, rows, k0, depth);
      B::fetch(stage + A::SIZE, operands.b, task.ldb, column0, task.columns, k0, depth);
    }
    copy_async_commit(); // an empty group keeps the count of groups equal to the count of slices
  };

  typename Precision::template Sums<Tile::WARP_ROWS, Tile::WARP_COLUMNS> sums = {};
  for (int slice = 0; slice < Tile::STAGES - 1; ++slice) fetch(slice);
  NO_UNROLL
  for (int slice = 0; slice < slices; ++slice) {
    copy_async_wait<Tile::STAGES - 2>(); // this thread's share of the slice has arrived
    block_barrier();                     // everyone's has; and the stage fetched next is no longer read
    fetch(slice + Tile::STAGES - 1);
    const float *stage = stages + slice % Tile::STAGES * STAGE;
    sums.template add<Tile::WARP_SLICE, A, B>(stage, stage + A::SIZE, warp_row, warp_column, part * Tile::WARP_SLICE);
  }

  block_barrier(); // the last slice is read: the sums may overwrite it
  sums.store(stages, Tile::COLUMNS + 1, part * Tile::ROWS + warp_row, warp_column);
  block_barrier(); // every part of the tile is there
  finish_tile(task, step, tile, row0, column0, Tile::ROWS, PARTS);
}

template <class Precision, bool A_DEPTH, bool B_DEPTH>
DEVICE_CALL void product_tile_of_shape(const Task &task, const Step &step, int tile) {
  if (task.shape == LARGE)
    product_tile<Precision, LargeTile, A_DEPTH, B_DEPTH>(task, step, tile);
  else
    product_tile<Precision, SmallTile, A_DEPTH, B_DEPTH>(task, step, tile);
}

// ---- Gradient of the bias ----

// Sums 32 columns of the gradient over the rows: warp w takes every eighth row from w, then the warps' sums are
// added in order.
DEVICE void bias_tile(const Task &task, const Step &step, int tile) {
  const int lane = thread_index() % 32, warp = thread_index() / 32, column = tile * BIAS_TILE + lane;
  const int rows = (int)step.rows;
  float *sums = shared_memory();
  float sum = 0.f;
  if (within(column, task.columns))
    for (int row = warp; within(row, rows); row += WARPS) sum += load(task.a + (size_t)row * task.lda + column);
  sums[warp * 32 + lane] = sum;
  block_barrier(); // every warp's sum is there
  if (warp == 0 && within(column, task.columns)) {
    float value = 0.f, loss = 0.f;
    for (int part = 0; part < WARPS; ++part) value += sums[part * 32 + lane];
    apply_points(task, step, 0, column, value, 1.f, loss);
  }
  block_barrier(); // the sums are read: the next tile may overwrite them
}
