//! Planted bugs: what the suite must catch, and whether it does.
//!
//! Each bug is a backend over the reference with one mistake in it. A suite that passes one of them proves
//! nothing about the backends that it passes.

mod backend;
mod program;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::check::{self, Check};
use crate::failure::Failure;
use crate::faults::backend::FaultyBackend;
use crate::target::Subject;

/// Declares the bugs: variant, name, and what is wrong.
macro_rules! faults {
    ($($variant:ident, $name:literal, $description:literal;)*) => {
        /// A planted bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Fault {
            $(#[doc = $description] $variant,)*
        }

        impl Fault {
            /// Every bug.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The bug's name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What is wrong.
            pub fn description(self) -> &'static str {
                match self { $(Self::$variant => $description,)* }
            }
        }
    };
}

faults! {
    SumOverRows, "sum_over_rows", "The gradient is a sum over rows: 1/B is missing.";
    TransposedWeight, "transposed_weight", "The gradient of a layer's input multiplies by Wᵀ instead of W.";
    TailRows, "tail_rows", "Training forgets the rows beyond the last multiple of eight.";
    InferenceTailRows, "inference_tail_rows", "Inference leaves the rows beyond the last multiple of eight at zero.";
    InferenceBeyondMax, "inference_beyond_max", "Inference computes no more than `max_rows` rows.";
    ActForDerivative, "act_for_derivative", "The backward pass multiplies by act instead of act'.";
    DerivativeOfInput, "derivative_of_input", "act' is computed from the input where it is a function of the output.";
    SquaredL2, "squared_l2", "The decoder regulariser is weighted by λ².";
    BiasWithoutL2, "bias_without_l2", "The regulariser's gradient leaves out the biases.";
    PriorSign, "prior_sign", "The collapsed prior has the wrong sign.";
    KlWithoutHalf, "kl_without_half", "The divergence lacks its factor ½.";
    TrunkMissesLogvar, "trunk_misses_logvar", "The log-variance head sends no gradient to the layers below.";
    WrongTarget, "wrong_target", "The reconstruction is compared with a corrupted input.";
    DecodeWithoutActivation, "decode_without_activation", "Decoding ignores the last layer's activation.";
    OnesForSigns, "ones_for_signs", "The gradient penalty pulls back ones instead of random signs: ‖Jᵀ1‖².";
    CurvatureDropped, "curvature_dropped", "A Jacobian term ignores that act' depends on the parameters.";
    JacobianWithoutWeights, "jacobian_without_weights", "A Jacobian term sends no gradient to the weights it multiplies.";
    BoundedKlSum, "bounded_kl_sum", "The bounded divergence is a sum over rows: 1/B is missing.";
    FloorIgnored, "floor_ignored", "Free bits cost as much as the others.";
    BiasedDiscrepancy, "biased_discrepancy", "The discrepancy counts the pairs of a row and itself.";
    MaskInverted, "mask_inverted", "The corruption erases what it should keep.";
    PermutedWithinRow, "permuted_within_row", "A permuted unit comes from its own row.";
    MovedAsColumn, "moved_as_column", "An image moves as if it were one pixel wide.";
    MissingCounted, "missing_counted", "Missing values count in the reconstruction, as zeros.";
    DenseGradientOfTopK, "dense_gradient_of_top_k", "The gradient passes elements of the code that were dropped.";
    NoiseSharedByRows, "noise_shared_by_rows", "All rows of a batch draw the noise of its first row.";
    NoiseIgnoresEpoch, "noise_ignores_epoch", "Every epoch draws the same noise.";
    CrossEntropyFromSigmoid, "cross_entropy_from_sigmoid", "The cross-entropy is the logarithm of a sigmoid.";
    BiasCorrection, "bias_correction", "Adam's bias correction is one step ahead.";
    DecayInGradient, "decay_in_gradient", "AdamW's decay goes through the moments.";
    DampenedMomentum, "dampened_momentum", "Momentum scales the gradient by 1 − momentum.";
    ClipPerTensor, "clip_per_tensor", "Clipping looks at each parameter's norm instead of the global one.";
    FusedWithoutClip, "fused_without_clip", "The fused step does not clip.";
    FrozenSchedule, "frozen_schedule", "The learning rate ignores its schedule.";
    StaleGradients, "stale_gradients", "Gradients are added to those of the step before.";
    StaleScratch, "stale_scratch", "Scratch memory of an earlier batch leaks into the gradient, times zero.";
    UnweightedLosses, "unweighted_losses", "The mean loss does not weight steps by their rows.";
    HiddenNonFinite, "hidden_non_finite", "Losses do not report what is not finite.";
    ShortBatchDropped, "short_batch_dropped", "An epoch drops its short last batch.";
    OrderIgnored, "order_ignored", "A resident batch is the first rows of the data set.";
    ByteScale, "byte_scale", "Bytes are always divided by 255.";
    SecondMomentLost, "second_moment_lost", "Writing the second moment does nothing.";
    StepAfterError, "step_after_error", "A rejected batch still counts as a step.";
    NotDeterministic, "not_deterministic", "Sums depend on how often they ran, as with racing threads.";
}

/// Whether the suite caught a bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catch {
    /// The bug; `None` for the same backend without one, which must pass.
    pub fault: Option<Fault>,
    /// The first check that failed, and its message.
    pub caught_by: Option<(String, String)>,
}

impl Catch {
    /// Whether the suite did what it must: caught the bug, or passed the backend without one.
    pub fn is_right(&self) -> bool {
        self.fault.is_some() == self.caught_by.is_some()
    }
}

/// Runs the suite on every planted bug until a check fails, and in full on the same backend without a bug.
pub fn self_test() -> Vec<Catch> {
    let checks = ordered();
    let jobs: Vec<Option<Fault>> = std::iter::once(None).chain(Fault::ALL.iter().copied().map(Some)).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(fault) = jobs.get(index) else { return done };
            done.push((index, Catch { fault: *fault, caught_by: first_failure(&checks, *fault) }));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut catches: Vec<(usize, Catch)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    catches.sort_by_key(|(index, _)| *index);
    catches.into_iter().map(|(_, catch)| catch).collect()
}

/// The checks, those over the whole sweep last: most bugs fall to a small one.
fn ordered() -> Vec<Check> {
    let is_sweep =
        |check: &Check| ["infer::", "loss::", "grad::"].iter().any(|prefix| check.name().starts_with(prefix));
    let (sweep, mut ordered): (Vec<Check>, Vec<Check>) = check::all().into_iter().partition(is_sweep);
    ordered.extend(sweep);
    ordered
}

fn first_failure(checks: &[Check], fault: Option<Fault>) -> Option<(String, String)> {
    let make = move |_threads: usize| Ok(Arc::new(FaultyBackend::new(fault)) as Arc<dyn cvae_core::Backend>);
    let subject = Subject::new(Arc::new(FaultyBackend::new(fault))).with_threads(make);
    checks.iter().find_map(|check| match check.run(&subject) {
        Ok(_) | Err(Failure::Skipped { .. }) => None,
        Err(failure) => Some((check.name().to_owned(), failure.chain())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_planted_bug_is_caught() {
        assert!(Fault::ALL.len() >= 12);
        for catch in self_test() {
            assert!(catch.is_right(), "{:?}: {:?}", catch.fault.map(Fault::name), catch.caught_by);
        }
    }
}
