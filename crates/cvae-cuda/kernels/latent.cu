// The latent terms, and the sampling of a code.
#pragma once

// Bounds of the log-variance (cvae_core::Latent::LOG_VARIANCE).
constexpr float LOG_VARIANCE_MIN = -30.f;
constexpr float LOG_VARIANCE_MAX = 20.f;

DEVICE float clamp_logvar(float s) {
  return s < LOG_VARIANCE_MIN ? LOG_VARIANCE_MIN : s > LOG_VARIANCE_MAX ? LOG_VARIANCE_MAX : s;
}

// Whether a gradient passes through the bounds.
DEVICE bool logvar_inside(float s) { return s >= LOG_VARIANCE_MIN && s <= LOG_VARIANCE_MAX; }

// `½x²`, the prior's share of the collapsed objective and the mean's share of the divergence; its derivative is x.
DEVICE float half_square(float x, float &loss) {
  loss += 0.5f * x * x;
  return x;
}

// `½(e^s − 1 − s)`, the log-variance's share of the divergence, and its derivative.
DEVICE float kl_logvar(float logvar, float &loss) {
  const float s = clamp_logvar(logvar);
  const float excess = expm1f(s);
  loss += 0.5f * (excess - s);
  return logvar_inside(logvar) ? 0.5f * excess : 0.f;
}

// `|x|`, the share of a sparse code's penalty; its derivative is the sign, 0 at 0.
DEVICE float absolute(float x, float &loss) {
  loss += fabsf(x);
  return x > 0.f ? 1.f : x < 0.f ? -1.f : x;
}

// Whether element `column` is among the `k` of its row's `width` with the largest magnitudes; of equal ones the
// lower column goes first.
DEVICE bool among_largest(const float *row, int width, int column, unsigned k) {
  const unsigned own = float_bits(load(row + column)) & 0x7fffffffu; // magnitudes order as their bits do
  unsigned before = 0;
  for (int other = 0; other < width; ++other) {
    const unsigned bits = float_bits(load(row + other)) & 0x7fffffffu;
    before += bits > own || (bits == own && other < column);
  }
  return before < k;
}

DEVICE float reparameterize(float mean, float logvar, float noise) {
  return mean + expf(0.5f * clamp_logvar(logvar)) * noise;
}

// ∂code/∂s
DEVICE float reparameterize_grad(float logvar, float noise) {
  return logvar_inside(logvar) ? 0.5f * expf(0.5f * logvar) * noise : 0.f;
}
