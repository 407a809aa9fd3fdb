"""One row of 64 values through a 64-32-8 network and back, from a cold start: what a user waits for.

Run as a process and timed from outside; prints nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

WIDTHS = (64, 32, 8, 32, 64)


def torch_eager() -> None:
    import torch
    from torch import nn

    layers = [nn.Linear(a, b) for a, b in zip(WIDTHS, WIDTHS[1:])]
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], layers[2], nn.ReLU(), layers[3])
    with torch.inference_mode():
        model(torch.full((1, 64), 0.5)).numpy()


def jax() -> None:
    import jax.numpy as jnp
    from jax import jit

    weights = [jnp.full((a, b), 0.01) for a, b in zip(WIDTHS, WIDTHS[1:])]

    @jit
    def reconstruct(rows):
        code = jnp.maximum(rows @ weights[0], 0) @ weights[1]
        return jnp.maximum(code @ weights[2], 0) @ weights[3]

    reconstruct(jnp.full((1, 64), 0.5)).block_until_ready()


def onnxruntime() -> None:
    import numpy as np
    import onnxruntime

    path = Path(tempfile.gettempdir()) / "cvae-first-row.onnx"
    if not path.exists():
        from onnx import TensorProto, helper, numpy_helper

        weights, nodes, name = [], [], "input"
        for index, (a, b) in enumerate(zip(WIDTHS, WIDTHS[1:])):
            weights.append(numpy_helper.from_array(np.full((a, b), 0.01, np.float32), f"w{index}"))
            nodes.append(helper.make_node("MatMul", [name, f"w{index}"], [f"h{index}"]))
            name = f"h{index}"
            if index in (0, 2):
                nodes.append(helper.make_node("Relu", [name], [f"a{index}"]))
                name = f"a{index}"
        value = helper.make_tensor_value_info
        ends = [value("input", TensorProto.FLOAT, ["rows", 64])], [value(name, TensorProto.FLOAT, ["rows", 64])]
        graph = helper.make_graph(nodes, "first_row", *ends, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        path.write_bytes(model.SerializeToString())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    session.run(None, {"input": np.full((1, 64), 0.5, np.float32)})


ENGINES = {"torch-eager": torch_eager, "jax": jax, "onnxruntime": onnxruntime}

if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--engine", choices=ENGINES, required=True)
    ENGINES[options.parse_args().engine]()
