"""JAX on a GPU: 64 training steps are one jitted `lax.scan` with donated state, in f32, TF32 and bf16.

One JSON record a case and precision; wall time of whole scans on resident rows, medians after a warm-up. With
`--device cpu` one scan runs on the CPU, to check this script where there is no GPU; no time is printed then.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

from common import WORKLOADS, Case, Workload, initial_parameters, load_data

BATCHES = (32, 128, 1024, 4096)
# What `jax.default_matmul_precision` calls the precisions.
PRECISIONS = {"f32": "highest", "tf32": "tensorfloat32", "bf16": "bfloat16"}
STEPS = 64
WARM_UP = 3
REPEATS = 15


def half(layers, rows):
    import jax

    for at, (weight, bias) in enumerate(layers):
        if at > 0:
            rows = jax.nn.relu(rows)
        rows = rows @ weight + bias
    return rows


def loss_function(workload: Workload):
    import jax.numpy as jnp

    def loss_of(weights, rows):
        code = half(weights["encoder"], rows)
        residual = half(weights["decoder"], code) - rows
        if workload.objective == "mse_mean":
            return jnp.mean(residual**2)
        return (0.5 * jnp.sum(residual**2) + 0.5 * workload.beta * jnp.sum(code**2)) / rows.shape[0]

    return loss_of


def scan_function(workload: Workload, rows):
    """A jitted function (state, indices [steps, batch]) → (state, mean loss)."""
    import jax
    import jax.numpy as jnp

    loss_of = loss_function(workload)

    def adam(weight, first, second, count):
        corrected = jnp.sqrt(second / (1.0 - 0.999**count)) + workload.adam_epsilon
        return weight - workload.learning_rate * (first / (1.0 - 0.9**count)) / corrected

    def step(state, index):
        weights, first, second, count = state
        loss, gradients = jax.value_and_grad(loss_of)(weights, rows[index])
        if workload.decoder_l2:
            gradients["decoder"] = jax.tree.map(
                lambda g, w: g + workload.decoder_l2 * w, gradients["decoder"], weights["decoder"]
            )
        count += 1.0
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradients)
        weights = jax.tree.map(lambda w, m, v: adam(w, m, v, count), weights, first, second)
        return (weights, first, second, count), loss

    def scan(state, indices):
        state, losses = jax.lax.scan(step, state, indices)
        return state, jnp.mean(losses)

    return jax.jit(scan, donate_argnums=0)


def initial_state(workload: Workload):
    import jax
    import jax.numpy as jnp

    weights = {
        name: [(jnp.asarray(weight.T), jnp.asarray(bias)) for weight, bias in layers]
        for name, layers in initial_parameters(workload).items()
    }
    zeros = [jax.tree.map(jnp.zeros_like, weights) for _ in range(2)]
    return weights, *zeros, jnp.zeros(())


def run(case: Case, device: str) -> dict:
    import jax
    import jax.numpy as jnp
    import numpy as np

    rows = jnp.asarray(load_data(case).rows)
    scan = scan_function(case.workload, rows)
    state = initial_state(case.workload)
    rng = np.random.default_rng(3)
    indices = jnp.asarray(rng.integers(0, len(rows), (STEPS, case.batch)), jnp.int32)
    if device != "gpu":
        state, loss = scan(state, indices)
        return {"loss": float(loss)}
    samples = []
    for repeat in range(WARM_UP + REPEATS):
        begin = time.perf_counter()
        state, loss = scan(state, indices)
        loss.block_until_ready()
        if repeat >= WARM_UP:
            samples.append((time.perf_counter() - begin) * 1e6 / STEPS)
    median = statistics.median(samples)
    quartiles = statistics.quantiles(samples, n=4)
    return {
        "median_us": median,
        "spread": (quartiles[2] - quartiles[0]) / median,
        "per_second": 1e6 / median,
        "loss": float(loss),
        "device": jax.devices()[0].device_kind,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--batch", type=int, action="append", help="batch size (repeatable)")
    options = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cuda" if options.device == "gpu" else "cpu"
    for name in WORKLOADS:
        for batch in options.batch or BATCHES:
            case = Case(WORKLOADS[name], "train", batch, "f32")
            for precision, setting in PRECISIONS.items():
                record = {"case": str(case), "engine": f"jax-{precision}"}
                try:
                    import jax

                    with jax.default_matmul_precision(setting):
                        record |= run(case, options.device)
                except Exception as error:  # a failure is a row of the table, not a lost run
                    record["reason"] = f"{type(error).__name__}: {error}".split("\n")[0]
                print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
