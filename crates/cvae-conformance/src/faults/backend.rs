//! A backend over the reference, in single precision, with at most one mistake.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cvae_core::{
    Algorithm, Backend, BackendId, Batch, BatchRows, CompileError, DataId, DeviceInfo, Entry, Executable, KernelChoice,
    KlBound, Latent, Losses, Op, OptimizerSpec, ParamRole, Part, Plan, Reconstruction, Rows, RunError, Schedule, State,
    Term, Unsupported, Update,
};
use cvae_reference::ReferenceBackend;

use crate::faults::{Fault, program};

/// The reference's passes with updates of its own, and at most one planted bug.
pub(crate) struct FaultyBackend {
    fault: Option<Fault>,
}

impl FaultyBackend {
    pub(crate) fn new(fault: Option<Fault>) -> Self {
        Self { fault }
    }
}

impl Backend for FaultyBackend {
    fn id(&self) -> BackendId {
        BackendId::new("planted")
    }

    fn device(&self) -> DeviceInfo {
        DeviceInfo { name: "planted bug".to_owned(), ..ReferenceBackend.device() }
    }

    fn supports(&self, plan: &Plan) -> Result<(), Unsupported> {
        ReferenceBackend.supports(plan)
    }

    fn compile(&self, plan: Arc<Plan>) -> Result<Box<dyn Executable>, CompileError> {
        let mut planted = Plan::clone(&plan);
        if let Some(fault) = self.fault {
            program::plant(fault, &mut planted.program, &plan.params);
        }
        let zeros = vec![0.0; plan.params.len()];
        Ok(Box::new(FaultyExecutable {
            fault: self.fault,
            inner: ReferenceBackend.compile(Arc::new(planted))?,
            params: zeros.clone(),
            moment1: zeros.clone(),
            moment2: zeros,
            gradients: None,
            previous: vec![],
            step: 0,
            losses: Losses::default(),
            unweighted: [0.0; Term::COUNT],
            plan,
        }))
    }
}

struct FaultyExecutable {
    fault: Option<Fault>,
    plan: Arc<Plan>,
    inner: Box<dyn Executable>,
    params: Vec<f32>,
    moment1: Vec<f32>,
    moment2: Vec<f32>,
    gradients: Option<Vec<f64>>,
    /// Gradients of the pass before, for the faults that mix them in.
    previous: Vec<f64>,
    step: u64,
    losses: Losses,
    unweighted: [f64; Term::COUNT],
}

impl FaultyExecutable {
    fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn check_len(&self, found: usize) -> Result<(), RunError> {
        match self.params.len() {
            expected if expected == found => Ok(()),
            expected => Err(RunError::Length { what: "the state", expected, found }),
        }
    }

    /// Gradients and terms of a batch, by the reference.
    fn pass(&mut self, batch: &Batch<'_>) -> Result<(Vec<f64>, [f64; Term::COUNT]), RunError> {
        if self.is(Fault::BoundedKlSum)
            && let BatchRows::Host { values, .. } = batch.rows
        {
            self.weigh_bound(values.len() / self.plan.spec.width())?;
        }
        self.inner.write(State::Params, &self.params)?;
        self.inner.gradients(batch)?;
        let mut gradients = vec![0.0; self.params.len()];
        self.inner.read_f64(State::Grads, &mut gradients)?;
        Ok((gradients, self.inner.losses()?.last))
    }

    /// Compiles the program anew with bounded divergences times `rows`.
    fn weigh_bound(&mut self, rows: usize) -> Result<(), RunError> {
        let mut planted = Plan::clone(&self.plan);
        for op in &mut planted.program.train.ops {
            if let Op::KlBounded {
                bound: KlBound::Capacity { gamma: weight, .. } | KlBound::FreeBits { beta: weight, .. },
                ..
            } = op
            {
                *weight *= rows as f64;
            }
        }
        self.inner = ReferenceBackend.compile(Arc::new(planted)).map_err(|_| RunError::NoGradients)?;
        Ok(())
    }

