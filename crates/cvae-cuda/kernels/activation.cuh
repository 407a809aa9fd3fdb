// Activation functions and their derivatives (docs/MATH.md, "Activations"). Numbers follow
// cvae_core::Activation's declaration order.
#pragma once

enum Activation : unsigned { IDENTITY = 0, RELU, LEAKY_RELU, ELU, GELU, SILU, TANH, SIGMOID };

constexpr float LEAKY_SLOPE = 0.01f;
constexpr float INV_SQRT_2 = 0.70710678118654752440f;
constexpr float INV_SQRT_2_PI = 0.39894228040143267794f;

DEVICE float sigmoid(float a) { return 1.f / (1.f + expf(-a)); }

// Φ, the distribution function of the standard normal.
DEVICE float normal_cdf(float a) { return 0.5f * erfcf(-a * INV_SQRT_2); }

DEVICE float activate(unsigned activation, float a) {
  switch (activation) {
  case RELU: return a <= 0.f ? 0.f : a; // NaN stays NaN
  case LEAKY_RELU: return a > 0.f ? a : LEAKY_SLOPE * a;
  case ELU: return a > 0.f ? a : expm1f(a);
  case GELU: return a * normal_cdf(a);
  case SILU: return a * sigmoid(a);
  case TANH: return tanhf(a);
  case SIGMOID: return sigmoid(a);
  default: return a;
  }
}

// The derivative. `saved` is the activation's output, for GELU and SILU its input.
DEVICE float activate_grad(unsigned activation, float saved) {
  switch (activation) {
  case RELU: return saved > 0.f ? 1.f : 0.f;
  case LEAKY_RELU: return saved > 0.f ? 1.f : LEAKY_SLOPE;
  case ELU: return saved > 0.f ? 1.f : saved + 1.f;
  case GELU: return normal_cdf(saved) + saved * INV_SQRT_2_PI * expf(-0.5f * saved * saved);
  case SILU: {
    const float s = sigmoid(saved);
    return s * (1.f + saved * (1.f - s));
  }
  case TANH: return 1.f - saved * saved;
  case SIGMOID: return saved * (1.f - saved);
  default: return 1.f;
  }
}

// The second derivative, from the same saved value.
DEVICE float activate_grad_grad(unsigned activation, float saved) {
  switch (activation) {
  case ELU: return saved > 0.f ? 0.f : saved + 1.f;
  case GELU: return INV_SQRT_2_PI * expf(-0.5f * saved * saved) * (2.f - saved * saved);
  case SILU: {
    const float s = sigmoid(saved);
    return s * (1.f - s) * (2.f + saved * (1.f - 2.f * s));
  }
  case TANH: return -2.f * saved * (1.f - saved * saved);
  case SIGMOID: return saved * (1.f - saved) * (1.f - 2.f * saved);
  default: return 0.f;
  }
}
