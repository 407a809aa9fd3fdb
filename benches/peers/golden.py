"""Golden fixtures: losses, gradients and updates of small models, from PyTorch's autograd in f64.

    python golden.py            writes crates/cvae-conformance/fixtures/*.safetensors
    python golden.py --check    compares the committed files with freshly computed ones

Metadata of a fixture: `spec`, `objective` and `optimizers` (a map from name to optimiser) as JSON in the form
cvae-core serialises, `seed`, and the versions that made it. Tensors, all f64:

    rows                      [rows, width], NaN where a value is missing
    noise                     [3, rows, latent], variational only: step k draws the noise of epoch k
    params/NAME, grads/NAME   initial parameters and the gradient there (unclipped, noise of epoch 0)
    losses                    [4]: reconstruction, latent, decoder_l2, jacobian at the initial parameters
    code, reconstruction      the inference entries at the initial parameters
    OPTIMIZER/params/NAME     after three steps on the same rows, and so moment1 and moment2

Rows, noise and initial parameters are float32 numbers. Seeds are chosen so that no value lies near a kink and
no gradient is so small that Adam's quotient is ill-conditioned.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import philox

FIXTURES = Path(__file__).resolve().parents[2] / "crates" / "cvae-conformance" / "fixtures"
STEPS = 3
LOG_VARIANCE = (-30.0, 20.0)
# Least distance from a kink, and least size of a gradient that is not exactly zero.
KINK_MARGIN = 2e-3
GRADIENT_MARGIN = 2e-4
# Largest code whose contractive term is exact.
EXACT_LATENT = 16

ACTIVATIONS = {
    "identity": lambda a: a,
    "relu": functional.relu,
    "leaky_relu": lambda a: functional.leaky_relu(a, 0.01),
    "elu": functional.elu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
KINKED = {"relu", "leaky_relu"}


def adam(learning_rate: float, **changes) -> dict:
    algorithm = {"kind": "adam", "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    return optimizer(algorithm, learning_rate, **changes)


def optimizer(algorithm: dict, learning_rate: float, **changes) -> dict:
    base = {"schedule": {"kind": "constant"}, "warmup_steps": 0, "clip_norm": None}
    return {"algorithm": algorithm, "learning_rate": learning_rate, **base, **changes}


OPTIMIZERS = {
    "adam": adam(0.01),
    "adamw": optimizer(
        {"kind": "adam_w", "beta1": 0.8, "beta2": 0.99, "eps": 1e-6, "weight_decay": 0.1},
        0.01,
        schedule={"kind": "cosine", "steps": 4, "final_factor": 0.1},
        warmup_steps=2,
    ),
    "sgd": optimizer({"kind": "sgd", "momentum": 0.9}, 0.02, schedule={"kind": "step", "every": 2, "factor": 0.5}),
    "adam_clipped": adam(0.01, clip_norm=0.05),
    "sgd_clipped": optimizer({"kind": "sgd", "momentum": 0.5}, 0.5, clip_norm=0.05),
}


@dataclass
class Case:
    """One fixture: widths of both halves, activations, objective and rows."""

    name: str
    encoder: list[int]
    decoder: list[int]
    hidden: str
    output: str
    reconstruction: dict
    latent: dict
    decoder_l2: float
    rows: int
    # Added to the bias of the log-variance head.
    logvar_bias: float = 0.0
    # Further parts of the objective.
    parts: dict = field(default_factory=dict)
    # Square layers without bias at the end of the encoder.
    linear_layers: int = 0
    seed: int = field(default=0)

    @property
    def variational(self) -> bool:
        return self.latent["kind"] in ("variational", "capacity", "free_bits")

    @property
    def groups(self) -> list[tuple[str, float, slice]]:
        """Kind, weight and columns of each group; one numeric group if there are none."""
        start, groups = 0, []
        for group in self.parts.get("columns", [{"kind": "numeric", "width": self.encoder[0], "weight": 1.0}]):
            groups.append((group["kind"], group["weight"], slice(start, start + group["width"])))
            start += group["width"]
        return groups

    def units(self) -> list[int]:
        """The unit of each column in which rows are corrupted."""
        patch = self.parts.get("corruption", {}).get("patch")
        if patch is not None:
            size, width = patch["size"], patch["width"]
            across = math.ceil(width / size)
            return [(j // width // size) * across + (j % width) // size for j in range(self.encoder[0])]
        units = []
        for kind, _, columns in self.groups:
            for j in range(columns.start, columns.stop):
                together = kind == "categorical" and j > columns.start
                units.append(units[-1] if together else (units[-1] + 1 if units else 0))
        return units

    def activations(self, half: str) -> list[str]:
        widths, last = (self.encoder, "identity") if half == "encoder" else (self.decoder, self.output)
        return [self.hidden] * (len(widths) - 2) + [last]

    def spec(self) -> dict:
        def layers(half: str, widths: list[int]) -> list[dict]:
            pairs = zip(widths[1:], self.activations(half), strict=True)
            return [{"kind": "dense", "units": units, "activation": name} for units, name in pairs]

        linear = [{"kind": "linear", "units": self.encoder[-1]}] * self.linear_layers
        return {
            "input": [self.encoder[0]],
            "encoder": layers("encoder", self.encoder) + linear,
            "decoder": layers("decoder", self.decoder),
        }

    def objective(self) -> dict:
        base = {"reconstruction": self.reconstruction, "latent": self.latent, "decoder_l2": self.decoder_l2}
        return base | self.parts

    def initial(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Rows and parameters, in the order of the layout."""
        rng = np.random.default_rng([self.seed, len(self.encoder), self.rows])
        rows = rng.standard_normal((self.rows, self.encoder[0]))
        if self.reconstruction["kind"] == "bce":
            rows = rng.random((self.rows, self.encoder[0]))
        for kind, _, columns in self.groups:
            if kind == "categorical":
                width = columns.stop - columns.start
                rows[:, columns] = np.eye(width)[rng.integers(0, width, self.rows)]
            elif kind == "binary":
                rows[:, columns] = rng.random((self.rows, columns.stop - columns.start))
        if self.parts.get("missing", False):
            rows[rng.random(rows.shape) < 0.2] = np.nan
        params = {}

        def dense(name: str, fan_in: int, fan_out: int) -> None:
            scale = math.sqrt(2.0 / (fan_in + fan_out))
            params[f"{name}.weight"] = rng.standard_normal((fan_out, fan_in)) * scale
            params[f"{name}.bias"] = rng.standard_normal(fan_out) * 0.2

        for half, widths in (("encoder", self.encoder), ("decoder", self.decoder)):
            for at, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
                dense(f"{half}.{2 * at}", fan_in, fan_out)
            if half == "encoder":
                for at in range(self.linear_layers):
                    square = rng.standard_normal((widths[-1], widths[-1])) / math.sqrt(widths[-1])
                    params[f"encoder.{2 * (len(widths) - 1 + at)}.weight"] = square
            if half == "encoder" and self.variational:
                dense("logvar", widths[-2], widths[-1])
                params["logvar.bias"] += self.logvar_bias
        single = {name: value.astype(np.float32).astype(np.float64) for name, value in params.items()}
        return rows.astype(np.float32).astype(np.float64), single


