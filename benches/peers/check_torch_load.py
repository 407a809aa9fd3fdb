"""Load a run's model.safetensors into a plain pair of nn.Sequential and compare its reconstructions.

    cvae reconstruct --run RUN --data rows.npy --out r.npy
    python check_torch_load.py RUN --data rows.npy --reconstructed r.npy

Exit code 0 when every value agrees within the tolerance, 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

ACTIVATIONS = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.01),
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def sequential(layers: list[dict], width: int) -> tuple[nn.Sequential, int]:
    """Linear layers at the even positions, activations at the odd ones; also the output width."""
    modules: list[nn.Module] = []
    for layer in layers:
        if layer["kind"] != "dense":
            raise SystemExit(f"layers of kind {layer['kind']!r} have no place in a plain nn.Sequential")
        modules += [nn.Linear(width, layer["units"]), ACTIVATIONS[layer["activation"]]()]
        width = layer["units"]
    return nn.Sequential(*modules), width


def load(run: Path) -> tuple[nn.Sequential, nn.Sequential, dict]:
    """Encoder, decoder and feature scaling of a run."""
    with safe_open(run / "model.safetensors", "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    model = tomllib.loads(metadata["config"])["model"]
    encoder, latent = sequential(model["encoder"], int(np.prod(model["input"])))
    decoder, _ = sequential(model["decoder"], latent)
    for half, name in ((encoder, "encoder."), (decoder, "decoder.")):
        # Strict: a missing, extra or misshapen tensor is an error.
        half.load_state_dict({k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)})
    return encoder.eval(), decoder.eval(), json.loads(metadata["scaling"])


def float_rows(path: Path) -> np.ndarray:
    rows = np.load(path, allow_pickle=False)
    if rows.dtype.kind != "f" or rows.ndim != 2:
        raise SystemExit(f"{path}: expected a two-dimensional array of floats, found {rows.dtype} {rows.shape}")
    return rows.astype(np.float32)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("--data", type=Path, required=True, help="rows, .npy")
    parser.add_argument("--reconstructed", type=Path, required=True, help="their reconstructions, .npy")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="largest absolute difference allowed")
    options = parser.parse_args()

    rows, expected = float_rows(options.data), float_rows(options.reconstructed)
    if rows.shape != expected.shape or len(rows) == 0:
        print(f"rows are {rows.shape}, reconstructions {expected.shape}", file=sys.stderr)
        return 1
    encoder, decoder, scaling = load(options.run)
    shift, scale = (np.asarray(scaling[key], np.float32) for key in ("shift", "scale"))
    with torch.inference_mode():
        output = decoder(encoder(torch.from_numpy((rows - shift) * scale))).numpy()
    difference = float(np.abs(output / scale + shift - expected).max())
    agrees = difference <= options.tolerance
    print(json.dumps({"rows": len(rows), "max_difference": difference, "agrees": agrees}))
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
