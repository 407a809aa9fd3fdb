// Terms whose gradient depends on all rows of the batch: what they need of the whole batch.
#pragma once

enum KlBound : unsigned { CAPACITY = 0, FREE_BITS = 1 };

// The slope 1/(rows·(M + floor)) of a learnt variance, M being the mean weighted squared error of the batch; 0 where
// nothing was observed. The term is N/(2·rows)·ln(M + floor), N being the sum of the weights.
DEVICE void sigma_slope(const Task &task, const Step &step) {
  const int rows = (int)step.rows;
  const double squares = partial_sum(task.tasks->partials, tile_count(*task.tasks, rows));
  double count = (double)rows * task.columns;
  if (task.a) {
    double sum = 0.0;
    for (int i = thread_index(); within(i, rows * task.columns); i += THREADS)
      sum += load(task.a + (size_t)(i / task.columns) * task.lda + i % task.columns);
    count = block_sum(sum);
  }
  if (thread_index() != 0) return;
  const double variance = (count > 0.0 ? squares / count : 0.0) + task.bound;
  *task.point[0].store = (float)(1.0 / (rows * variance));
  *task.partials = 0.5 * count * log(variance);
}

// The slopes of the bounded divergence, one per dimension, from the means over the batch of each dimension's
// divergence: warp w takes every eighth row from w, then the warps' sums are added in order.
DEVICE void kl_slopes(const Task &task, const Step &step) {
  const int lane = thread_index() % 32, warp = thread_index() / 32, rows = (int)step.rows;
  const float scale = task.point[0].scale;
  double *sums = reinterpret_cast<double *>(shared_memory());
  double term = 0.0; // of warp 0's columns
  for (int column0 = 0; column0 < task.columns; column0 += 32) {
    const int column = column0 + lane;
    double sum = 0.0;
    if (within(column, task.columns))
      for (int row = warp; within(row, rows); row += WARPS) {
        float divergence = 0.f;
        half_square(load(task.a + (size_t)row * task.lda + column), divergence);
        kl_logvar(load(task.b + (size_t)row * task.ldb + column), divergence);
        sum += divergence;
      }
    sums[warp * 32 + lane] = sum;
    block_barrier(); // every warp's sum is there
    if (warp == 0 && within(column, task.columns)) {
      double mean = 0.0;
      for (int part = 0; part < WARPS; ++part) mean += sums[part * 32 + lane];
      mean /= rows;
      if (task.variant == FREE_BITS) task.point[0].store[column] = mean > task.bound ? scale : 0.f;
      term += task.variant == FREE_BITS && mean < task.bound ? task.bound : mean;
    }
    block_barrier(); // the sums are read: the next columns' may overwrite them
  }
  term = block_sum(term);
  if (task.variant == CAPACITY) {
    const double excess = term - task.bound;
    const float slope = excess > 0.0 ? scale : excess < 0.0 ? -scale : 0.f;
    for (int column = thread_index(); within(column, task.columns); column += THREADS)
      task.point[0].store[column] = slope;
    term = fabs(excess);
  }
  if (thread_index() == 0) *task.partials = term;
}

// Scales of the kernel (cvae_core::Latent::MMD_SCALES).
constexpr int MMD_SCALES = 7;

// The kernel `Σ_s C/(C + q)` of two rows with `q = ‖a − b‖²` and `C = 2·width·s`; `slope` is its derivative by q.
DEVICE float mmd_kernel(const float *a, const float *b, int width, float &slope) {
  const float scales[MMD_SCALES] = {0.1f, 0.2f, 0.5f, 1.f, 2.f, 5.f, 10.f};
  float square = 0.f, value = 0.f;
  for (int column = 0; column < width; ++column) {
    const float difference = load(a + column) - load(b + column);
    square += difference * difference;
  }
  slope = 0.f;
  UNROLL
  for (int i = 0; i < MMD_SCALES; ++i) {
    const float constant = 2.f * (float)width * scales[i], share = 1.f / (constant + square);
    value += constant * share;
    slope -= constant * share * share;
  }
  return value;
}

// One row of the discrepancy between codes (a) and draws of the prior (b): its share of the loss, and its gradient.
// Threads take a partner row each, then a column each.
DEVICE void discrepancy_row(const Task &task, const Step &step, int row) {
  const int rows = (int)step.rows, width = task.columns;
  const float *code = task.a + (size_t)row * task.lda, *draw = task.b + (size_t)row * task.ldb;
  float *output = task.point[0].store + (size_t)row * task.ldc;
  float *slopes = shared_memory(); // by code, then by prior
  const double pairs = (double)rows * (rows - 1), cross = (double)rows * rows, weight = task.point[0].scale;
  for (int column = thread_index(); within(column, width); column += THREADS)
    output[column] = load(task.point[0].first + (size_t)row * task.ldc + column);
  double term = 0.0;
  for (int first = 0; rows > 1 && first < rows; first += THREADS) {
    const int other = first + thread_index();
    float by_code = 0.f, by_prior = 0.f;
    if (within(other, rows)) {
      const float *other_code = task.a + (size_t)other * task.lda, *other_draw = task.b + (size_t)other * task.ldb;
      float slope;
      if (other != row) {
        const double value = mmd_kernel(code, other_code, width, slope);
        by_code = (float)(4.0 * weight / pairs * slope); // the pair counts twice: once with its rows exchanged
        term += (value + mmd_kernel(draw, other_draw, width, slope)) / pairs;
      }
      term -= 2.0 * mmd_kernel(code, other_draw, width, slope) / cross;
      by_prior = (float)(-4.0 * weight / cross * slope);
    }
    slopes[thread_index()] = by_code;
    slopes[THREADS + thread_index()] = by_prior;
    block_barrier(); // every partner's slopes are there
    const int count = rows - first < THREADS ? rows - first : THREADS;
    for (int column = thread_index(); within(column, width); column += THREADS) {
      const float own = load(code + column);
      float sum = 0.f;
      for (int i = 0; i < count; ++i) {
        sum += slopes[i] * (own - load(task.a + (size_t)(first + i) * task.lda + column));
        sum += slopes[THREADS + i] * (own - load(task.b + (size_t)(first + i) * task.ldb + column));
      }
      output[column] += sum;
    }
    block_barrier(); // the slopes are read: the next partners' may overwrite them
  }
  term = block_sum(term);
  if (thread_index() == 0) task.partials[row] = term;
}