    /// What the pairs of a row and itself add to the discrepancy: their kernel is the number of its scales, among
    /// the codes and among the draws of the prior.
    fn diagonal_pairs(&self, rows: usize) -> f64 {
        match self.plan.objective.latent {
            Latent::Mmd { weight } if rows > 1 => 2.0 * weight * Latent::MMD_SCALES.len() as f64 / (rows - 1) as f64,
            _ => 0.0,
        }
    }

    /// The batch as the faults of addressing see it.
    fn faulty_pass(&mut self, batch: &Batch<'_>, rows: usize) -> Result<(Vec<f64>, [f64; Term::COUNT]), RunError> {
        let width = self.plan.spec.width();
        let epoch = if self.is(Fault::NoiseIgnoresEpoch) { 0 } else { batch.epoch };
        let kept = if self.is(Fault::TailRows) && rows > 8 { rows / 8 * 8 } else { rows };
        match batch.rows {
            BatchRows::Host { values, first_row } if self.is(Fault::NoiseSharedByRows) => {
                // Row by row, each at the first row's position.
                let (mut sum, mut terms) = (vec![0.0; self.params.len()], [0.0; Term::COUNT]);
                for row in values.chunks_exact(width) {
                    let alone = Batch { rows: BatchRows::Host { values: row, first_row }, epoch };
                    let (gradients, found) = self.pass(&alone)?;
                    sum.iter_mut().zip(gradients).for_each(|(sum, gradient)| *sum += gradient / rows as f64);
                    terms.iter_mut().zip(found).for_each(|(sum, term)| *sum += term / rows as f64);
                }
                Ok((sum, terms))
            }
            BatchRows::Host { values, first_row } => {
                let values = &values[..kept * width];
                self.pass(&Batch { rows: BatchRows::Host { values, first_row }, epoch })
            }
            BatchRows::Resident { data, order } => {
                let first: Vec<u32> = (0..order.len() as u32).collect();
                let order = if self.is(Fault::OrderIgnored) { &first } else { order };
                self.pass(&Batch::resident(data, &order[..kept], epoch))
            }
        }
    }

    fn backward(&mut self, batch: &Batch<'_>) -> Result<Vec<f64>, RunError> {
        let rows = match batch.check(self.plan.spec.width(), self.plan.max_rows) {
            Ok(rows) => rows,
            Err(error) => {
                self.step += u64::from(self.is(Fault::StepAfterError));
                return Err(error);
            }
        };
        let (mut gradients, mut terms) = self.faulty_pass(batch, rows)?;
        self.plant_in_gradients(&mut gradients, rows);
        if self.is(Fault::CrossEntropyFromSigmoid)
            && self.plan.objective.reconstruction == Reconstruction::Bce
            && !self.plan.objective.latent.is_variational()
            && let BatchRows::Host { values, .. } = batch.rows
        {
            terms[Term::Reconstruction.index()] = self.cross_entropy_from_sigmoid(values, rows)?;
        }
        if self.is(Fault::BiasedDiscrepancy) {
            terms[Term::Latent.index()] += self.diagonal_pairs(rows);
        }
        self.losses.push(self.step + 1, rows, terms);
        self.unweighted.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
        Ok(gradients)
    }

    fn plant_in_gradients(&mut self, gradients: &mut [f64], rows: usize) {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let factor = match self.fault {
            Some(Fault::SumOverRows) => rows as f64,
            Some(Fault::NotDeterministic) => 1.0 + 1e-7 * f64::from(RUNS.fetch_add(1, Ordering::Relaxed) % 3),
            _ => 1.0,
        };
        gradients.iter_mut().for_each(|gradient| *gradient *= factor);
        if self.is(Fault::BiasWithoutL2) {
            let decoder_bias = |role, part| role == ParamRole::Bias && part == Part::Decoder;
            for param in self.plan.params.params().iter().filter(|param| decoder_bias(param.role, param.part)) {
                for index in param.range() {
                    gradients[index] -= self.plan.objective.decoder_l2 * f64::from(self.params[index]);
                }
            }
        }
        let carried = match self.fault {
            Some(Fault::StaleGradients) => 1.0,
            Some(Fault::StaleScratch) => 0.0,
            _ => return,
        };
        let computed = gradients.to_vec();
        gradients.iter_mut().zip(&self.previous).for_each(|(gradient, previous)| *gradient += carried * previous);
        self.previous = computed;
    }

