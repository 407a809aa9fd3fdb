//! The network and its loss, from the specification and the objective alone.

use candle_core::{Device, Result, Tensor, Var};
use cvae_core::{Entry, Latent, LayerSpec, Objective, ParamLayout, Part, Plan, Reconstruction, Term};

use crate::Precision;
use crate::latent::{clamp_logvar, collapsed_prior, kl_divergence, param_norm, reparameterize};
use crate::linear::Dense;
use crate::reconstruction::reconstruction;

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
                    let LayerSpec::Dense { activation, .. } = layer;
                    let [weight, bias] = pair(layout, &vars, &format!("{part}.{}", 2 * index))?;
                    Ok(Dense::new(precision, weight, bias, *activation))
                })
                .collect()
        };
        let (encoder, decoder) = (stack(Part::Encoder)?, stack(Part::Decoder)?);
        let logvar = match plan.objective.latent {
            Latent::Variational { .. } => {
                let [weight, bias] = pair(layout, &vars, "logvar")?;
                Some(Dense::new(precision, weight, bias, cvae_core::Activation::Identity))
            }
            _ => None,
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
        let forward = |layers: &[Dense], input: &Tensor| {
            layers.iter().try_fold(input.clone(), |value, layer| layer.forward(&value))
        };
        match entry {
            Entry::Encode => forward(&self.encoder, input),
            Entry::Decode => forward(&self.decoder, input),
            Entry::Reconstruct => forward(&self.decoder, &forward(&self.encoder, input)?),
        }
    }

    /// The loss of a batch of `rows × width`; `noise` is `rows × latent` and used by variational models only.
    pub(crate) fn loss(&self, input: &Tensor, noise: Option<&Tensor>) -> Result<Loss> {
        let mut terms = [const { None }; Term::COUNT];
        let Some((head, trunk)) = self.encoder.split_last() else {
            candle_core::bail!("the encoder has no layers");
        };
        let features = trunk.iter().try_fold(input.clone(), |value, layer| layer.forward(&value))?;
        let mut code = head.forward(&features)?;
        match (self.objective.latent, &self.logvar, noise) {
            (Latent::Variational { beta }, Some(layer), Some(noise)) => {
                let logvar = clamp_logvar(&layer.linear(&features)?)?;
                if beta > 0.0 {
                    terms[Term::Latent.index()] = Some(kl_divergence(beta, &code, &logvar)?);
                }
                code = reparameterize(&code, &logvar, noise)?;
            }
            (Latent::Collapsed { beta }, _, _) if beta > 0.0 => {
                terms[Term::Latent.index()] = Some(collapsed_prior(beta, &code)?);
            }
            _ => {}
        }
        let prediction = self.decode_for_loss(&code)?;
        let kind = self.objective.reconstruction;
        terms[Term::Reconstruction.index()] = Some(reconstruction(self.precision, kind, &prediction, input)?);
        if self.objective.decoder_l2 > 0.0 {
            let params = self.decoder_params.iter().map(|index| &self.vars[*index]);
            terms[Term::DecoderL2.index()] = param_norm(self.objective.decoder_l2, params)?;
        }
        Ok(Loss { terms })
    }

    /// The reconstruction, or its logits for cross-entropy.
    fn decode_for_loss(&self, code: &Tensor) -> Result<Tensor> {
        let Some((last, hidden)) = self.decoder.split_last() else {
            candle_core::bail!("the decoder has no layers");
        };
        let value = hidden.iter().try_fold(code.clone(), |value, layer| layer.forward(&value))?;
        match self.objective.reconstruction {
            Reconstruction::Bce => last.linear(&value),
            _ => last.forward(&value),
        }
    }
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

fn pair<'a>(layout: &ParamLayout, vars: &'a [Var], name: &str) -> Result<[&'a Var; 2]> {
    let find = |suffix: &str| match layout.find(&format!("{name}.{suffix}")) {
        Some((id, _)) => Ok(&vars[id.index()]),
        None => candle_core::bail!("the layout has no parameter {name}.{suffix}"),
    };
    Ok([find("weight")?, find("bias")?])
}
