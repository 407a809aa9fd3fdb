// The elementwise operations, alone or as the epilogue of a product.
#pragma once

// The constants of a point, an entry per column.
template <class Entry> DEVICE const Entry *table(const Point &point) {
  return reinterpret_cast<const Entry *>(point.third);
}

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
    case RECONSTRUCTION_GRAD: {
      const float weight = point.second ? load(point.second + i) : 1.f;
      float share = 0.f;
      v = reconstruction(point.variant, point.scale, v, load(point.first + i), share) * weight * step.inv_rows;
      loss += share * weight;
      break;
    }
    case COLLAPSED_PRIOR: v += point.scale * half_square(load(point.first + i), loss) * step.inv_rows; break;
    case KL_MEAN:
    case KL_LOGVAR: {
      const float slope = point.second ? load(point.second + column) : point.scale, x = load(point.first + i);
      float share = 0.f;
      v += slope * (point.op == KL_MEAN ? half_square(x, share) : kl_logvar(x, share)) * step.inv_rows;
      if (!point.second) loss += share;
      break;
    }
    case REPARAMETERIZE: v = reparameterize(load(point.first + i), load(point.second + i), v); break;
    case REPARAMETERIZE_GRAD: v *= reparameterize_grad(load(point.first + i), load(point.second + i)); break;
    case ADD_SCALED: v = point.scale * v + point.other * load(point.first + i); break;
    case MASK: v = mark(step, table<unsigned>(point), point.variant, row, column); break;
    case ERASE: v = v == 0.f ? load(point.first + i) : 0.f; break;
    case PERMUTE: {
      const int source = v == 0.f ? row : donor(step, table<unsigned>(point), row, column);
      v = load(point.first + (size_t)source * task.ldc + column);
      break;
    }
    case SHIFT: {
      const int source = v == 0.f ? column : moved(step, table<unsigned>(point), task.columns, row, column);
      v = source < 0 ? 0.f : load(point.first + (i - column) + source);
      break;
    }
    case OBSERVE: v = v == v ? v : 0.f; break; // NaN alone differs from itself
    case OBSERVED: v = v == v ? 1.f : 0.f; break;
    case MULTIPLY: v *= load(point.first + i); break;
    case SCALE: v *= load(point.first); break;
    case TOP_K: v = among_largest(point.first + (i - column), task.columns, column, point.variant) ? v : 0.f; break;
    case TOP_K_GRAD: v = load(point.first + i) == 0.f ? 0.f : v; break;
    case CODE_L1: v += point.scale * absolute(load(point.first + i), loss) * step.inv_rows; break;
    case SIGNS: v = random_sign(step, point.variant, row, column); break;
    case UNIT_VECTOR: v = (unsigned)column == point.variant ? 1.f : 0.f; break;
    case JACOBIAN_NORM:
      loss += v * v;
      v *= 2.f * point.scale * step.inv_rows;
      break;
    case ACTIVATE_GRAD_GRAD:
      v += activate_grad_grad(point.variant, load(point.first + i)) * load(point.second + i) * load(point.third + i);
      break;
    case SQUARED_ERROR: {
      const float error = v - load(point.first + i);
      loss += (point.second ? load(point.second + i) : 1.f) * error * error;
      break;
    }
    case SIGMA_GRAD: {
      const float weight = point.second ? load(point.second + i) : 1.f;
      v = weight * (v - load(point.first + i)) * load(point.third);
      break;
    }
    case MIXED_GRAD: {
      const float *weights = point.second ? point.second + (i - column) : nullptr;
      v = mixed_grad(point.variant, point.scale, table<ColumnGroup>(point)[column], column,
                     task.a + (size_t)row * task.lda, point.first + (i - column), weights, loss) * step.inv_rows;
      break;
    }
    case MIXED_OUTPUT:
      v = mixed_output(table<ColumnGroup>(point)[column], column, task.a + (size_t)row * task.lda);
      break;
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
