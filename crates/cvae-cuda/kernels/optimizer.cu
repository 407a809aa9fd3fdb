// The update rules (docs/MATH.md, "Optimisers").
#pragma once

enum UpdateRule : unsigned { ADAM = 0, SGD = 1 };

// One optimiser step of one parameter.
DEVICE void update(unsigned rule, const UpdateScalars &s, float grad, float *param, float *moment1, float *moment2) {
  if (rule == SGD) {
    const float velocity = s.beta1 * load(moment1) + grad;
    *moment1 = velocity;
    *param = load(param) - s.step_size * velocity;
    return;
  }
  const float m = s.beta1 * load(moment1) + s.one_minus_beta1 * grad;
  const float v = s.beta2 * load(moment2) + s.one_minus_beta2 * grad * grad;
  *moment1 = m;
  *moment2 = v;
  *param = s.keep * load(param) - s.step_size * m / (sqrtf(v) * s.inv_sqrt_correction + s.eps);
}

// The factor that brings the gradients' norm down to the limit, from their squared norms.
DEVICE float clip_factor(const Task &task) {
  const double norm = sqrt(partial_sum(task.clip_partials, (int)task.count));
  return norm > task.clip_norm ? (float)(task.clip_norm / norm) : 1.f;
}
