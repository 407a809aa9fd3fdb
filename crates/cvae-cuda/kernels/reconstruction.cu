// The reconstruction term, its gradient, and the sums of every term of the loss.
#pragma once

enum Reconstruction : unsigned { MSE_SUM = 0, MSE_MEAN, BCE, L1, HUBER };

// Adds the element's loss to `loss` and returns its derivative, before the division by the batch's rows.
// `parameter` is 1/width for MSE_MEAN and delta for HUBER.
DEVICE float reconstruction(unsigned kind, float parameter, float prediction, float target, float &loss) {
  const float error = prediction - target;
  switch (kind) {
  case MSE_SUM: loss += 0.5f * error * error; return error;
  case MSE_MEAN: loss += error * error * parameter; return 2.f * error * parameter;
  case BCE: {
    const float floor = prediction > 0.f ? prediction : 0.f;
    loss += floor - prediction * target + log1pf(expf(-fabsf(prediction)));
    return sigmoid(prediction) - target;
  }
  case L1: loss += fabsf(error); return error > 0.f ? 1.f : error < 0.f ? -1.f : error;
  default: {
    const float size = fabsf(error);
    if (size <= parameter) {
      loss += 0.5f * error * error;
      return error;
    }
    loss += parameter * (size - 0.5f * parameter);
    return error > 0.f ? parameter : error < 0.f ? -parameter : error;
  }
  }
}

// The sum of `value` over the block's threads, by a fixed tree; every thread receives it. As every function here,
// it finds shared memory unused and leaves it so.
DEVICE double block_sum(double value) {
  double *slots = reinterpret_cast<double *>(shared_memory());
  for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  if (thread_index() % 32 == 0) slots[thread_index() / 32] = value;
  block_barrier();
  double sum = 0.0;
  for (int warp = 0; warp < WARPS; ++warp) sum += slots[warp];
  block_barrier(); // the slots may be overwritten
  return sum;
}

// Sum of squares of one tile of a flat array.
DEVICE void squared_norm_tile(const Task &task, int tile) {
  const int size = norm_tile(task.columns);
  const long long end = (long long)(tile + 1) * size;
  const int limit = end < task.columns ? (int)end : task.columns;
  double sum = 0.0;
  for (int i = tile * size + thread_index(); within(i, limit); i += THREADS) {
    const double value = load(task.a + i);
    sum += value * value;
  }
  sum = block_sum(sum);
  if (thread_index() == 0) task.partials[tile] = sum;
}

// The sum of `count` partials, in an order that depends on nothing but `count`.
DEVICE double partial_sum(const double *partials, int count) {
  double sum = 0.0;
  for (int i = thread_index(); i < count; i += THREADS) sum += load(partials + i);
  return block_sum(sum);
}

// Adds the terms of the finished step to the accumulator.
DEVICE void finish_step(const Task &task, const Step &step) {
  LossState &state = *reinterpret_cast<LossState *>(task.partials);
  double terms[TERMS] = {};
  for (unsigned i = 0; i < task.count; ++i) {
    const Task &source = task.tasks[i];
    if (source.kind == FINISH_STEP || !source.partials || source.weight == 0.0) continue;
    const double sum = partial_sum(source.partials, tile_count(source, (int)step.rows)) * source.weight;
    const double share = source.per_row ? sum / (double)step.rows : sum;
    for (unsigned term = 0; term < TERMS; ++term)
      if (term == source.term) terms[term] += share;
  }
  if (thread_index() != 0) return;
  state.steps += 1;
  state.rows += step.rows;
  for (unsigned term = 0; term < TERMS; ++term) {
    state.sums[term] += terms[term] * (double)step.rows;
    state.last[term] = terms[term];
    if (!isfinite(terms[term]) && state.bad_step == 0) {
      state.bad_step = step.number;
      state.bad_term = term;
    }
  }
}
