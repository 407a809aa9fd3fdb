//! The executable: state, batches and losses around the model.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use cvae_core::{
    BackendId, Batch, CompileError, DataId, DeviceError, Entry, Executable, KernelChoice, Losses, Plan, Rows, RunError,
    State,
};

use crate::data::{DataSets, rows_tensor, upload};
use crate::draws::Draws;
use crate::model::Model;
use crate::optimizer::{Moments, clip, update};
use crate::{Precision, device_error};

/// A plan on candle.
pub(crate) struct CandleExecutable {
    id: BackendId,
    precision: Precision,
    plan: Arc<Plan>,
    model: Model,
    moments: Moments,
    gradients: Option<Vec<Tensor>>,
    step: u64,
    data: DataSets,
    losses: Losses,
}

impl CandleExecutable {
    pub(crate) fn new(id: BackendId, precision: Precision, plan: Arc<Plan>) -> Result<Self, CompileError> {
        let model = Model::new(precision, &plan).map_err(device_error(&id, "building the model"))?;
        let moments = Moments::zeros(&model.vars).map_err(device_error(&id, "allocating the moments"))?;
        Ok(Self {
            id,
            precision,
            plan,
            model,
            moments,
            gradients: None,
            step: 0,
            data: DataSets::default(),
            losses: Losses::default(),
        })
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(candle_core::Error) -> DeviceError + use<> {
        device_error(&self.id, operation)
    }

    fn dtype(&self) -> DType {
        self.precision.dtype()
    }

    fn check_len(&self, found: usize) -> Result<(), RunError> {
        match self.plan.params.len() {
            expected if expected == found => Ok(()),
            expected => Err(RunError::Length { what: "the state", expected, found }),
        }
    }

    /// The tensors of a part of the state, in the order of the layout.
    fn tensors(&self, state: State) -> Result<Vec<&Tensor>, RunError> {
        Ok(match state {
            State::Params => self.model.vars.iter().map(|var| var.as_tensor()).collect(),
            State::Moment1 => self.moments.first.iter().collect(),
            State::Moment2 => self.moments.second.iter().collect(),
            State::Grads => self.gradients.as_ref().ok_or(RunError::NoGradients)?.iter().collect(),
        })
    }

    fn read_as<T: candle_core::WithDType>(&self, state: State, dst: &mut [T]) -> Result<(), RunError> {
        self.check_len(dst.len())?;
        for (tensor, param) in self.tensors(state)?.into_iter().zip(self.plan.params.params()) {
            let values = tensor.to_dtype(T::DTYPE).and_then(|tensor| tensor.flatten_all()?.to_vec1::<T>());
            dst[param.range()].copy_from_slice(&values.map_err(self.failed("reading the state"))?);
        }
        Ok(())
    }

    fn infer_as<T: candle_core::WithDType>(
        &self,
        entry: Entry,
        input: &[f32],
        out: &mut [T],
    ) -> Result<(), candle_core::Error> {
        let (from, _) = entry.widths(&self.plan);
        let input = rows_tensor(input, from, self.dtype())?;
        let values = self.model.infer(entry, &input)?.to_dtype(T::DTYPE)?.flatten_all()?.to_vec1::<T>()?;
        out.copy_from_slice(&values);
        Ok(())
    }

    /// Forward and backward pass: the gradients; the loss is gathered.
    fn backward(&mut self, batch: &Batch<'_>) -> Result<Vec<Tensor>, RunError> {
        let width = self.plan.spec.width();
        let rows = batch.check(width, self.plan.max_rows)?;
        self.data.check(batch)?;
        let result = (|| {
            let input = self.data.gather(batch, width, self.dtype())?;
            let draws = Draws::new(self.plan.seed, batch, rows, self.dtype());
            let loss = self.model.loss(&input, &draws)?;
            Ok((loss.gradients(&self.model.vars)?, loss.values()?))
        })();
        let (gradients, terms) = result.map_err(self.failed("the backward pass"))?;
        self.losses.push(self.step + 1, rows, terms);
        Ok(gradients)
    }

    fn update(&mut self, gradients: &[Tensor]) -> Result<(), DeviceError> {
        let optimizer = &self.plan.optimizer;
        let rule = optimizer.coefficients(self.step);
        let result = match optimizer.clip_norm {
            Some(limit) => {
                clip(gradients, limit).and_then(|clipped| update(rule, &self.model.vars, &mut self.moments, &clipped))
            }
            None => update(rule, &self.model.vars, &mut self.moments, gradients),
        };
        result.map_err(self.failed("the optimiser step"))?;
        self.step += 1;
        Ok(())
    }
}

impl Executable for CandleExecutable {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn kernels(&self) -> Vec<KernelChoice> {
        let layers = self.model.kernels().into_iter().map(|(op, kernel)| KernelChoice { op, kernel });
        let backward = KernelChoice { op: "backward".to_owned(), kernel: "candle autograd".to_owned() };
        let update = KernelChoice { op: "update".to_owned(), kernel: "candle tensor operations".to_owned() };
        layers.chain([backward, update]).collect()
    }

