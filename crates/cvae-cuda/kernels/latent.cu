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

DEVICE float reparameterize(float mean, float logvar, float noise) {
  return mean + expf(0.5f * clamp_logvar(logvar)) * noise;
}

// ∂code/∂s
DEVICE float reparameterize_grad(float logvar, float noise) {
  return logvar_inside(logvar) ? 0.5f * expf(0.5f * logvar) * noise : 0.f;
}
