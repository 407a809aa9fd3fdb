//! From the name of an objective and its weights to the terms of the loss.

use anyhow::{Context, Result, bail};
use cvae_core::{Corruption, Jacobian, Latent, Objective, Patch, Reconstruction, Shift};
use cvae_data::ImageShape;

use crate::args::ObjectiveArgs;

/// Objectives that `--objective` knows.
const OBJECTIVES: [&str; 17] = [
    "ae",
    "vae",
    "beta-vae",
    "capacity",
    "free-bits",
    "sigma-vae",
    "collapsed",
    "rae-l2",
    "rae-gp",
    "rae-sn",
    "contractive",
    "denoising",
    "masked",
    "sparse",
    "top-k",
    "wae-mmd",
    "irmae",
];
/// The names of the collapsed objective.
const COLLAPSED: [&str; 2] = ["collapsed", "rae-l2"];
/// The objective that differs from `ae` in the model alone: by linear layers at the end of the encoder.
pub(crate) const IRMAE: &str = "irmae";
/// Reconstruction terms that `--reconstruction` knows.
const RECONSTRUCTIONS: [&str; 5] = ["mse_sum", "mse_mean", "bce", "l1", "huber"];
/// Where Huber's loss turns from quadratic to linear when nothing else is said.
const HUBER_DELTA: f64 = 1.0;
/// Weights and strengths where nothing else is said, in the sum convention for rows with values in [0, 1].
const BETA_VAE: f64 = 4.0;
const CAPACITY_WEIGHT: f64 = 10.0;
const CAPACITY_NATS: f64 = 25.0;
const FREE_NATS: f64 = 0.5;
const GRADIENT_PENALTY: f64 = 1e-4;
const CONTRACTIVE: f64 = 1e-3;
const SPARSE: f64 = 1e-3;
const MMD: f64 = 10.0;
const DENOISING: Corruption = Corruption::Masking { share: 0.25 };
/// Least variance of a learnt observation noise.
const SIGMA_FLOOR: f64 = 1e-6;
/// Side of the masked patches of images.
const PATCH: usize = 4;

/// What is known about the rows when the objective is put together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    /// Latent dimensions of the model.
    pub(crate) latent: usize,
    /// The shape of a row, if rows are images.
    pub(crate) image: Option<ImageShape>,
}

/// The terms of the loss: those of `base`, or of the objective that is named, with what the other arguments change. The
/// collapsed objective named again keeps the weights that it has.
///
/// # Errors
/// An unknown name, or an argument that the objective has no use for.
pub(crate) fn objective(base: &Objective, args: &ObjectiveArgs, rows: Rows) -> Result<Objective> {
    let collapsed = matches!(base.latent, Latent::Collapsed { .. })
        && !base.spectral_norm
        && matches!(base.jacobian, Jacobian::None)
        && base.top_k.is_none();
    let mut objective = match &args.objective {
        Some(name) if !(collapsed && is_collapsed(args)) => {
            let named = named(name, rows)?;
            Objective {
                reconstruction: base.reconstruction,
                columns: base.columns.clone(),
                missing: base.missing,
                ..named
            }
        }
        _ => base.clone(),
    };
    if let Some(name) = &args.reconstruction {
        objective.reconstruction = reconstruction(name)?;
    }
    if let Some(text) = &args.corruption {
        objective.corruption = corruption(text, rows)?;
    }
    objective.missing |= args.missing;
    objective.decoder_l2 = args.decoder_l2.unwrap_or(objective.decoder_l2);
    weights(&mut objective, args)?;
    Ok(objective)
}

