"""PyTorch on a GPU: eager, torch.compile, or a whole training step (or call) as one CUDA graph.

Precision f32 keeps products in full float32, tf32 allows TF32 products, bf16 is autocast.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from common import Batches, CannotRun, Runner, cycled, inference_inputs, main, prepare_threads

THREADS = prepare_threads()
VARIANTS = ("eager", "compile", "graph")


def version() -> str:
    import torch

    return torch.__version__


def captured(body: Callable[[], None]):
    """A CUDA graph of one call of `body`, which uses the same tensors every time; runs it three times first."""
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            body()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    return graph


def autocast(case):
    import torch

    if case.precision == "bf16":
        return torch.autocast("cuda", torch.bfloat16)
    return contextlib.nullcontext()


def build(case, data, parameters, options) -> Runner:
    import torch

    import torch_model

    if not torch.cuda.is_available():
        raise CannotRun("PyTorch finds no GPU")
    if case.precision == "int8":
        raise CannotRun("measured in f32, tf32 and bf16 only")
    torch.set_float32_matmul_precision("high" if case.precision == "tf32" else "highest")
    torch._dynamo.reset()
    model = torch_model.Autoencoder(parameters).cuda()
    runner = (train if case.mode == "train" else inference)(case, data, model, options.variant)
    runner.settings.append(torch.cuda.get_device_name())
    return runner


def train(case, data, model, variant: str) -> Runner:
    import torch

    import torch_model

    rows = torch.from_numpy(data.rows).cuda()
    loss_of = torch_model.loss_function(case.workload)
    adam = torch_model.optimizer(case.workload, model, capturable=True)
    batches = Batches(case, len(rows))
    total = torch.zeros((), device="cuda")

    def loss_of_rows(index: torch.Tensor) -> torch.Tensor:
        with autocast(case):
            return loss_of(model, rows.index_select(0, index))

    if variant == "compile":
        loss_of_rows = torch.compile(loss_of_rows, dynamic=False)

    def step(index: torch.Tensor) -> None:
        adam.zero_grad(set_to_none=True)
        loss = loss_of_rows(index)
        loss.backward()
        adam.step()
        total.add_(loss.detach())

    def graph_of(length: int):
        """The index tensor that a graph of the step reads, and the graph."""
        index = torch.arange(length, device="cuda")
        return index, captured(lambda: step(index))

    graphs = {}
    if variant == "graph":
        initial = [p.detach().clone() for p in model.parameters()]
        graphs = {length: graph_of(length) for length in {case.batch, batches.short} - {0}}
        # Capturing took steps: back to the initial weights and to an optimiser that has done none.
        with torch.no_grad():
            for param, value in zip(model.parameters(), initial, strict=True):
                param.copy_(value)
            for state in adam.state.values():
                for moment in state.values():
                    moment.zero_()

    def replay(index: torch.Tensor) -> None:
        held, graph = graphs[len(index)]
        held.copy_(index)
        graph.replay()

    def span() -> int:
        total.zero_()
        for index in torch.from_numpy(batches.next()).cuda().split(case.batch):
            if graphs:
                replay(index)
            else:
                step(index)
        torch.cuda.synchronize()
        return batches.steps

    return Runner(span, lambda: total.item() / batches.steps, [variant, "fused Adam", "resident rows"])


def inference(case, data, model, variant: str) -> Runner:
    import torch

    import torch_model

    inputs = [torch.from_numpy(batch).cuda() for batch in inference_inputs(case, data)]
    function = torch_model.inference_function(case, model.eval())
    if variant == "compile":
        function = torch.compile(function, dynamic=False)

    def forward(batch: torch.Tensor) -> None:
        with torch.no_grad(), autocast(case):
            function(batch)

    graphs = [captured(lambda batch=batch: forward(batch)) for batch in inputs] if variant == "graph" else []

    def call(turn: int) -> None:
        if graphs:
            graphs[turn].replay()
        else:
            forward(inputs[turn])
        torch.cuda.synchronize()

    return Runner(cycled(call, len(inputs)), settings=[variant, "resident rows"])


if __name__ == "__main__":
    main("torch-cuda", version, build, VARIANTS)