    /// The loss as `f32` arithmetic on the sigmoid's output has it.
    fn cross_entropy_from_sigmoid(&mut self, values: &[f32], rows: usize) -> Result<f64, RunError> {
        let mut output = vec![0.0f32; values.len()];
        self.inner.infer(Entry::Reconstruct, values, &mut output)?;
        let loss = |(y, x): (&f32, &f32)| f64::from(-(x * y.ln() + (1.0 - x) * (1.0 - y).ln()));
        Ok(output.iter().zip(values).map(loss).sum::<f64>() / rows as f64)
    }

    fn rule(&self) -> Update {
        let mut optimizer: OptimizerSpec = self.plan.optimizer;
        match self.fault {
            Some(Fault::FrozenSchedule) => {
                optimizer = OptimizerSpec { schedule: Schedule::Constant, warmup_steps: 0, ..optimizer };
            }
            Some(Fault::BiasCorrection) => return optimizer.coefficients(self.step + 1),
            _ => {}
        }
        optimizer.coefficients(self.step)
    }

    fn clip(&self, gradients: &mut [f64], fused: bool) {
        let Some(limit) = self.plan.optimizer.clip_norm else { return };
        let scale = |slice: &mut [f64]| {
            let norm = slice.iter().map(|gradient| gradient * gradient).sum::<f64>().sqrt();
            let factor = if norm > limit { limit / norm } else { 1.0 };
            slice.iter_mut().for_each(|gradient| *gradient *= factor);
        };
        match self.fault {
            Some(Fault::FusedWithoutClip) if fused => {}
            Some(Fault::ClipPerTensor) => {
                self.plan.params.params().iter().for_each(|param| scale(&mut gradients[param.range()]));
            }
            _ => scale(gradients),
        }
    }

    fn update(&mut self, mut gradients: Vec<f64>, fused: bool) {
        self.clip(&mut gradients, fused);
        let rule = self.rule();
        for (index, gradient) in gradients.into_iter().enumerate() {
            let (theta, m, v) =
                (f64::from(self.params[index]), f64::from(self.moment1[index]), f64::from(self.moment2[index]));
            let (theta, m, v) = match rule {
                Update::Adam { beta1, beta2, eps, step_size, inv_sqrt_correction, keep } => {
                    let (g, keep) = match self.plan.optimizer.algorithm {
                        Algorithm::AdamW { weight_decay, .. } if self.is(Fault::DecayInGradient) => {
                            (gradient + weight_decay * theta, 1.0)
                        }
                        _ => (gradient, keep),
                    };
                    let (m, v) = (beta1 * m + (1.0 - beta1) * g, beta2 * v + (1.0 - beta2) * g * g);
                    (keep * theta - step_size * m / (v.sqrt() * inv_sqrt_correction + eps), m, v)
                }
                Update::Sgd { momentum, learning_rate } => {
                    let share = if self.is(Fault::DampenedMomentum) { 1.0 - momentum } else { 1.0 };
                    let m = momentum * m + share * gradient;
                    (theta - learning_rate * m, m, v)
                }
            };
            (self.params[index], self.moment1[index], self.moment2[index]) = (theta as f32, m as f32, v as f32);
        }
        self.step += 1;
    }
}

impl Executable for FaultyExecutable {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn kernels(&self) -> Vec<KernelChoice> {
        self.inner.kernels()
    }

    fn write(&mut self, state: State, src: &[f32]) -> Result<(), RunError> {
        let buffer = match state {
            State::Params => &mut self.params,
            State::Moment1 => &mut self.moment1,
            State::Moment2 if self.fault == Some(Fault::SecondMomentLost) => return self.check_len(src.len()),
            State::Moment2 => &mut self.moment2,
            State::Grads => return Err(RunError::ReadOnly),
        };
        match (buffer.len(), src.len()) {
            (expected, found) if expected != found => Err(RunError::Length { what: "the state", expected, found }),
            _ => {
                buffer.copy_from_slice(src);
                Ok(())
            }
        }
    }

