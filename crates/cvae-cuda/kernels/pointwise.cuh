// The elementwise operations, alone or as the epilogue of a product.
#pragma once

// Applies the task's points to the running value of one output element. `clip` scales gradients before an update.
DEVICE_CALL void apply_points(const Task &task, const Step &step, int row, int column, float v, float clip, float &loss) {
  const size_t i = (size_t)row * task.ldc + column;
  NO_UNROLL
  for (unsigned p = 0; p < task.points; ++p) {
    const Point &point = task.point[p];
    switch (point.op) {
    case LOAD: v = load(point.first + i); break;
    case NOISE: v = noise(step, point.variant, row, column); break;
    case ADD_BIAS: v += load(point.first + column); break;
    case ACTIVATE: v = activate(point.variant, v); break;
    case ACTIVATE_GRAD: v *= activate_grad(point.variant, load(point.first + i)); break;
    case RECONSTRUCTION_GRAD:
      v = reconstruction(point.variant, point.scale, v, load(point.first + i), loss) * step.inv_rows;
      break;
    case COLLAPSED_PRIOR:
    case KL_MEAN: v += point.scale * half_square(load(point.first + i), loss) * step.inv_rows; break;
    case KL_LOGVAR: v += point.scale * kl_logvar(load(point.first + i), loss) * step.inv_rows; break;
    case REPARAMETERIZE: v = reparameterize(load(point.first + i), load(point.second + i), v); break;
    case REPARAMETERIZE_GRAD: v *= reparameterize_grad(load(point.first + i), load(point.second + i)); break;
    case ADD_SCALED: v = point.scale * v + point.other * load(point.first + i); break;
    case UPDATE: update(point.variant, step.update, clip * v, point.first + i, point.second + i, point.third + i); break;
    }
    if (point.store) point.store[i] = v;
  }
}

// Writes the loss sum of a tile, when the task has one.
DEVICE void store_loss(const Task &task, int tile, float loss) {
  if (!task.partials) return;
  const double sum = block_sum((double)loss);
  if (thread_index() == 0) task.partials[tile] = sum;
}

DEVICE void pointwise_tile(const Task &task, const Step &step, int tile) {
  const int elements = output_rows(task, (int)step.rows) * task.ldc;
  const float clip = task.clip_partials ? clip_factor(task) : 1.f;
  float loss = 0.f;
  for (int offset = thread_index(); offset < POINTWISE_TILE; offset += THREADS) {
    const int i = tile * POINTWISE_TILE + offset;
    if (!within(i, elements)) break;
    const int row = i / task.ldc, column = i % task.ldc;
    if (within(column, task.columns)) apply_points(task, step, row, column, 0.f, clip, loss);
  }
  store_loss(task, tile, loss);
}
