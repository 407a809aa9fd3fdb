//! The terms of the loss as their definitions say.

use cvae_core::{ColumnGroup, ColumnKind, Latent, Objective, Reconstruction};

use crate::direct::branches::{Branches, Side};

/// One element's reconstruction term in a row of `width`: `y` is the output, or the logit of a cross-entropy.
pub(super) fn element(kind: Reconstruction, y: f64, x: f64, width: usize, branches: &mut Branches) -> f64 {
    let e = y - x;
    match kind {
        Reconstruction::MseSum => e.powi(2) / 2.0,
        Reconstruction::MseMean => e.powi(2) / width as f64,
        Reconstruction::Bce => y.max(0.0) + (-y.abs()).exp().ln_1p() - y * x,
        Reconstruction::L1 if branches.side(e, (0.0, 0.0)) == Side::Below => -e,
        Reconstruction::L1 => e,
        Reconstruction::Huber { delta } => match branches.side(e, (-delta, delta)) {
            Side::Below => delta * -e - delta.powi(2) / 2.0,
            Side::Inside => e.powi(2) / 2.0,
            Side::Above => delta * e - delta.powi(2) / 2.0,
        },
    }
}

/// The reconstruction term of one row, but for a learnt variance. `weights` are 0 where an element is left out.
pub(super) fn row(objective: &Objective, output: &[f64], row: &[f64], weights: &[f64], branches: &mut Branches) -> f64 {
    let width = row.len();
    let whole = [ColumnGroup::new(ColumnKind::Numeric, width)];
    let columns = if objective.columns.is_empty() { &whole[..] } else { &objective.columns };
    let mut sum = 0.0;
    for (group, range) in ColumnGroup::ranges(columns) {
        let elements = |kind: Reconstruction, branches: &mut Branches| -> f64 {
            range.clone().map(|j| weights[j] * element(kind, output[j], row[j], width, branches)).sum()
        };
        sum += group.weight
            * match group.kind {
                ColumnKind::Numeric => elements(objective.reconstruction, branches),
                ColumnKind::Binary => elements(Reconstruction::Bce, branches),
                ColumnKind::Categorical if weights[range.clone()].contains(&0.0) => 0.0,
                ColumnKind::Categorical => {
                    let logits = &output[range.clone()];
                    let largest = logits.iter().copied().fold(f64::MIN, f64::max);
                    let total: f64 = logits.iter().map(|u| (u - largest).exp()).sum();
                    let surprise = |j: usize| largest + total.ln() - output[j];
                    range.map(|j| row[j] * surprise(j)).sum()
                }
            };
    }
    sum
}

/// Variance `e^s` of a clamped log-variance.
pub(super) fn variance(s: f64, branches: &mut Branches) -> f64 {
    let (low, high) = Latent::LOG_VARIANCE;
    match branches.side(s, (low, high)) {
        Side::Below => low.exp(),
        Side::Inside => s.exp(),
        Side::Above => high.exp(),
    }
}

/// The latent term of a batch: `codes` are what the decoder reads, one row each, and `divergences` those of each
/// row and dimension of a sampled code.
pub(super) fn latent(
    objective: &Objective,
    codes: &[Vec<f64>],
    divergences: &[Vec<f64>],
    prior: &[Vec<f64>],
    branches: &mut Branches,
) -> f64 {
    let rows = codes.len() as f64;
    let elements = || codes.iter().flatten();
    let mean = |dimension: usize| divergences.iter().map(|row| row[dimension]).sum::<f64>() / rows;
    let means = || (0..codes.first().map_or(0, Vec::len)).map(mean);
    match objective.latent {
        Latent::None => 0.0,
        Latent::Collapsed { beta } => beta / 2.0 * elements().map(|z| z.powi(2)).sum::<f64>() / rows,
        Latent::Variational { beta } => beta * means().sum::<f64>(),
        Latent::Capacity { gamma, capacity } => {
            let excess = means().sum::<f64>() - capacity;
            gamma * if branches.above(excess, 0.0) { excess } else { -excess }
        }
        Latent::FreeBits { beta, floor } => {
            beta * means().map(|mean| if branches.above(mean, floor) { mean } else { floor }).sum::<f64>()
        }
        Latent::Sparse { weight } => {
            let absolute = |z: f64| if branches.above(z, 0.0) { z } else { -z };
            weight / rows * elements().copied().map(absolute).sum::<f64>()
        }
        Latent::Mmd { .. } if codes.len() < 2 => 0.0,
        Latent::Mmd { weight } => {
            weight
                * (mean_kernel(codes, codes, false) + mean_kernel(prior, prior, false)
                    - 2.0 * mean_kernel(codes, prior, true))
        }
    }
}

/// Mean of the kernel over the pairs of a row of `a` and one of `b`; without equal indices unless `diagonal`.
fn mean_kernel(a: &[Vec<f64>], b: &[Vec<f64>], diagonal: bool) -> f64 {
    let pairs = (0..a.len()).flat_map(|i| (0..b.len()).map(move |j| (i, j))).filter(|(i, j)| diagonal || i != j);
    let kernel = |(i, j): (usize, usize)| -> f64 {
        let squared: f64 = a[i].iter().zip(&b[j]).map(|(x, y)| (x - y).powi(2)).sum();
        let widths = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0].map(|scale| 2.0 * a[i].len() as f64 * scale);
        widths.iter().map(|c| 1.0 / (1.0 + squared / c)).sum()
    };
    let kernels: Vec<f64> = pairs.map(kernel).collect();
    kernels.iter().sum::<f64>() / kernels.len() as f64
}
