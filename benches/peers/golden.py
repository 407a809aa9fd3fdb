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
from pathlib import Path

import numpy as np
import torch
from torch import nn

import philox
from golden_model import ACTIVATIONS, Case, Model, NearKink

FIXTURES = Path(__file__).resolve().parents[2] / "crates" / "cvae-conformance" / "fixtures"
STEPS = 3
# Least size of a gradient that is not exactly zero.
GRADIENT_MARGIN = 2e-4


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
    shift = {"kind": "shift", "share": 0.6, "shift": {"distance": 1, "width": 3, "channels": 2}}
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
    yield case("shift", encoder=(12, 5, 3), corruption=shift)
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
