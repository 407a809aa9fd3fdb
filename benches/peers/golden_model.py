"""The models of the golden fixtures: specification, objective, forward pass and loss, in PyTorch's f64.

Every quantity with a kink is checked on the way, so that a fixture never sits near one.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import philox

LOG_VARIANCE = (-30.0, 20.0)
# Least distance from a kink.
KINK_MARGIN = 2e-3
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
        if "shift" in self.parts.get("corruption", {}):
            return [0] * self.encoder[0]
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
        if corruption["kind"] == "shift":
            return torch.where(marks, self.moved(clean, corruption["shift"], epoch), clean), observed
        erased = torch.where(marks, 0.0, clean)
        return erased, observed * marks if corruption["kind"] == "masked" else observed

    def moved(self, clean: torch.Tensor, shift: dict, epoch: int) -> torch.Tensor:
        """Every row after its move: another window of the image within a border of zeros."""
        border, width, channels = shift["distance"], shift["width"], shift["channels"]
        images = clean.reshape(len(clean), -1, width, channels)
        height = images.shape[1]
        framed = functional.pad(images, (0, 0, border, border, border, border))
        windows = []
        for image, (down, right) in zip(framed, philox.moves(self.case.seed, epoch, len(clean), border), strict=True):
            top, left = border - down, border - right
            windows.append(image[top : top + height, left : left + width].reshape(-1))
        return torch.stack(windows)

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
