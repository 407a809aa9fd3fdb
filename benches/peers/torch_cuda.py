"""PyTorch on a GPU: eager, torch.compile, and the whole step in a CUDA graph, in f32, TF32 and under bf16 autocast.

One JSON record a case, precision and mode; device time from CUDA events, medians after a warm-up. With `--device cpu`
the eager and compiled steps run on the CPU, to check this script where there is no GPU; no time is printed then.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics

from common import WORKLOADS, Case, CannotRun, initial_parameters, load_data

BATCHES = (32, 128, 1024, 4096)
PRECISIONS = ("f32", "tf32", "bf16")
MODES = ("eager", "compile", "graph")
STEPS = 200
WARM_UP = 3
REPEATS = 15


def precision_context(device: str, precision: str):
    import torch

    torch.backends.cuda.matmul.allow_tf32 = precision != "f32"
    if precision == "bf16":
        return torch.autocast(device, torch.bfloat16)
    return contextlib.nullcontext()


def step_function(case: Case, device: str, precision: str, compiled: bool):
    """A training step on the rows named by `index`, which is filled in place; returns (step, index, rows)."""
    import torch

    import torch_model

    rows = torch.from_numpy(load_data(case).rows).to(device)
    model = torch_model.Autoencoder(initial_parameters(case.workload)).to(device)
    adam = torch_model.optimizer(case.workload, model)
    for group in adam.param_groups:
        group["capturable"] = device == "cuda"
    loss_of = torch_model.loss_function(case.workload)
    index = torch.arange(case.batch, device=device) % len(rows)

    def loss_of_rows():
        with precision_context(device, precision):
            return loss_of(model, rows.index_select(0, index))

    forward = torch.compile(loss_of_rows, dynamic=False) if compiled else loss_of_rows

    def step():
        adam.zero_grad(set_to_none=True)
        loss = forward()
        loss.backward()
        adam.step()
        return loss

    return step, index, rows


def captured(step):
    """The step recorded once as a CUDA graph; the result replays it."""
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(5):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay():
        graph.replay()
        return loss

    return replay


def measure(step, index, rows, batch: int) -> list[float]:
    """Microseconds of device time a step, per repetition. Every step sees other rows."""
    import torch

    starts = torch.randint(0, len(rows), (STEPS,), generator=torch.Generator().manual_seed(3)).tolist()
    offsets = torch.arange(batch, device="cuda")
    samples = []
    for repeat in range(WARM_UP + REPEATS):
        begin = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        begin.record()
        for start in starts:
            torch.remainder(offsets + start, len(rows), out=index)
            loss = step()
        end.record()
        torch.cuda.synchronize()
        if repeat >= WARM_UP:
            samples.append(begin.elapsed_time(end) * 1e3 / STEPS)
    if not torch.isfinite(loss).item():
        raise CannotRun("the loss is not finite")
    return samples


def run(case: Case, device: str, precision: str, mode: str) -> dict:
    import torch

    if mode == "graph" and device != "cuda":
        raise CannotRun("a CUDA graph needs a GPU")
    if mode == "compile":
        torch._dynamo.reset()
    step, index, rows = step_function(case, device, precision, mode == "compile")
    if device != "cuda":
        losses = [step().item() for _ in range(3)]
        return {"loss_first": losses[0], "loss_last": losses[-1]}
    samples = measure(captured(step) if mode == "graph" else step, index, rows, case.batch)
    median = statistics.median(samples)
    quartiles = statistics.quantiles(samples, n=4)
    return {
        "median_us": median,
        "spread": (quartiles[2] - quartiles[0]) / median,
        "per_second": 1e6 / median,
        "device": torch.cuda.get_device_name(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--batch", type=int, action="append", help="batch size (repeatable)")
    parser.add_argument("--mode", choices=MODES, action="append", help="mode (repeatable)")
    options = parser.parse_args()
    for name in WORKLOADS:
        for batch in options.batch or BATCHES:
            case = Case(WORKLOADS[name], "train", batch, "f32")
            for precision in PRECISIONS:
                for mode in options.mode or MODES:
                    record = {"case": str(case), "engine": f"torch-{mode}-{precision}"}
                    try:
                        record |= run(case, options.device, precision, mode)
                    except Exception as error:  # a failure is a row of the table, not a lost run
                        record["reason"] = f"{type(error).__name__}: {error}".split("\n")[0]
                    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