/// The objective of that name with its usual weights.
fn named(name: &str, rows: Rows) -> Result<Objective> {
    let collapsed = Objective::default();
    // A term that shrinks the code is degenerate without a decoder regulariser.
    let regularised = |objective: Objective| Objective { decoder_l2: Objective::DEFAULT_DECODER_L2, ..objective };
    Ok(match name {
        "ae" | IRMAE => Objective::ae(),
        "vae" => Objective::vae(1.0),
        "beta-vae" => Objective::vae(BETA_VAE),
        "capacity" => Objective {
            latent: Latent::Capacity { gamma: CAPACITY_WEIGHT, capacity: CAPACITY_NATS },
            ..Objective::ae()
        },
        "free-bits" => Objective { latent: Latent::FreeBits { beta: 1.0, floor: FREE_NATS }, ..Objective::ae() },
        "sigma-vae" => Objective { sigma_floor: Some(SIGMA_FLOOR), ..Objective::vae(1.0) },
        "collapsed" | "rae-l2" => collapsed,
        "rae-gp" => Objective::collapsed_gradient_penalty(Objective::DEFAULT_BETA, GRADIENT_PENALTY),
        "rae-sn" => Objective::collapsed_spectral_norm(Objective::DEFAULT_BETA),
        "contractive" => regularised(Objective::contractive(CONTRACTIVE)),
        "denoising" => Objective::denoising(DENOISING),
        "masked" => Objective::denoising(masked(Corruption::DEFAULT_MASKED, None, rows)?),
        "sparse" => regularised(Objective::sparse(SPARSE)),
        "top-k" => Objective::top_k(rows.latent.div_ceil(2)),
        "wae-mmd" => Objective::wae_mmd(MMD),
        _ => bail!("unknown objective `{name}`; known: {}", OBJECTIVES.join(", ")),
    })
}

/// Whether the arguments ask for the collapsed objective, by a name or by none.
pub(crate) fn is_collapsed(args: &ObjectiveArgs) -> bool {
    args.objective.as_deref().is_none_or(|name| COLLAPSED.contains(&name))
}

fn reconstruction(name: &str) -> Result<Reconstruction> {
    Ok(match name {
        "mse_sum" => Reconstruction::MseSum,
        "mse_mean" => Reconstruction::MseMean,
        "bce" => Reconstruction::Bce,
        "l1" => Reconstruction::L1,
        "huber" => Reconstruction::Huber { delta: HUBER_DELTA },
        _ => bail!("unknown reconstruction `{name}`; known: {}", RECONSTRUCTIONS.join(", ")),
    })
}

/// Reads `none`, `gaussian:STD`, `masking:SHARE`, `permutation:SHARE`, `masked:SHARE[:PATCH]` or `shift:SHARE[:PIXELS]`.
fn corruption(text: &str, rows: Rows) -> Result<Corruption> {
    let unknown = || {
        format!(
            "unknown corruption `{text}`; known: none, gaussian:STD, masking:SHARE, permutation:SHARE, masked:SHARE, \
             masked:SHARE:PATCH, shift:SHARE, shift:SHARE:PIXELS"
        )
    };
    let fields: Vec<&str> = text.split(':').collect();
    let number = |text: &str| text.parse::<f64>().with_context(unknown);
    Ok(match fields.as_slice() {
        ["none"] => Corruption::None,
        ["gaussian", std] => Corruption::Gaussian { std: number(std)? },
        ["masking", share] => Corruption::Masking { share: number(share)? },
        ["permutation", share] => Corruption::Permutation { share: number(share)? },
        ["masked", share] => masked(number(share)?, None, rows)?,
        ["masked", share, size] => {
            let size = size.parse().ok().with_context(unknown)?;
            masked(number(share)?, Some(size), rows)?
        }
        ["shift", share] => shift(number(share)?, 1, rows)?,
        ["shift", share, distance] => shift(number(share)?, distance.parse().ok().with_context(unknown)?, rows)?,
        _ => bail!(unknown()),
    })
}

/// Images that are moved by up to `distance` pixels.
fn shift(share: f64, distance: usize, rows: Rows) -> Result<Corruption> {
    let image = rows.image.context("only rows that are images can be moved")?;
    Ok(Corruption::Shift { share, shift: Shift { distance, width: image.width, channels: image.channels } })
}

/// Masked patches of images, or masked columns of other rows.
fn masked(share: f64, size: Option<usize>, rows: Rows) -> Result<Corruption> {
    let patch = match (rows.image, size) {
        (Some(image), size) => {
            Some(Patch { size: size.unwrap_or(PATCH), width: image.width, channels: image.channels })
        }
        (None, None) => None,
        (None, Some(_)) => bail!("masked patches need rows that are images"),
    };
    Ok(Corruption::Masked { share, patch })
}

