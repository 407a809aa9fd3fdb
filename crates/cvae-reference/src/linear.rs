//! The affine map `output = input · Wᵀ + b` and its two gradients. `W` is `[out, in]`, row-major.

/// `output[r, o] = Σ_i input[r, i]·W[o, i] + b[o]`.
pub(crate) fn forward(input: &[f64], weight: &[f64], bias: Option<&[f64]>, width: usize, output: &mut [f64]) {
    let units = weight.len() / width;
    for (row, out) in input.chunks_exact(width).zip(output.chunks_exact_mut(units)) {
        for (unit, value) in out.iter_mut().enumerate() {
            let weights = &weight[unit * width..][..width];
            *value = row.iter().zip(weights).map(|(x, w)| x * w).sum::<f64>() + bias.map_or(0.0, |bias| bias[unit]);
        }
    }
}

/// Gradient of the input: `output[r, i] = Σ_o grad[r, o]·W[o, i]`.
pub(crate) fn grad_input(grad: &[f64], weight: &[f64], width: usize, output: &mut [f64]) {
    let units = weight.len() / width;
    for (grads, out) in grad.chunks_exact(units).zip(output.chunks_exact_mut(width)) {
        out.fill(0.0);
        for (g, weights) in grads.iter().zip(weight.chunks_exact(width)) {
            for (value, w) in out.iter_mut().zip(weights) {
                *value += g * w;
            }
        }
    }
}

/// The regulariser's part of a parameter's gradient: `output = decay·θ`.
pub(crate) fn grad_decay(param: &[f64], decay: f64, output: &mut [f64]) {
    for (out, theta) in output.iter_mut().zip(param) {
        *out = decay * theta;
    }
}

/// Adds the gradient of the weight: `output[o, i] += Σ_r grad[r, o]·input[r, i]`.
pub(crate) fn add_grad_weight(input: &[f64], grad: &[f64], width: usize, output: &mut [f64]) {
    let units = output.len() / width;
    for (row, grads) in input.chunks_exact(width).zip(grad.chunks_exact(units)) {
        for (g, out) in grads.iter().zip(output.chunks_exact_mut(width)) {
            for (value, x) in out.iter_mut().zip(row) {
                *value += g * x;
            }
        }
    }
}

/// Adds the gradient of the bias: `output[o] += Σ_r grad[r, o]`.
pub(crate) fn add_grad_bias(grad: &[f64], output: &mut [f64]) {
    for grads in grad.chunks_exact(output.len()) {
        for (out, g) in output.iter_mut().zip(grads) {
            *out += g;
        }
    }
}

/// The regulariser `(coefficient/2)·‖θ‖²` of one parameter; its gradient is the `decay` above.
pub(crate) fn param_norm(coefficient: f64, param: &[f64]) -> f64 {
    0.5 * coefficient * param.iter().map(|p| p * p).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: [f64; 6] = [1.0, 2.0, 3.0, -1.0, 0.5, 4.0];
    const WEIGHT: [f64; 6] = [0.5, -1.0, 2.0, 1.0, 3.0, -0.25];
    const GRAD: [f64; 4] = [1.0, -2.0, 0.5, 4.0];

    #[test]
    fn forward_by_hand() {
        let mut output = [0.0; 4];
        forward(&INPUT, &WEIGHT, Some(&[10.0, 20.0]), 3, &mut output);
        assert_eq!(output, [14.5, 26.25, 17.0, 19.5]);
        forward(&INPUT, &WEIGHT, None, 3, &mut output);
        assert_eq!(output, [4.5, 6.25, 7.0, -0.5]);
    }

    #[test]
    fn gradients_by_hand() {
        let mut input_grad = [f64::NAN; 6];
        grad_input(&GRAD, &WEIGHT, 3, &mut input_grad);
        assert_eq!(input_grad, [-1.5, -7.0, 2.5, 4.25, 11.5, 0.0]);
        let mut weight_grad = [f64::NAN; 6];
        grad_decay(&WEIGHT, 0.0, &mut weight_grad);
        add_grad_weight(&INPUT, &GRAD, 3, &mut weight_grad);
        assert_eq!(weight_grad, [0.5, 2.25, 5.0, -6.0, -2.0, 10.0]);
        grad_decay(&WEIGHT, 2.0, &mut weight_grad);
        add_grad_weight(&INPUT, &GRAD, 3, &mut weight_grad);
        assert_eq!(weight_grad, [1.5, 0.25, 9.0, -4.0, 4.0, 9.5]);
        let mut bias_grad = [f64::NAN; 2];
        grad_decay(&[1.0, 3.0], 0.5, &mut bias_grad);
        add_grad_bias(&GRAD, &mut bias_grad);
        assert_eq!(bias_grad, [2.0, 3.5]);
        assert_eq!(param_norm(0.5, &[1.0, -3.0]), 2.5);
    }
}
