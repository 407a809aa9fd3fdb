//! The latent terms: collapsed prior, Kullback-Leibler divergence, and sampling by reparameterisation
//! (docs/MATH.md, "Latent terms").

use cvae_core::{KlBound, Latent};

/// A log-variance clamped to [`Latent::LOG_VARIANCE`], and the slope of the clamp: 1 inside the bounds, which
/// belong to the inside, and 0 outside.
fn clamp(logvar: f64) -> (f64, f64) {
    let (low, high) = Latent::LOG_VARIANCE;
    let inside = (low..=high).contains(&logvar);
    (logvar.clamp(low, high), if inside { 1.0 } else { 0.0 })
}

/// Adds the gradient `beta·z/rows` of the prior to `grad`; returns the term `beta·½‖z‖²`, averaged over rows.
pub(crate) fn collapsed_prior(beta: f64, code: &[f64], grad: &[f64], rows: usize, output: &mut [f64]) -> f64 {
    let rows = rows as f64;
    let mut sum = 0.0;
    for ((out, z), g) in output.iter_mut().zip(code).zip(grad) {
        sum += 0.5 * z * z;
        *out = g + beta * z / rows;
    }
    beta * sum / rows
}

/// Mean and log-variance of the posterior, or two arrays of gradients by them.
pub(crate) struct Posterior<T> {
    /// μ.
    pub(crate) mean: T,
    /// s, before clamping.
    pub(crate) logvar: T,
}

/// Adds the gradients of the divergence to `grad`; returns the term `beta·½Σ(μ² + e^s − 1 − s)`, averaged
/// over rows.
pub(crate) fn kl_divergence(
    beta: f64,
    posterior: &Posterior<&[f64]>,
    grad: &Posterior<&[f64]>,
    rows: usize,
    output: &mut Posterior<&mut [f64]>,
) -> f64 {
    let rows = rows as f64;
    let mut sum = 0.0;
    for (i, (mu, logvar)) in posterior.mean.iter().zip(posterior.logvar).enumerate() {
        let (s, slope) = clamp(*logvar);
        sum += 0.5 * (mu * mu + (s.exp_m1() - s));
        output.mean[i] = grad.mean[i] + beta * mu / rows;
        output.logvar[i] = grad.logvar[i] + slope * beta * 0.5 * s.exp_m1() / rows;
    }
    beta * sum / rows
}

/// Adds the gradients of the bounded divergence to `grad`; returns the term. Means are over the batch.
pub(crate) fn kl_bounded(
    bound: KlBound,
    width: usize,
    posterior: &Posterior<&[f64]>,
    grad: &Posterior<&[f64]>,
    output: &mut Posterior<&mut [f64]>,
) -> f64 {
    let rows = (posterior.mean.len() / width) as f64;
    let mut means = vec![0.0; width];
    for (i, (mu, logvar)) in posterior.mean.iter().zip(posterior.logvar).enumerate() {
        let (s, _) = clamp(*logvar);
        means[i % width] += 0.5 * (mu * mu + (s.exp_m1() - s)) / rows;
    }
    let (term, slopes): (f64, Vec<f64>) = match bound {
        KlBound::Capacity { gamma, capacity } => {
            let excess = means.iter().sum::<f64>() - capacity;
            let slope = if excess == 0.0 { 0.0 } else { gamma * excess.signum() };
            (gamma * excess.abs(), vec![slope; width])
        }
        KlBound::FreeBits { beta, floor } => {
            let slopes = means.iter().map(|mean| if *mean > floor { beta } else { 0.0 });
            (beta * means.iter().map(|mean| mean.max(floor)).sum::<f64>(), slopes.collect())
        }
    };
    for (i, (mu, logvar)) in posterior.mean.iter().zip(posterior.logvar).enumerate() {
        let (s, inside) = clamp(*logvar);
        let slope = slopes[i % width] / rows;
        output.mean[i] = grad.mean[i] + slope * mu;
        output.logvar[i] = grad.logvar[i] + inside * slope * 0.5 * s.exp_m1();
    }
    term
}