/// Weights and strengths of the terms that the objective has.
fn weights(objective: &mut Objective, args: &ObjectiveArgs) -> Result<()> {
    if let Some(value) = args.beta {
        match &mut objective.latent {
            Latent::Collapsed { beta } | Latent::Variational { beta } | Latent::FreeBits { beta, .. } => *beta = value,
            Latent::Capacity { gamma, .. } => *gamma = value,
            Latent::Sparse { weight } | Latent::Mmd { weight } => *weight = value,
            Latent::None => bail!("--beta weighs a latent term, which this objective does not have"),
        }
    }
    if let Some(nats) = args.nats {
        match &mut objective.latent {
            Latent::Capacity { capacity, .. } => *capacity = nats,
            Latent::FreeBits { floor, .. } => *floor = nats,
            _ => bail!("--nats is for the objectives capacity and free-bits"),
        }
    }
    if let Some(value) = args.penalty {
        match &mut objective.jacobian {
            Jacobian::GradientPenalty { weight } | Jacobian::Contractive { weight } => *weight = value,
            Jacobian::None => bail!("--penalty is for the objectives rae-gp and contractive"),
        }
    }
    if let Some(k) = args.top_k {
        objective.top_k = Some(k);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: Rows = Rows { latent: 8, image: None };
    const IMAGES: Rows = Rows { latent: 8, image: Some(ImageShape { height: 6, width: 5, channels: 3 }) };

    fn with(change: impl Fn(&mut ObjectiveArgs)) -> Result<Objective> {
        let mut args = ObjectiveArgs::default();
        change(&mut args);
        objective(&Objective::default(), &args, ROWS)
    }

    #[test]
    fn every_known_name_gives_an_objective_of_its_own() {
        let all: Vec<Objective> = OBJECTIVES.iter().map(|name| named(name, ROWS).unwrap()).collect();
        for (index, objective) in all.iter().enumerate() {
            assert!(!objective.is_degenerate(), "{}", OBJECTIVES[index]);
            let same = all.iter().filter(|other| *other == objective).count();
            // Two names for the collapsed objective; irmae differs from ae in the model.
            let expected = if ["collapsed", "rae-l2", "ae", IRMAE].contains(&OBJECTIVES[index]) { 2 } else { 1 };
            assert_eq!(same, expected, "{}", OBJECTIVES[index]);
        }
    }

    #[test]
    fn arguments_change_what_the_objective_has() {
        let name = |name: &str| Some(name.to_owned());
        let found = with(|args| (args.objective, args.nats, args.beta) = (name("capacity"), Some(9.0), Some(2.0)));
        assert_eq!(found.unwrap().latent, Latent::Capacity { gamma: 2.0, capacity: 9.0 });
        let found = with(|args| (args.objective, args.penalty) = (name("rae-gp"), Some(0.5))).unwrap();
        assert_eq!(found.jacobian, Jacobian::GradientPenalty { weight: 0.5 });
        assert_eq!(with(|args| (args.objective, args.top_k) = (name("top-k"), Some(3))).unwrap().top_k, Some(3));
        let found = with(|args| args.corruption = name("permutation:0.2")).unwrap();
        assert_eq!((found.corruption, found.decoder_l2), (Corruption::Permutation { share: 0.2 }, 1e-4));
        assert!(with(|args| args.missing = true).unwrap().missing);
        for bad in [
            with(|args| (args.objective, args.beta) = (name("ae"), Some(1.0))),
            with(|args| args.nats = Some(1.0)),
            with(|args| args.penalty = Some(1.0)),
            with(|args| args.corruption = name("masking")),
            with(|args| args.corruption = name("masked:0.5:2")),
            with(|args| args.corruption = name("blur:0.5")),
            with(|args| args.corruption = name("shift:0.5")),
        ] {
            assert!(bad.is_err(), "{bad:?}");
        }
    }

    #[test]
    fn patches_and_moves_follow_the_shape_of_images() {
        let found = corruption("masked:0.5:2", IMAGES).unwrap();
        let patch = Patch { size: 2, width: 5, channels: 3 };
        assert_eq!(found, Corruption::Masked { share: 0.5, patch: Some(patch) });
        for (text, distance) in [("shift:0.25", 1), ("shift:0.25:3", 3)] {
            let shift = Shift { distance, width: 5, channels: 3 };
            assert_eq!(corruption(text, IMAGES).unwrap(), Corruption::Shift { share: 0.25, shift });
        }
        let Corruption::Masked { patch, .. } = named("masked", IMAGES).unwrap().corruption else { panic!() };
        assert_eq!(patch.map(|patch| patch.size), Some(PATCH));
        assert_eq!(named("masked", ROWS).unwrap().corruption, Corruption::Masked { share: 0.75, patch: None });
    }
}
