// Weights divided by their largest singular value (docs/MATH.md, "Spectral norm").
#pragma once

constexpr unsigned STREAM_SPECTRAL = 10; // cvae_core::Stream::Spectral

// Divides a vector of the block by its norm, which every thread receives, unless that is 0. `squares` is the sum of
// the squares of the elements that the thread wrote.
DEVICE double normalize(float *vector, int length, double squares) {
  const double norm = sqrt(block_sum(squares));
  if (norm > 0.0)
    for (int i = thread_index(); within(i, length); i += THREADS) vector[i] = (float)(load(vector + i) / norm);
  block_barrier(); // the vector is whole
  return norm;
}

// vector[o] = Σ_i weight[o, i]·other[i], a warp per element; returns the thread's squares.
DEVICE double times(const Task &task, const float *other, float *vector) {
  const int lane = thread_index() % 32;
  double squares = 0.0;
  for (int row = thread_index() / 32; within(row, task.depth); row += WARPS) {
    double sum = 0.0;
    for (int i = lane; within(i, task.columns); i += 32)
      sum += (double)load(task.b + (size_t)row * task.ldb + i) * load(other + i);
    for (int mask = 16; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
    if (lane != 0) continue;
    vector[row] = (float)sum;
    squares += sum * sum;
  }
  return squares;
}

// vector[i] = Σ_o weight[o, i]·other[o], a thread per element; returns the thread's squares.
DEVICE double times_transposed(const Task &task, const float *other, float *vector) {
  double squares = 0.0;
  for (int i = thread_index(); within(i, task.columns); i += THREADS) {
    double sum = 0.0;
    for (int row = 0; row < task.depth; ++row)
      sum += (double)load(task.b + (size_t)row * task.ldb + i) * load(other + row);
    vector[i] = (float)sum;
    squares += sum * sum;
  }
  return squares;
}

// The largest singular value by power iteration from random signs, and its vectors; 1 and zeros where a norm is 0.
DEVICE void spectral(const Task &task) {
  float *left = task.point[0].second, *right = task.point[0].third;
  const float start = (float)(1.0 / sqrt((double)task.columns));
  for (int i = thread_index(); within(i, task.columns); i += THREADS) {
    const Words words = philox((unsigned)i / 4u, task.variant, 0u, STREAM_SPECTRAL, 0ull);
    right[i] = word_of(words, (unsigned)i) >> 31 ? -start : start;
  }
  block_barrier(); // the vector is whole
  double sigma = normalize(left, task.depth, times(task, right, left));
  for (unsigned iteration = 0; iteration < task.count && sigma > 0.0; ++iteration) {
    sigma = normalize(right, task.columns, times_transposed(task, left, right));
    if (sigma > 0.0) sigma = normalize(left, task.depth, times(task, right, left));
  }
  if (!(sigma == 0.0)) {
    if (thread_index() == 0) *task.point[0].store = (float)(1.0 / sigma);
    return;
  }
  for (int i = thread_index(); within(i, task.depth); i += THREADS) left[i] = 0.f;
  for (int i = thread_index(); within(i, task.columns); i += THREADS) right[i] = 0.f;
  if (thread_index() == 0) *task.point[0].store = 1.f;
}

// One row of the gradient through the division: −scale·(Σ grad ⊙ input)·left.
DEVICE void spectral_grad_row(const Task &task, int row) {
  const float *grad = task.a + (size_t)row * task.lda, *input = task.b + (size_t)row * task.ldb;
  double along = 0.0;
  for (int i = thread_index(); within(i, task.depth); i += THREADS) along += (double)load(grad + i) * load(input + i);
  const float factor = (float)(-load(task.point[0].first) * block_sum(along));
  for (int i = thread_index(); within(i, task.columns); i += THREADS)
    task.point[0].store[(size_t)row * task.ldc + i] = factor * load(task.point[0].second + i);
}