    fn read(&mut self, state: State, dst: &mut [f32]) -> Result<(), RunError> {
        let mut wide = vec![0.0; dst.len()];
        self.read_f64(state, &mut wide)?;
        dst.iter_mut().zip(wide).for_each(|(narrow, wide)| *narrow = wide as f32);
        Ok(())
    }

    fn read_f64(&mut self, state: State, dst: &mut [f64]) -> Result<(), RunError> {
        self.check_len(dst.len())?;
        let buffer = match state {
            State::Params => &self.params,
            State::Moment1 => &self.moment1,
            State::Moment2 => &self.moment2,
            State::Grads => {
                dst.copy_from_slice(self.gradients.as_ref().ok_or(RunError::NoGradients)?);
                return Ok(());
            }
        };
        dst.iter_mut().zip(buffer).for_each(|(wide, narrow)| *wide = f64::from(*narrow));
        Ok(())
    }

    fn step(&self) -> u64 {
        self.step
    }

    fn set_step(&mut self, step: u64) {
        self.step = step;
    }

    fn upload(&mut self, rows: Rows<'_>) -> Result<DataId, RunError> {
        self.inner.upload(match rows {
            Rows::U8 { values, width, .. } if self.fault == Some(Fault::ByteScale) => {
                Rows::U8 { values, width, scale: 1.0 / 255.0 }
            }
            rows => rows,
        })
    }

    fn release(&mut self, data: DataId) -> Result<(), RunError> {
        self.inner.release(data)
    }

    fn gradients(&mut self, batch: &Batch<'_>) -> Result<(), RunError> {
        self.gradients = Some(self.backward(batch)?);
        Ok(())
    }

    fn apply(&mut self) -> Result<(), RunError> {
        let gradients = self.gradients.clone().ok_or(RunError::NoGradients)?;
        self.update(gradients, false);
        Ok(())
    }

    fn train_step(&mut self, batch: &Batch<'_>) -> Result<(), RunError> {
        let gradients = self.backward(batch)?;
        self.update(gradients, true);
        Ok(())
    }

    fn train_epoch(&mut self, data: DataId, order: &[u32], rows: usize, epoch: u32) -> Result<(), RunError> {
        if rows == 0 {
            return Err(RunError::Rows { rows, max_rows: self.plan.max_rows });
        }
        let shortest = if self.is(Fault::ShortBatchDropped) { rows } else { 1 };
        for batch in order.chunks(rows).filter(|batch| batch.len() >= shortest) {
            let gradients = self.backward(&Batch::resident(data, batch, epoch))?;
            self.update(gradients, true);
        }
        Ok(())
    }

    fn infer(&mut self, entry: Entry, input: &[f32], out: &mut [f32]) -> Result<(), RunError> {
        let mut wide = vec![0.0; out.len()];
        self.infer_f64(entry, input, &mut wide)?;
        out.iter_mut().zip(wide).for_each(|(narrow, wide)| *narrow = wide as f32);
        Ok(())
    }

    fn infer_f64(&mut self, entry: Entry, input: &[f32], out: &mut [f64]) -> Result<(), RunError> {
        self.inner.write(State::Params, &self.params)?;
        self.inner.infer_f64(entry, input, out)?;
        let to = entry.widths(&self.plan).1;
        let rows = out.len() / to;
        let kept = match self.fault {
            Some(Fault::InferenceTailRows) if rows > 8 => rows / 8 * 8,
            Some(Fault::InferenceBeyondMax) => rows.min(self.plan.max_rows),
            _ => rows,
        };
        out[kept * to..].fill(0.0);
        Ok(())
    }

    fn losses(&mut self) -> Result<Losses, RunError> {
        let mut losses = std::mem::take(&mut self.losses);
        let unweighted = std::mem::take(&mut self.unweighted);
        match self.fault {
            Some(Fault::HiddenNonFinite) => losses.non_finite = None,
            Some(Fault::UnweightedLosses) => {
                losses.sums = unweighted.map(|sum| sum / losses.steps.max(1) as f64 * losses.rows as f64);
            }
            _ => {}
        }
        Ok(losses)
    }

    fn synchronize(&mut self) -> Result<(), RunError> {
        self.inner.synchronize()
    }
}
