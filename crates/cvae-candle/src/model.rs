//! The network and its loss, from the specification and the objective alone.

use candle_core::{Device, Result, Tensor, Var};
use cvae_core::{Entry, Jacobian, Latent, Objective, ParamLayout, Part, Plan, Stream, Term};

use crate::Precision;
use crate::draws::Draws;
use crate::input::{Input, observe};
use crate::jacobian::{squared_norm, unit_vectors};
use crate::latent::{
    capacity, clamp_logvar, collapsed_prior, free_bits, kl_divergence, mmd, param_norm, reparameterize, sparse, top_k,
};
use crate::linear::{Dense, Trace};
use crate::reconstruction::{Compared, mixed_output};

/// Parameters as variables, in the order of the layout, and the layers over them.
pub(crate) struct Model {
    precision: Precision,
    objective: Objective,
    /// One variable per parameter of the layout.
    pub(crate) vars: Vec<Var>,
    decoder_params: Vec<usize>,
    encoder: Vec<Dense>,
    logvar: Option<Dense>,
    decoder: Vec<Dense>,
}

/// The loss of a batch: one scalar per term in use.
pub(crate) struct Loss {
    terms: [Option<Tensor>; Term::COUNT],
}

impl Model {
    /// The network of `plan`, its parameters zero.
    pub(crate) fn new(precision: Precision, plan: &Plan) -> Result<Self> {
        let layout = &plan.params;
        let vars = layout
            .params()
            .iter()
            .map(|param| Var::zeros(param.shape.as_slice(), precision.dtype(), &Device::Cpu))
            .collect::<Result<Vec<_>>>()?;
        let stack = |part: Part| -> Result<Vec<Dense>> {
            let layers = plan.spec.layers(part).iter().enumerate();
            layers
                .map(|(index, layer)| {
                    let name = format!("{part}.{}", 2 * index);
                    let (weight, bias) = pair(layout, &vars, &name)?;
                    let dense = Dense::new(precision, weight, bias, layer.activation());
                    match layout.find(&format!("{name}.weight")) {
                        Some((id, _)) if part == Part::Decoder && plan.objective.spectral_norm => {
                            dense.with_spectral_norm(id.index() as u32)
                        }
                        _ => Ok(dense),
                    }
                })
                .collect()
        };
        let (encoder, decoder) = (stack(Part::Encoder)?, stack(Part::Decoder)?);
        let logvar = match plan.objective.latent.is_variational() {
            true => {
                let (weight, bias) = pair(layout, &vars, "logvar")?;
                Some(Dense::new(precision, weight, bias, cvae_core::Activation::Identity))
            }
            false => None,
        };
        let in_decoder = layout.params().iter().enumerate().filter(|(_, param)| param.part == Part::Decoder);
        let decoder_params = in_decoder.map(|(index, _)| index).collect();
        Ok(Self { precision, objective: plan.objective.clone(), vars, decoder_params, encoder, logvar, decoder })
    }

    /// What each layer runs on, named as its parameters.
    pub(crate) fn kernels(&self) -> Vec<(String, String)> {
        let named = |part: Part, layers: &[Dense]| -> Vec<(String, String)> {
            layers.iter().enumerate().map(|(i, layer)| (format!("{part}.{}", 2 * i), layer.kernel())).collect()
        };
        let mut kernels = named(Part::Encoder, &self.encoder);
        kernels.extend(self.logvar.iter().map(|layer| ("logvar".to_owned(), layer.kernel())));
        kernels.extend(named(Part::Decoder, &self.decoder));
        kernels
    }

    /// Runs an inference entry.
    pub(crate) fn infer(&self, entry: Entry, input: &Tensor) -> Result<Tensor> {
        match entry {
            Entry::Encode => self.encode(input),
            Entry::Decode => self.decode(input),
            Entry::Reconstruct => self.decode(&self.encode(input)?),
        }
    }

    fn encode(&self, rows: &Tensor) -> Result<Tensor> {
        let rows = if self.objective.missing { observe(rows)? } else { rows.clone() };
        let code = forward(&self.encoder, &rows)?;
        self.objective.top_k.map_or(Ok(code.clone()), |k| Ok(top_k(k, &code)?.0))
    }

    fn decode(&self, code: &Tensor) -> Result<Tensor> {
        mixed_output(&self.objective.columns, &forward(&self.decoder, code)?)
    }

    /// The loss of a batch of `rows × width`.
    pub(crate) fn loss(&self, rows: &Tensor, draws: &Draws) -> Result<Loss> {
        let objective = &self.objective;
        let mut terms = [const { None }; Term::COUNT];
        let input = Input::new(objective, rows, draws)?;
        let encoder = Dense::trace(&self.encoder, &input.fed)?;
        let (mut code, mut kept) = (encoder.output.clone(), None);
        if let Some(layer) = &self.logvar {
            let logvar = clamp_logvar(&layer.linear(&encoder.last_input)?)?;
            terms[Term::Latent.index()] = self.divergence(&code, &logvar)?;
            code = reparameterize(&code, &logvar, &draws.normal(Stream::Reparameterize, code.dim(1)?)?)?;
        } else {
            if let Some(k) = objective.top_k {
                let (sparse, marks) = top_k(k, &code)?;
                (code, kept) = (sparse, Some(marks));
            }
            terms[Term::Latent.index()] = self.code_term(&code, draws)?;
        }
        let decoder = Dense::trace(&self.decoder, &code)?;
        terms[Term::Reconstruction.index()] = self.reconstruction(&decoder, &input)?;
        if objective.decoder_l2 > 0.0 {
            let params = self.decoder_params.iter().map(|index| &self.vars[*index]);
            terms[Term::DecoderL2.index()] = param_norm(objective.decoder_l2, params)?;
        }
        terms[Term::Jacobian.index()] = self.jacobian_term(&encoder, &decoder, kept.as_ref(), draws)?;
        Ok(Loss { terms })
    }