class NearKink(Exception):
    """The seed puts a value near a kink, or makes a gradient too small."""


class Model:
    """The case's forward pass and loss; every kinked quantity is checked on the way."""

    def __init__(self, case: Case, params: dict[str, np.ndarray]):
        self.case = case
        self.params = {name: nn.Parameter(torch.tensor(value)) for name, value in params.items()}

    def linear(self, name: str, inputs: torch.Tensor) -> torch.Tensor:
        return functional.linear(inputs, self.params[f"{name}.weight"], self.params.get(f"{name}.bias"))

    def act(self, name: str, inputs: torch.Tensor) -> torch.Tensor:
        if name in KINKED:
            away_from_zero(inputs)
        return ACTIVATIONS[name](inputs)

    def encode(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The code (posterior mean) and what the heads read."""
        activations = self.case.activations("encoder") + ["identity"] * self.case.linear_layers
        for at, name in enumerate(activations):
            trunk = rows
            rows = self.act(name, self.linear(f"encoder.{2 * at}", rows))
        return self.largest(rows), trunk

    def largest(self, code: torch.Tensor) -> torch.Tensor:
        """The elements of the code that are kept."""
        keep = self.case.parts.get("top_k")
        if keep is None:
            return code
        sizes = code.detach().abs().sort(dim=1, descending=True).values
        away_from_zero(sizes[:, keep - 1] - sizes[:, keep])
        return torch.where(code.abs() >= sizes[:, keep - 1 : keep], code, torch.zeros_like(code))

    def decode(self, code: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The last layer before and after its activation."""
        for at, name in enumerate(self.case.activations("decoder")):
            logits = self.linear(f"decoder.{2 * at}", code)
            code = self.act(name, logits)
        return logits, code

    def reconstruct(self, code: torch.Tensor) -> torch.Tensor:
        """The rows that inference gives for codes."""
        output = self.decode(code)[1]
        finish = {"numeric": lambda u: u, "binary": torch.sigmoid, "categorical": lambda u: u.softmax(dim=1)}
        return torch.cat([finish[kind](output[:, columns]) for kind, _, columns in self.case.groups], dim=1)

    def corrupt(self, clean: torch.Tensor, observed: torch.Tensor, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What the encoder reads, and what counts in the reconstruction."""
        corruption = self.case.parts.get("corruption")
        if corruption is None:
            return clean, observed
        count, width = clean.shape
        if corruption["kind"] == "gaussian":
            noise = philox.normal(self.case.seed, epoch, count, width, philox.CORRUPT).astype(np.float64)
            return (clean + corruption["std"] * torch.tensor(noise)) * observed, observed
        units = self.case.units()
        marks = torch.tensor(philox.marks(self.case.seed, epoch, count, units, corruption["share"]))
        if corruption["kind"] == "permutation":
            donors = torch.tensor(philox.donors(self.case.seed, epoch, count, units))
            return torch.where(marks, clean.gather(0, donors), clean) * observed, observed
        erased = torch.where(marks, 0.0, clean)
        return erased, observed * marks if corruption["kind"] == "masked" else observed

    def losses(self, rows: torch.Tensor, epoch: int) -> torch.Tensor:
        """Weighted terms: reconstruction, latent, decoder L2, Jacobian."""
        clean, observed = rows.nan_to_num(), (~rows.isnan()).double()
        fed, weights = self.corrupt(clean, observed, epoch)
        fed = fed.detach().requires_grad_(True)
        mean, trunk = self.encode(fed)
        code, latent = self.latent(mean, trunk, epoch)
        logits, output = self.decode(code)
        decoder = [p for name, p in self.params.items() if name.startswith("decoder.")]
        decay = 0.5 * self.case.decoder_l2 * sum(p.square().sum() for p in decoder)
        prediction = logits if self.case.reconstruction["kind"] == "bce" else output
        jacobian = self.jacobian(fed, mean, code, prediction, epoch)
        return torch.stack([self.compare(prediction, clean, weights), latent, decay, jacobian])

    def latent(self, mean: torch.Tensor, trunk: torch.Tensor, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The code that the decoder reads, and the latent term."""
        term, count = self.case.latent, len(mean)
        kind = term["kind"]
        if kind == "collapsed":
            return mean, term["beta"] * 0.5 * mean.square().sum() / count
        if kind == "sparse":
            away_from_zero(mean[mean != 0.0])
            return mean, term["weight"] * mean.abs().sum() / count
        if kind == "mmd":
            prior = philox.normal(self.case.seed, epoch, count, mean.shape[1], philox.PRIOR).astype(np.float64)
            return mean, term["weight"] * discrepancy(mean, torch.tensor(prior))
        if kind == "none":
            return mean, torch.zeros(())
        raw = self.linear("logvar", trunk)
        for bound in LOG_VARIANCE:
            away_from_zero(raw - bound)
        logvar = raw.clamp(*LOG_VARIANCE)
        divergences = (0.5 * (mean.square() + torch.expm1(logvar) - logvar)).mean(dim=0)
        noise = philox.normal(self.case.seed, epoch, *mean.shape).astype(np.float64)
        code = mean + torch.exp(0.5 * logvar) * torch.tensor(noise)
        if kind == "capacity":
            excess = divergences.sum() - term["capacity"]
            away_from_zero(excess)
            return code, term["gamma"] * excess.abs()
        if kind == "free_bits":
            away_from_zero(divergences - term["floor"])
            return code, term["beta"] * divergences.clamp(min=term["floor"]).sum()
        return code, term["beta"] * divergences.sum()

    def jacobian(self, fed, mean, code, prediction, epoch: int) -> torch.Tensor:
        """The penalty on a Jacobian, by PyTorch's derivatives of derivatives."""
        term = self.case.parts.get("jacobian")
        if term is None:
            return torch.zeros(())

        def squared_norm(output: torch.Tensor, at: torch.Tensor, cotangent: torch.Tensor) -> torch.Tensor:
            (pulled,) = torch.autograd.grad(output, at, cotangent, create_graph=True)
            return term["weight"] * pulled.square().sum() / len(fed)

        if term["kind"] == "gradient_penalty":
            signs = philox.signs(self.case.seed, epoch, *prediction.shape)
            return squared_norm(prediction, code, torch.tensor(signs))
        if mean.shape[1] > EXACT_LATENT:
            signs = philox.signs(self.case.seed, epoch, *mean.shape)
            return squared_norm(mean, fed, torch.tensor(signs))
        units = torch.eye(mean.shape[1])
        return sum(squared_norm(mean, fed, unit.expand_as(mean)) for unit in units)

    def compare(self, prediction: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The reconstruction term; `weights` are 0 where an element does not count."""
        count = len(target)
        floor = self.case.parts.get("sigma_floor")
        if floor is not None:
            observed = weights.sum()
            mse = (weights * (prediction - target).square()).sum() / observed
            return observed / (2 * count) * torch.log(mse + floor)
        total = torch.zeros(())
        for kind, weight, columns in self.case.groups:
            u, x, w = prediction[:, columns], target[:, columns], weights[:, columns]
            if kind == "categorical":
                complete = (w == 1.0).all(dim=1)
                total = total + weight * functional.cross_entropy(u, x, reduction="none")[complete].sum() / count
            elif kind == "binary":
                losses = functional.binary_cross_entropy_with_logits(u, x, reduction="none")
                total = total + weight * (w * losses).sum() / count
            else:
                total = total + weight * (w * self.elements(u, x)).sum() / count
        return total

    def elements(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of each element of numeric columns."""
        kind = self.case.reconstruction["kind"]
        if kind == "mse_sum":
            return 0.5 * functional.mse_loss(prediction, target, reduction="none")
        if kind == "mse_mean":
            return functional.mse_loss(prediction, target, reduction="none") / self.case.encoder[0]
        if kind == "bce":
            return functional.binary_cross_entropy_with_logits(prediction, target, reduction="none")
        if kind == "l1":
            away_from_zero(prediction - target)
            return functional.l1_loss(prediction, target, reduction="none")
        delta = self.case.reconstruction["delta"]
        away_from_zero((prediction - target).abs() - delta)
        return functional.huber_loss(prediction, target, reduction="none", delta=delta)


def discrepancy(codes: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """MMD^2 without bias, over the inverse multiquadratic kernels of docs/MATH.md."""

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        squared = (a[:, None] - b[None]).square().sum(dim=2)
        constants = [2.0 * a.shape[1] * scale for scale in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)]
        return sum(c / (c + squared) for c in constants)

    count = len(codes)
    others = 1.0 - torch.eye(count)
    among = ((kernel(codes, codes) + kernel(prior, prior)) * others).sum() / (count * (count - 1))
    return among - 2.0 * kernel(codes, prior).mean()


def away_from_zero(values: torch.Tensor) -> None:
    if (values.detach().abs() < KINK_MARGIN).any():
        raise NearKink


def learning_rate(spec: dict, step: int) -> float:
    """The rate of the step that follows `step` finished ones."""
    base, schedule = spec["learning_rate"], spec["schedule"]
    if step < spec["warmup_steps"]:
        return base * (step + 1) / spec["warmup_steps"]
    step -= spec["warmup_steps"]
    if schedule["kind"] == "cosine":
        progress = min(step / schedule["steps"], 1.0)
        low = schedule["final_factor"]
        return base * (low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * progress)))
    if schedule["kind"] == "step":
        return base * schedule["factor"] ** (step // schedule["every"])
    return base


def torch_optimizer(spec: dict, params: list[nn.Parameter]) -> torch.optim.Optimizer:
    algorithm = spec["algorithm"]
    if algorithm["kind"] == "sgd":
        return torch.optim.SGD(params, lr=1.0, momentum=algorithm["momentum"])
    options = {"lr": 1.0, "betas": (algorithm["beta1"], algorithm["beta2"]), "eps": algorithm["eps"]}
    if algorithm["kind"] == "adam":
        return torch.optim.Adam(params, **options)
    return torch.optim.AdamW(params, **options, weight_decay=algorithm["weight_decay"])


def backward(model: Model, rows: torch.Tensor, epoch: int) -> torch.Tensor:
    """Leaves gradients on the parameters and returns the loss terms."""
    for param in model.params.values():
        param.grad = None
    terms = model.losses(rows, epoch)
    terms.sum().backward()
    for param in model.params.values():
        if param.grad is None:
            param.grad = torch.zeros_like(param)
        size = param.grad.abs()
        if ((size > 0) & (size < GRADIENT_MARGIN)).any():
            raise NearKink
    return terms.detach()


def train(case: Case, name: str, initial, rows) -> Iterator[tuple[str, torch.Tensor]]:
    """Three steps; yields the state they leave."""
    spec = OPTIMIZERS[name]
    model = Model(case, initial)
    params = list(model.params.values())
    update = torch_optimizer(spec, params)
    for step in range(STEPS):
        backward(model, rows, step)
        if spec["clip_norm"] is not None:
            norm = torch.sqrt(sum(p.grad.square().sum() for p in params))
            if norm <= 1.05 * spec["clip_norm"]:
                raise NearKink
            for param in params:
                param.grad *= spec["clip_norm"] / norm
        for group in update.param_groups:
            group["lr"] = learning_rate(spec, step)
        update.step()
    sgd = spec["algorithm"]["kind"] == "sgd"
    for key, param in model.params.items():
        state = update.state[param]
        yield f"{name}/params/{key}", param
        yield f"{name}/moment1/{key}", state["momentum_buffer" if sgd else "exp_avg"]
        yield f"{name}/moment2/{key}", torch.zeros_like(param) if sgd else state["exp_avg_sq"]


def fixture(case: Case) -> dict[str, np.ndarray]:
    """Every tensor of the case at its seed."""
    start, initial = case.initial()
    rows = torch.tensor(start)
    tensors = {"rows": rows}
    if case.variational:
        draws = [philox.normal(case.seed, epoch, case.rows, case.encoder[-1]) for epoch in range(STEPS)]
        tensors["noise"] = torch.tensor(np.stack(draws).astype(np.float64))
    model = Model(case, initial)
    with torch.no_grad():
        tensors["code"] = model.encode(rows.nan_to_num())[0]
        tensors["reconstruction"] = model.reconstruct(tensors["code"])
    tensors["losses"] = backward(model, rows, 0)
    for name, param in model.params.items():
        tensors[f"params/{name}"] = param
        tensors[f"grads/{name}"] = param.grad
    for name in OPTIMIZERS:
        tensors |= train(case, name, initial, rows)
    return {name: value.detach().numpy() for name, value in tensors.items()}


def settle(case: Case) -> dict[str, np.ndarray]:
    """The fixture at the first seed away from every kink."""
    for case.seed in range(1, 5000):
        try:
            return fixture(case)
        except NearKink:
            continue
    raise RuntimeError(f"{case.name}: no seed keeps away from the kinks")


def cases() -> Iterator[Case]:
    """Every reconstruction with every latent term, every activation, and the narrow shapes."""
    reconstructions = [
        {"kind": "mse_sum"},
        {"kind": "mse_mean"},
        {"kind": "bce"},
        {"kind": "l1"},
        {"kind": "huber", "delta": 0.4},
    ]
    latents = [{"kind": "none"}, {"kind": "collapsed", "beta": 0.3}, {"kind": "variational", "beta": 0.7}]
    smooth = itertools.cycle(["tanh", "silu", "elu", "gelu", "sigmoid"])
    for reconstruction, latent in itertools.product(reconstructions, latents):
        output = "sigmoid" if reconstruction["kind"] == "bce" else "identity"
        decays = {"none": 0.0, "collapsed": 0.05, "variational": 0.02}
        yield Case(
            f"{reconstruction['kind']}_{latent['kind']}",
            [7, 5, 3],
            [3, 5, 7],
            next(smooth),
            output,
            reconstruction,
            latent,
            decays[latent["kind"]],
            rows=5,
        )
    sum_of_squares = {"kind": "mse_sum"}
    collapsed = {"kind": "collapsed", "beta": 0.3}
    variational = {"kind": "variational", "beta": 0.5}
    for name in ACTIVATIONS:
        yield Case(f"activation_{name}", [6, 5, 3], [3, 5, 6], name, name, sum_of_squares, collapsed, 0.05, rows=4)
    narrow = {"hidden": "tanh", "output": "identity", "reconstruction": sum_of_squares, "decoder_l2": 0.05}
    yield Case("shape_row1_latent1", [3, 2, 1], [1, 2, 3], latent=collapsed, rows=1, **narrow)
    yield Case("shape_no_hidden", [5, 2], [2, 5], latent=collapsed, rows=3, **narrow)
    yield Case("shape_no_hidden_variational", [5, 2], [2, 5], latent=variational, rows=3, **narrow)
    yield Case("shape_width17", [17, 9, 4], [4, 9, 17], latent=collapsed, rows=7, **narrow)
    yield Case("shape_deep_ragged", [8, 7, 5, 2], [2, 3, 8], latent=variational, rows=6, **narrow)
    yield Case("shape_wide_code", [3, 4, 6], [6, 4, 3], latent=collapsed, rows=2, **narrow)
    # Every log-variance lies below the lower bound: no gradient reaches the head.
    yield Case("logvar_clamped", [6, 4, 2], [2, 4, 6], latent=variational, rows=3, logvar_bias=-40.0, **narrow)
    yield from family()


def family() -> Iterator[Case]:
    """Terms on whole rows, whole batches and derivatives, and what the encoder reads."""
    collapsed = {"kind": "collapsed", "beta": 0.3}
    columns = [
        {"kind": "numeric", "width": 2, "weight": 2.0},
        {"kind": "categorical", "width": 3, "weight": 0.5},
        {"kind": "binary", "width": 2, "weight": 1.0},
    ]
    penalty = {"kind": "gradient_penalty", "weight": 0.3}
    contractive = {"kind": "contractive", "weight": 0.3}
    permutation = {"kind": "permutation", "share": 0.4}
    masked = {"kind": "masked", "share": 0.5}
    patch = {"size": 2, "width": 4, "channels": 1}

    def case(name: str, latent: dict = collapsed, encoder=(7, 5, 3), kind: str = "mse_sum", **parts) -> Case:
        linear_layers, output = parts.pop("linear_layers", 0), "sigmoid" if kind == "bce" else "identity"
        widths = list(encoder)
        return Case(
            f"family_{name}",
            widths,
            widths[::-1],
            "tanh",
            output,
            {"kind": kind},
            latent,
            0.05,
            rows=5,
            parts=parts,
            linear_layers=linear_layers,
        )

    yield case("gaussian", corruption={"kind": "gaussian", "std": 0.3})
    yield case("masking", corruption={"kind": "masking", "share": 0.4})
    yield case("permutation", corruption=permutation)
    yield case("masked", corruption=masked)
    yield case("masked_patches", encoder=(8, 5, 3), corruption=masked | {"patch": patch})
    yield case("missing", missing=True)
    yield case("missing_permutation", missing=True, corruption=permutation)
    yield case("top_k", top_k=2)
    yield case("learnt_variance", sigma_floor=0.001)
    yield case("learnt_variance_missing", sigma_floor=0.001, missing=True)
    yield case("sparse", {"kind": "sparse", "weight": 0.2})
    yield case("capacity", {"kind": "capacity", "gamma": 2.0, "capacity": 0.5})
    yield case("free_bits", {"kind": "free_bits", "beta": 0.7, "floor": 0.3})
    yield case("mmd", {"kind": "mmd", "weight": 3.0})
    yield case("gradient_penalty", jacobian=penalty)
    yield case("gradient_penalty_logits", kind="bce", jacobian=penalty)
    yield case("contractive", jacobian=contractive)
    yield case("contractive_estimated", encoder=(5, 4, 17), jacobian=contractive)
    yield case("contractive_top_k", top_k=2, jacobian=contractive)
    yield case("columns", columns=columns)
    yield case("columns_missing", columns=columns, missing=True)
    yield case("columns_permutation", columns=columns, corruption=permutation)
    yield case("linear_code", linear_layers=2)


def metadata(case: Case) -> dict[str, str]:
    def compact(value) -> str:
        return json.dumps(value, sort_keys=True, separators=(",", ":"))

    return {
        "spec": compact(case.spec()),
        "objective": compact(case.objective()),
        "optimizers": compact(OPTIMIZERS),
        "seed": str(case.seed),
        "steps": str(STEPS),
        "generator": f"golden.py, torch {torch.__version__.split('+')[0]}, numpy {np.__version__}",
    }


def serialize(tensors: dict[str, np.ndarray], info: dict[str, str]) -> bytes:
    """A safetensors file whose bytes depend on its content alone: names sorted, header padded to 8 bytes."""
    header: dict[str, object] = {"__metadata__": info}
    body = b""
    for name, value in sorted(tensors.items()):
        data = np.ascontiguousarray(value, "<f8").tobytes()
        header[name] = {
            "dtype": "F64",
            "shape": list(value.shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def differences(path: Path, tensors: dict[str, np.ndarray], info: dict[str, str]) -> Iterator[str]:
    """How a committed fixture differs; values may differ by rounding between processors."""
    from safetensors import safe_open

    if not path.is_file():
        yield "is missing"
        return
    with safe_open(path, "np") as found:
        kept = found.metadata()
        for key in ("spec", "objective", "optimizers", "seed", "steps"):
            if kept.get(key) != info[key]:
                yield f"has another {key}"
        if set(found.keys()) != set(tensors):
            yield "has other tensors"
            return
        for name, value in tensors.items():
            if not np.allclose(found.get_tensor(name), value, rtol=1e-11, atol=1e-14, equal_nan=True):
                yield f"differs in {name}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    philox.self_check()
    FIXTURES.mkdir(parents=True, exist_ok=True)
    bad = 0
    total = 0
    for case in cases():
        tensors = settle(case)
        info = metadata(case)
        path = FIXTURES / f"{case.name}.safetensors"
        if options.check:
            for problem in differences(path, tensors, info):
                print(f"{path.name} {problem}")
                bad += 1
        else:
            content = serialize(tensors, info)
            path.write_bytes(content)
            total += len(content)
            print(f"{path.name}: seed {case.seed}, {len(content)} bytes")
    if options.check:
        print(f"{bad} differences")
    else:
        print(f"{total} bytes")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