/// `output = μ + e^(s/2)·ε`.
pub(crate) fn reparameterize(posterior: &Posterior<&[f64]>, noise: &[f64], output: &mut [f64]) {
    for (((out, mu), logvar), eps) in output.iter_mut().zip(posterior.mean).zip(posterior.logvar).zip(noise) {
        let (s, _) = clamp(*logvar);
        *out = mu + (0.5 * s).exp() * eps;
    }
}

/// Gradient of the log-variance through sampling: `output = grad·ε·½e^(s/2)` inside the bounds, else 0.
pub(crate) fn reparameterize_grad(grad: &[f64], logvar: &[f64], noise: &[f64], output: &mut [f64]) {
    for (((out, g), logvar), eps) in output.iter_mut().zip(grad).zip(logvar).zip(noise) {
        let (s, slope) = clamp(*logvar);
        *out = slope * g * eps * 0.5 * (0.5 * s).exp();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kl(mean: f64, logvar: f64) -> (f64, f64, f64) {
        let (mut dm, mut ds) = ([f64::NAN], [f64::NAN]);
        let posterior = Posterior { mean: &[mean][..], logvar: &[logvar][..] };
        let grad = Posterior { mean: &[0.0][..], logvar: &[0.0][..] };
        let mut output = Posterior { mean: &mut dm[..], logvar: &mut ds[..] };
        let term = kl_divergence(1.0, &posterior, &grad, 1, &mut output);
        (term, dm[0], ds[0])
    }

    #[test]
    fn prior_by_hand() {
        let mut output = [f64::NAN; 4];
        let term = collapsed_prior(0.5, &[1.0, -2.0, 3.0, 0.0], &[10.0, 20.0, 30.0, 40.0], 2, &mut output);
        assert_eq!((term, output), (1.75, [10.25, 19.5, 30.75, 40.0]));
    }

    #[test]
    fn divergence_of_the_prior_from_itself_is_zero() {
        assert_eq!(kl(0.0, 0.0), (0.0, 0.0, 0.0));
    }

    /// `KL(N(μ, σ²) ‖ N(0, 1)) = ∫ q ln(q/p)`, by the trapezium rule.
    #[test]
    fn divergence_equals_its_integral() {
        for (mu, logvar) in [(0.0, 0.5), (1.0, -1.0), (-2.0, 1.0), (0.3, -3.0)] {
            let sigma = (0.5f64 * logvar).exp();
            let step = 1e-3;
            let integral: f64 = (-12_000..=12_000)
                .map(|k| {
                    let e = f64::from(k) * step;
                    let x = mu + sigma * e;
                    let density = (-0.5 * e * e).exp() / (2.0 * std::f64::consts::PI).sqrt();
                    density * (-0.5 * e * e - sigma.ln() + 0.5 * x * x) * step
                })
                .sum();
            let (term, ..) = kl(mu, logvar);
            assert!((term - integral).abs() < 1e-12, "{term} against {integral}");
        }
    }

    #[test]
    fn divergence_keeps_its_digits_near_the_prior() {
        let s = 1e-6;
        let (term, _, slope) = kl(0.0, s);
        assert!((term / (0.25 * s * s) - 1.0).abs() < 1e-3, "{term}");
        assert!((slope / (0.5 * s) - 1.0).abs() < 1e-6, "{slope}");
    }

    #[test]
    fn gradient_vanishes_outside_the_clamp() {
        let (low, high) = Latent::LOG_VARIANCE;
        for (bound, outside) in [(low, low - 1e-9), (high, high + 1e-9), (low, -1e4), (high, 1e4)] {
            let ((term, _, _), (clamped, _, slope)) = (kl(0.5, bound), kl(0.5, outside));
            assert_eq!((clamped, slope), (term, 0.0), "log-variance {outside}");
            let (mut sample, mut grad) = ([0.0], [f64::NAN]);
            let posterior = Posterior { mean: &[1.0][..], logvar: &[outside][..] };
            reparameterize(&posterior, &[2.0], &mut sample);
            assert_eq!(sample[0], 1.0 + 2.0 * (0.5 * bound).exp());
            reparameterize_grad(&[1.0], &[outside], &[2.0], &mut grad);
            assert_eq!(grad[0], 0.0);
        }
        for bound in [low, high] {
            assert_eq!(kl(0.0, bound).2, 0.5 * bound.exp_m1(), "the bounds are inside");
        }
    }
}
