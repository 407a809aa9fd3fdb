"""PyTorch through torch.compile (needs a C++ compiler), in f32 or under bf16 autocast."""

from __future__ import annotations

import contextlib
import shutil

from common import Batches, CannotRun, Runner, cycled, inference_inputs, main, prepare_threads

THREADS = prepare_threads()


def version() -> str:
    import torch

    return torch.__version__


def build(case, data, parameters, options) -> Runner:
    import torch

    import torch_model

    if case.precision == "int8":
        raise CannotRun("measured in f32 and under bf16 autocast only")
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        raise CannotRun("torch.compile needs a C++ compiler")
    torch_model.configure(options.threads)
    torch._dynamo.reset()
    settings = ["torch.compile", "flush_denormal"]
    if case.precision == "bf16":
        settings.append("bf16 autocast")

    def precision():
        if case.precision == "bf16":
            return torch.autocast("cpu", torch.bfloat16)
        return contextlib.nullcontext()

    model = torch_model.Autoencoder(parameters)
    if case.mode != "train":
        inputs = [torch.from_numpy(rows) for rows in inference_inputs(case, data)]
        # Constant weights, folded and prepacked.
        torch._inductor.config.freezing = True
        function = torch.compile(torch_model.inference_function(case, model.eval()), dynamic=False)

        def call(turn: int) -> None:
            function(inputs[turn])

        calls = cycled(call, len(inputs))

        def span() -> int:
            with torch.no_grad(), precision():
                return calls()

        return Runner(span, settings=[*settings, "freezing", "no_grad"])

    rows = torch.from_numpy(data.rows)
    loss_of = torch_model.loss_function(case.workload)
    adam = torch_model.optimizer(case.workload, model)
    batches = Batches(case, len(rows))
    mean_loss = torch.zeros(())

    @torch.compile(dynamic=False)
    def loss_of_rows(index: torch.Tensor) -> torch.Tensor:
        with precision():
            return loss_of(model, rows.index_select(0, index))

    def span() -> int:
        nonlocal mean_loss
        total = torch.zeros(())
        for index in torch.from_numpy(batches.next()).split(case.batch):
            adam.zero_grad(set_to_none=True)
            loss = loss_of_rows(index)
            loss.backward()
            adam.step()
            total += loss.detach()
        mean_loss = total / batches.steps
        return batches.steps

    return Runner(span, lambda: mean_loss.item(), [*settings, "gather, forward and backward compiled", "fused Adam"])


if __name__ == "__main__":
    main("torch-compile", version, build)
