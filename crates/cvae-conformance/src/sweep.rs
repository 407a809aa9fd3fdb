//! The sweep: every pair of rows, widths, depth, activations and terms that the suite promises.

use std::sync::OnceLock;

use cvae_core::{Activation, Latent, Objective, OptimizerSpec, Reconstruction};

use crate::case::{Case, mlp, with_code_activation};
use crate::pairwise::pairwise;

/// Rows of a batch.
const ROWS: [usize; 8] = [1, 2, 3, 7, 8, 17, 64, 65];
/// Widths of a row.
const WIDTHS: [usize; 9] = [1, 2, 3, 8, 17, 31, 64, 100, 784];
/// Widths of hidden layers.
const HIDDEN: [usize; 8] = [1, 2, 3, 8, 17, 31, 64, 100];
/// Widths of the code.
const LATENT: [usize; 5] = [1, 2, 3, 16, 17];
/// Hidden layers in each part.
const DEPTHS: usize = 4;

/// Every reconstruction term.
pub(crate) const RECONSTRUCTIONS: [Reconstruction; 5] = [
    Reconstruction::MseSum,
    Reconstruction::MseMean,
    Reconstruction::Bce,
    Reconstruction::L1,
    Reconstruction::Huber { delta: 0.8 },
];

/// Every latent term, with a weight that shows.
pub(crate) const LATENT_TERMS: [Latent; 3] =
    [Latent::None, Latent::Collapsed { beta: 0.4 }, Latent::Variational { beta: 0.7 }];

/// λ of the decoder regulariser, off and on.
pub(crate) const DECODER_L2: [f64; 2] = [0.0, 0.25];

/// Name of the latent term, for names of checks.
pub(crate) fn latent_name(latent: Latent) -> &'static str {
    match latent {
        Latent::None => "ae",
        Latent::Collapsed { .. } => "collapsed",
        Latent::Variational { .. } => "variational",
        Latent::Capacity { .. } | Latent::FreeBits { .. } | Latent::Sparse { .. } | Latent::Mmd { .. } => latent.name(),
    }
}

/// The cases of the sweep, built once.
pub(crate) fn cases() -> &'static [Case] {
    static CASES: OnceLock<Vec<Case>> = OnceLock::new();
    CASES.get_or_init(|| {
        let levels = [
            ROWS.len(),
            WIDTHS.len(),
            HIDDEN.len(),
            HIDDEN.len(),
            LATENT.len(),
            DEPTHS,
            Activation::ALL.len(),
            Activation::ALL.len(),
            RECONSTRUCTIONS.len(),
            LATENT_TERMS.len(),
            DECODER_L2.len(),
            2,
        ];
        let combinations = pairwise(&levels);
        combinations.iter().enumerate().filter_map(|(seed, choice)| case(seed as u64, choice)).collect()
    })
}

/// The case of one combination; core accepts every one of them, which a test of this module pins.
fn case(seed: u64, choice: &[usize]) -> Option<Case> {
    let &[rows, width, hidden, decoder_hidden, latent, depth, activation, output, reconstruction, term, l2, code] =
        choice
    else {
        return None;
    };
    let (rows, width, latent) = (ROWS[rows], WIDTHS[width], LATENT[latent]);
    let (hidden, decoder_hidden) = (HIDDEN[hidden], HIDDEN[decoder_hidden]);
    let activation = Activation::ALL[activation];
    let objective = Objective {
        reconstruction: RECONSTRUCTIONS[reconstruction],
        latent: LATENT_TERMS[term],
        decoder_l2: DECODER_L2[l2],
        ..Objective::ae()
    };
    let output = match objective.reconstruction {
        Reconstruction::Bce => Activation::Sigmoid,
        _ => Activation::ALL[output],
    };
    let mut name = format!("rows{rows}_width{width}_latent{latent}");
    if depth > 0 {
        name += &format!("_{depth}x{hidden}x{decoder_hidden}_{activation}");
    }
    name += &format!("_{output}_{}", objective.reconstruction.name());
    if objective.decoder_l2 > 0.0 {
        name += "_l2";
    }
    let mut spec = mlp([width, hidden, latent, decoder_hidden], depth, activation, output).ok()?;
    if code == 1 {
        name += &format!("_code_{activation}");
        spec = with_code_activation(spec, activation);
    }
    Case::new(name, spec, objective, OptimizerSpec::default(), rows, seed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sweep_covers_what_it_promises() {
        let cases = cases();
        let has = |what: &str, test: &dyn Fn(&Case) -> bool| assert!(cases.iter().any(test), "no case with {what}");
        for rows in ROWS {
            for width in WIDTHS {
                has(&format!("{rows} rows of {width}"), &|case| {
                    case.count() == rows && case.plan.spec.width() == width
                });
            }
        }
        for latent in LATENT {
            for term in LATENT_TERMS {
                has(&format!("latent {latent} under {term}"), &|case| {
                    case.plan.spec.latent() == latent && case.plan.objective.latent == term
                });
            }
        }
        let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), cases.len(), "two cases have one name");
    }
}
