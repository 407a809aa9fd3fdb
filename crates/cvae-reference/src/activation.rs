//! Elementwise activations and their derivatives (docs/MATH.md, "Activations").

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use cvae_core::Activation;

/// `output = act(input)`.
pub(crate) fn forward(activation: Activation, input: &[f64], output: &mut [f64]) {
    for (out, a) in output.iter_mut().zip(input) {
        *out = value(activation, *a);
    }
}

/// `output = grad ⊙ act'(·)`, with `saved` the activation's output if
/// [`Activation::derivative_from_output`], else its input.
pub(crate) fn backward(activation: Activation, saved: &[f64], grad: &[f64], output: &mut [f64]) {
    for ((out, s), g) in output.iter_mut().zip(saved).zip(grad) {
        *out = g * derivative(activation, *s);
    }
}

fn value(activation: Activation, a: f64) -> f64 {
    match activation {
        Activation::Identity => a,
        Activation::Relu if a < 0.0 => 0.0,
        Activation::LeakyRelu if a < 0.0 => Activation::LEAKY_SLOPE * a,
        Activation::Elu if a < 0.0 => a.exp_m1(),
        Activation::Relu | Activation::LeakyRelu | Activation::Elu => a,
        Activation::Gelu => a * normal_cdf(a),
        Activation::Silu => a * sigmoid(a),
        Activation::Tanh => a.tanh(),
        Activation::Sigmoid => sigmoid(a),
    }
}

/// Derivative from the saved value: the output `y`, or the input `a` of gelu and silu.
fn derivative(activation: Activation, saved: f64) -> f64 {
    match activation {
        Activation::Identity => 1.0,
        Activation::Relu | Activation::LeakyRelu | Activation::Elu if saved > 0.0 => 1.0,
        Activation::Relu => 0.0,
        Activation::LeakyRelu => Activation::LEAKY_SLOPE,
        Activation::Elu => saved + 1.0,
        Activation::Gelu => normal_cdf(saved) + saved * normal_density(saved),
        Activation::Silu => {
            let s = sigmoid(saved);
            s * (1.0 + saved * (1.0 - s))
        }
        Activation::Tanh => 1.0 - saved * saved,
        Activation::Sigmoid => saved * (1.0 - saved),
    }
}

/// Second derivative, from the saved value as above. It is 0 at the kink of [`Activation::Elu`]'s positive side.
pub(crate) fn second_derivative(activation: Activation, saved: f64) -> f64 {
    match activation {
        Activation::Identity | Activation::Relu | Activation::LeakyRelu => 0.0,
        Activation::Elu if saved > 0.0 => 0.0,
        Activation::Elu => saved + 1.0,
        Activation::Gelu => normal_density(saved) * (2.0 - saved * saved),
        Activation::Silu => {
            let s = sigmoid(saved);
            s * (1.0 - s) * (2.0 + saved * (1.0 - 2.0 * s))
        }
        Activation::Tanh => -2.0 * saved * (1.0 - saved * saved),
        Activation::Sigmoid => saved * (1.0 - saved) * (1.0 - 2.0 * saved),
    }
}

/// `1 / (1 + e^−a)`; the exponential may overflow to infinity, which gives the correct limit 0.
pub(crate) fn sigmoid(a: f64) -> f64 {
    1.0 / (1.0 + (-a).exp())
}

/// `Φ(a) = ½ erfc(−a/√2)`, accurate in both tails.
fn normal_cdf(a: f64) -> f64 {
    0.5 * libm::erfc(-a * FRAC_1_SQRT_2)
}

/// `φ(a) = e^(−a²/2) / √(2π)`.
fn normal_density(a: f64) -> f64 {
    (-0.5 * a * a).exp() / (2.0 * PI).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values at ±1 (and −3 for the tails), from the closed forms evaluated to 16 digits.
    #[test]
    fn known_values() {
        let table = [
            (Activation::Identity, -3.0, -3.0),
            (Activation::Relu, -1.0, 0.0),
            (Activation::Relu, 1.0, 1.0),
            (Activation::LeakyRelu, -3.0, -0.03),
            (Activation::LeakyRelu, 1.0, 1.0),
            (Activation::Elu, -1.0, -0.632_120_558_828_557_7),
            (Activation::Elu, 1.0, 1.0),
            (Activation::Gelu, 1.0, 0.841_344_746_068_542_9),
            (Activation::Gelu, -3.0, -0.004_049_694_094_890_287),
            (Activation::Silu, 1.0, 0.731_058_578_630_004_9),
            (Activation::Silu, -1.0, -0.268_941_421_369_995_1),
            (Activation::Tanh, 1.0, 0.761_594_155_955_764_9),
            (Activation::Sigmoid, 1.0, 0.731_058_578_630_004_9),
        ];
        for (activation, a, expected) in table {
            let found = value(activation, a);
            assert!((found - expected).abs() < 1e-15, "{activation}({a}) = {found}, expected {expected}");
        }
    }

    #[test]
    fn derivatives_match_differences() {
        for activation in Activation::ALL {
            for a in [-6.0, -2.5, -1.0, -0.1, 0.1, 0.7, 1.9, 5.0] {
                let h = 1e-5;
                let expected = (value(activation, a + h) - value(activation, a - h)) / (2.0 * h);
                let saved = if activation.derivative_from_output() { value(activation, a) } else { a };
                let found = derivative(activation, saved);
                assert!((found - expected).abs() < 1e-9, "{activation}'({a}) = {found}, expected {expected}");
                let slope_at = |a: f64| {
                    derivative(activation, if activation.derivative_from_output() { value(activation, a) } else { a })
                };
                let expected = (slope_at(a + h) - slope_at(a - h)) / (2.0 * h);
                let found = second_derivative(activation, saved);
                assert!((found - expected).abs() < 1e-9, "{activation}''({a}) = {found}, expected {expected}");
            }
        }
    }

    #[test]
    fn extreme_inputs_stay_finite() {
        for activation in Activation::ALL {
            for a in [-1e4, 1e4, -700.0, 700.0] {
                let y = value(activation, a);
                let saved = if activation.derivative_from_output() { y } else { a };
                assert!(y.is_finite() && derivative(activation, saved).is_finite(), "{activation}({a})");
            }
            assert!(value(activation, f64::NAN).is_nan(), "{activation} must not hide a NaN");
        }
    }
}
