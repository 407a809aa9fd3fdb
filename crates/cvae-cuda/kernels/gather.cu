// The batch's rows, picked from resident data and converted to floats.
#pragma once

DEVICE void gather_tile(const Task &task, const Step &step, int tile) {
  const int elements = (int)step.rows * task.ldc;
  for (int offset = thread_index(); offset < POINTWISE_TILE; offset += THREADS) {
    const int i = tile * POINTWISE_TILE + offset;
    if (!within(i, elements)) break;
    const int row = i / task.ldc, column = i % task.ldc;
    if (!within(column, task.columns)) continue;
    const size_t source = (size_t)(step.order ? step.order[row] : (unsigned)row) * task.columns + column;
    const float value = step.bytes ? (float)static_cast<const unsigned char *>(step.data)[source] * step.scale
                                   : static_cast<const float *>(step.data)[source];
    task.point[0].store[i] = value;
  }
}