    /// The latent term of a sampled code.
    fn divergence(&self, mean: &Tensor, logvar: &Tensor) -> Result<Option<Tensor>> {
        let latent = self.objective.latent;
        if latent.weight() == 0.0 {
            return Ok(None);
        }
        let term = match latent {
            Latent::Variational { beta } => kl_divergence(beta, mean, logvar),
            Latent::Capacity { gamma, capacity: aim } => capacity(gamma, aim, mean, logvar),
            Latent::FreeBits { beta, floor } => free_bits(beta, floor, mean, logvar),
            Latent::None | Latent::Collapsed { .. } | Latent::Sparse { .. } | Latent::Mmd { .. } => return Ok(None),
        };
        term.map(Some)
    }

    /// The latent term of a code that is not sampled.
    fn code_term(&self, code: &Tensor, draws: &Draws) -> Result<Option<Tensor>> {
        let latent = self.objective.latent;
        if latent.weight() == 0.0 {
            return Ok(None);
        }
        match latent {
            Latent::Collapsed { beta } => collapsed_prior(beta, code).map(Some),
            Latent::Sparse { weight } => sparse(weight, code).map(Some),
            Latent::Mmd { weight } => mmd(weight, code, &draws.normal(Stream::Prior, code.dim(1)?)?),
            Latent::None | Latent::Variational { .. } | Latent::Capacity { .. } | Latent::FreeBits { .. } => Ok(None),
        }
    }

    /// The reconstruction term; `None` where a learnt variance has observed nothing.
    fn reconstruction(&self, decoder: &Trace, input: &Input) -> Result<Option<Tensor>> {
        let Objective { reconstruction: kind, sigma_floor, columns, .. } = &self.objective;
        let prediction = match (self.objective.takes_logits(), decoder.logits.last()) {
            (true, Some(logits)) => logits,
            _ => &decoder.output,
        };
        let compared = Compared { prediction, target: &input.target, weights: input.weights.as_ref() };
        match sigma_floor {
            Some(floor) => compared.learnt_variance(*floor),
            None if columns.is_empty() => compared.whole(self.precision, *kind).map(Some),
            None => compared.groups(*kind, columns).map(Some),
        }
    }

    /// The penalty on a Jacobian; `kept` marks the elements of a sparse code.
    fn jacobian_term(
        &self,
        encoder: &Trace,
        decoder: &Trace,
        kept: Option<&Tensor>,
        draws: &Draws,
    ) -> Result<Option<Tensor>> {
        let jacobian = self.objective.jacobian;
        let code = &encoder.output;
        let latent = code.dim(1)?;
        let of_code = |weight: f64, cotangent: Tensor| {
            let cotangent = kept.map_or(Ok(cotangent.clone()), |kept| cotangent * kept)?;
            squared_norm(weight, &self.encoder, encoder, &cotangent, false)
        };
        match jacobian {
            _ if jacobian.weight() == 0.0 => Ok(None),
            Jacobian::None => Ok(None),
            Jacobian::GradientPenalty { weight } => {
                let signs = draws.signs(decoder.output.dim(1)?)?;
                squared_norm(weight, &self.decoder, decoder, &signs, self.objective.takes_logits()).map(Some)
            }
            Jacobian::Contractive { weight } if latent <= Jacobian::EXACT_LATENT => {
                let norms = (0..latent).map(|index| of_code(weight, unit_vectors(index, code)?));
                norms.reduce(|sum, norm| sum? + norm?).transpose()
            }
            Jacobian::Contractive { weight } => of_code(weight, draws.signs(latent)?).map(Some),
        }
    }
}

/// Output of the last of `layers`.
fn forward(layers: &[Dense], input: &Tensor) -> Result<Tensor> {
    layers.iter().try_fold(input.clone(), |value, layer| layer.forward(&value))
}

impl Loss {
    /// The value of each term; 0 for one that is not in use.
    pub(crate) fn values(&self) -> Result<[f64; Term::COUNT]> {
        let mut values = [0.0; Term::COUNT];
        for (value, term) in values.iter_mut().zip(&self.terms) {
            if let Some(term) = term {
                *value = term.to_dtype(candle_core::DType::F64)?.to_scalar()?;
            }
        }
        Ok(values)
    }

    /// The gradient of the whole loss with respect to `vars`; zeros where it does not depend on one.
    pub(crate) fn gradients(&self, vars: &[Var]) -> Result<Vec<Tensor>> {
        let mut total: Option<Tensor> = None;
        for term in self.terms.iter().flatten() {
            total = Some(match total {
                None => term.clone(),
                Some(sum) => (sum + term)?,
            });
        }
        let store = match total {
            Some(total) => Some(total.backward()?),
            None => None,
        };
        let gradient = |var: &Var| match store.as_ref().and_then(|store| store.get(var)) {
            Some(gradient) => Ok(gradient.detach()),
            None => var.zeros_like(),
        };
        vars.iter().map(gradient).collect()
    }
}

/// Weight and bias of the layer `name`; a linear layer has no bias.
fn pair<'a>(layout: &ParamLayout, vars: &'a [Var], name: &str) -> Result<(&'a Var, Option<&'a Var>)> {
    let find = |suffix: &str| layout.find(&format!("{name}.{suffix}")).map(|(id, _)| &vars[id.index()]);
    match find("weight") {
        Some(weight) => Ok((weight, find("bias"))),
        None => candle_core::bail!("the layout has no parameter {name}.weight"),
    }
}
