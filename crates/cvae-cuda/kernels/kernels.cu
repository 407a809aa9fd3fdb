// The kernels: one phase per launch, or many steps per cooperative launch, over the same device functions.
#include "device.cuh"
#include "task.cuh"
#include "activation.cuh"
#include "noise.cu"
#include "reconstruction.cu"
#include "latent.cu"
#include "corruption.cu"
#include "mixed.cu"
#include "optimizer.cu"
#include "pointwise.cuh"
#include "linear.cu"
#include "gather.cu"
#include "coupled.cu"
#include "spectral.cu"

template <class Precision> DEVICE void run_tile(const Task &task, const Step &step, int tile) {
  switch (task.kind) {
  case LINEAR: product_tile_of_shape<Precision, true, true>(task, step, tile); break;
  case GRAD_INPUT: product_tile_of_shape<Precision, true, false>(task, step, tile); break;
  case GRAD_WEIGHT: product_tile_of_shape<Precision, false, false>(task, step, tile); break;
  case GRAD_BIAS: bias_tile(task, step, tile); break;
  case POINTWISE: pointwise_tile(task, step, tile); break;
  case GATHER: gather_tile(task, step, tile); break;
  case SQUARED_NORM: squared_norm_tile(task, tile); break;
  case SIGMA_SLOPE: sigma_slope(task, step); break;
  case KL_SLOPES: kl_slopes(task, step); break;
  case DISCREPANCY: discrepancy_row(task, step, tile); break;
  case SPECTRAL: spectral(task); break;
  case SPECTRAL_GRAD: spectral_grad_row(task, tile); break;
  default: finish_step(task, step);
  }
}

// Deals the tiles of the phase's tasks to the blocks, one after the other.
template <class Precision> DEVICE void run_phase(const Task *tasks, int count, const Step &step) {
  int tile = block_index();
  for (int i = 0; i < count; ++i) {
    const int tiles = tile_count(tasks[i], (int)step.rows);
    for (; tile < tiles; tile += grid_size()) run_tile<Precision>(tasks[i], step, tile);
    tile -= tiles;
  }
}

// Runs `step_count` steps in one cooperative launch, a grid barrier after every phase.
template <class Precision>
DEVICE void run_steps(const Task *tasks, const Phase *phases, int phase_count, const Step *steps, int step_count,
                      unsigned *barrier) {
  unsigned round = 0;
  for (int s = 0; s < step_count; ++s)
    for (int p = 0; p < phase_count; ++p) {
      run_phase<Precision>(tasks + phases[p].first, (int)phases[p].count, steps[s]);
      grid_barrier(barrier, ++round);
    }
}

#define KERNELS(name, Precision)                                                                                    \
  KERNEL(2) phase_##name(const Task *tasks, int count, const Step *steps, int step) {                               \
    run_phase<Precision>(tasks, count, steps[step]);                                                                \
  }                                                                                                                 \
  KERNEL(1) steps_##name(const Task *tasks, const Phase *phases, int phase_count, const Step *steps, int step_count, \
                         unsigned *barrier) {                                                                       \
    run_steps<Precision>(tasks, phases, phase_count, steps, step_count, barrier);                                   \
  }

KERNELS(f32, F32)
KERNELS(tf32, Tf32)
KERNELS(bf16, Bf16)
