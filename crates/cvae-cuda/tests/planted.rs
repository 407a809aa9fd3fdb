//! The emulator's self-test: every barrier, wait and bounds check of the kernels is taken out in turn, and the
//! emulated driver must show that it is missing. One trial per call site.
//!
//! A removed site is found when training no longer ends in the same bits under some order of execution, or not at
//! all (an access beyond an allocation, a deadlock).

#[cfg(target_os = "linux")]
mod common;

#[cfg(target_os = "linux")]
mod planted {
    use std::sync::Arc;

    use cvae_core::{Activation, Executable, Latent, Objective, OptimizerSpec, Plan, Rows, RunError, State};
    use cvae_cuda::{LaunchPath, Precision};
    use cvae_cuda_emu::{Options, Site, SiteKind};
    use libtest_mimic::{Failed, Trial};

    use crate::common::{Turn, backend, model, plan, rows, start, variational};

    /// Rows of the data set: with them every array ends exactly where its allocation does.
    const COUNT: usize = 16;
    /// Orders of execution that are tried; odd ones land copies early, even ones late.
    const SEEDS: u64 = 6;

    /// Small ragged models that together reach every call site: sums over several slices, every kind of task.
    fn plans() -> Vec<Arc<Plan>> {
        let clipped = OptimizerSpec { clip_norm: Some(0.01), ..OptimizerSpec::adam(1e-2) };
        [
            plan(model(273, 18, 5, Activation::Tanh), variational(), clipped, 7),
            plan(model(6, 5, 3, Activation::Relu), Objective::default(), OptimizerSpec::sgd(0.1, 0.9), 7),
        ]
        .into_iter()
        .chain(coupled())
        .collect()
    }

    /// Objectives with tasks that look at the whole batch or at a weight, one for each.
    fn coupled() -> impl Iterator<Item = Arc<Plan>> {
        let sigma = Objective { sigma_floor: Some(1e-2), missing: true, ..Objective::default() };
        let capacity = Latent::Capacity { gamma: 0.5, capacity: 1.0 };
        // More dimensions than a warp has lanes.
        let bits = Latent::FreeBits { beta: 0.5, floor: 0.01 };
        let latent = |latent| Objective { latent, ..Objective::ae() };
        let spectral = Objective::collapsed_spectral_norm(0.1);
        let objectives =
            [(sigma, 3), (latent(capacity), 3), (latent(bits), 35), (Objective::wae_mmd(2.0), 5), (spectral, 3)];
        objectives.into_iter().map(|(objective, latent)| {
            plan(model(6, 5, latent, Activation::Relu), objective, OptimizerSpec::sgd(0.1, 0.9), 7)
        })
    }

    /// Trains for two epochs, the last batch of each being short, and returns the state's bits.
    fn train(plan: &Arc<Plan>, path: LaunchPath) -> Result<Vec<u32>, RunError> {
        let mut executable: Box<dyn Executable> = start(&backend(Precision::Tf32, path), plan);
        let width = plan.spec.width();
        let data = executable.upload(Rows::F32 { values: &rows(COUNT, width), width })?;
        let order: Vec<u32> = (0..COUNT as u32).collect();
        for epoch in 0..2 {
            executable.train_epoch(data, &order, 7, epoch)?;
        }
        let mut bits = vec![];
        let mut values = vec![0.0; plan.params.len()];
        for state in [State::Params, State::Moment1, State::Moment2] {
            executable.read(state, &mut values)?;
            bits.extend(values.iter().map(|value| value.to_bits()));
        }
        let losses = executable.losses()?;
        bits.extend(losses.sums.iter().flat_map(|sum| [sum.to_bits() as u32, (sum.to_bits() >> 32) as u32]));
        Ok(bits)
    }

    /// Trains every plan with the site removed until some order of execution shows it.
    fn is_found(site: &Site, expected: &[Vec<u32>]) -> bool {
        (0..SEEDS).any(|seed| {
            plans().iter().zip(expected).any(|(plan, expected)| {
                let turn = Turn::new(Options { seed, ..Options::default() });
                turn.emulator.remove(Some(site));
                train(plan, LaunchPath::Cooperative).map_or(true, |found| found != *expected)
            })
        })
    }

    pub(crate) fn trials() -> Vec<Trial> {
        let expected: Vec<Vec<u32>> = plans()
            .iter()
            .map(|plan| {
                let _turn = Turn::seeded(1);
                train(plan, LaunchPath::Cooperative).expect("trains")
            })
            .collect();
        let expected = Arc::new(expected);
        let sites = {
            let turn = Turn::seeded(0);
            turn.emulator.sites()
        };
        let unchanged = expected.clone();
        let mut trials = vec![
            Trial::test("nothing_removed_is_nothing_found", move || {
                for seed in 0..SEEDS {
                    for (plan, expected) in plans().iter().zip(unchanged.iter()) {
                        let _turn = Turn::seeded(seed);
                        let found = train(plan, LaunchPath::Cooperative).map_err(|error| error.to_string())?;
                        if found != *expected {
                            return Err(Failed::from(format!("seed {seed} gives other bits")));
                        }
                    }
                }
                Ok(())
            }),
            coverage_trial(&sites),
        ];
        for site in sites {
            let expected = expected.clone();
            let name = format!("{:?}::{}:{}", site.kind, site.file, site.line);
            trials.push(Trial::test(name, move || match is_found(&site, &expected) {
                true => Ok(()),
                false => Err(Failed::from("removing it changed nothing: the emulator is blind, or it is not needed")),
            }));
        }
        trials
    }

    /// The sites include every kind of bug that is to be found.
    fn coverage_trial(sites: &[Site]) -> Trial {
        let count = |kind| sites.iter().filter(|site| site.kind == kind).count();
        let (blocks, grids) = (count(SiteKind::BlockBarrier), count(SiteKind::GridBarrier));
        let (waits, masks) = (count(SiteKind::AsyncWait), count(SiteKind::Mask));
        Trial::test("every_kind_of_bug_is_planted", move || {
            match blocks >= 4 && grids >= 1 && waits >= 1 && masks >= 6 {
                true => Ok(()),
                false => Err(Failed::from(format!(
                    "{blocks} block barriers, {grids} grid barriers, {waits} waits and {masks} masks were reached"
                ))),
            }
        })
    }
}

fn main() -> std::process::ExitCode {
    let arguments = libtest_mimic::Arguments::from_args();
    #[cfg(target_os = "linux")]
    let trials = planted::trials();
    #[cfg(not(target_os = "linux"))]
    let trials = vec![];
    libtest_mimic::run(&arguments, trials).exit_code()
}