    fn write(&mut self, state: State, src: &[f32]) -> Result<(), RunError> {
        self.check_len(src.len())?;
        if state == State::Grads {
            return Err(RunError::ReadOnly);
        }
        for (index, param) in self.plan.params.params().iter().enumerate() {
            let tensor = Tensor::from_slice(&src[param.range()], param.shape.as_slice(), &Device::Cpu)
                .and_then(|tensor| tensor.to_dtype(self.dtype()));
            let tensor = tensor.map_err(self.failed("writing the state"))?;
            match state {
                State::Params => {
                    self.model.vars[index].set(&tensor).map_err(self.failed("writing the parameters"))?;
                }
                State::Moment1 => self.moments.first[index] = tensor,
                State::Moment2 => self.moments.second[index] = tensor,
                State::Grads => return Err(RunError::ReadOnly),
            }
        }
        Ok(())
    }

    fn read(&mut self, state: State, dst: &mut [f32]) -> Result<(), RunError> {
        self.read_as(state, dst)
    }

    fn read_f64(&mut self, state: State, dst: &mut [f64]) -> Result<(), RunError> {
        self.read_as(state, dst)
    }

    fn step(&self) -> u64 {
        self.step
    }

    fn set_step(&mut self, step: u64) {
        self.step = step;
    }

    fn upload(&mut self, rows: Rows<'_>) -> Result<DataId, RunError> {
        rows.check(self.plan.spec.width())?;
        let data = upload(rows, self.dtype()).map_err(self.failed("the upload"))?;
        Ok(self.data.push(data))
    }

    fn release(&mut self, data: DataId) -> Result<(), RunError> {
        self.data.remove(data)
    }

    fn gradients(&mut self, batch: &Batch<'_>) -> Result<(), RunError> {
        self.gradients = Some(self.backward(batch)?);
        Ok(())
    }

    fn apply(&mut self) -> Result<(), RunError> {
        let gradients = self.gradients.take().ok_or(RunError::NoGradients)?;
        let result = self.update(&gradients);
        self.gradients = Some(gradients);
        Ok(result?)
    }

    fn train_step(&mut self, batch: &Batch<'_>) -> Result<(), RunError> {
        let gradients = self.backward(batch)?;
        Ok(self.update(&gradients)?)
    }

    fn infer(&mut self, entry: Entry, input: &[f32], out: &mut [f32]) -> Result<(), RunError> {
        entry.check(&self.plan, input, out)?;
        Ok(self.infer_as(entry, input, out).map_err(self.failed("inference"))?)
    }

    fn infer_f64(&mut self, entry: Entry, input: &[f32], out: &mut [f64]) -> Result<(), RunError> {
        entry.check(&self.plan, input, out)?;
        Ok(self.infer_as(entry, input, out).map_err(self.failed("inference"))?)
    }

    fn losses(&mut self) -> Result<Losses, RunError> {
        Ok(std::mem::take(&mut self.losses))
    }

    fn synchronize(&mut self) -> Result<(), RunError> {
        Ok(())
    }
}
