"""PyTorch, eager: the plain training loop with fused Adam, and inference mode."""

from __future__ import annotations

from common import Batches, CannotRun, Runner, cycled, inference_inputs, main, prepare_threads

THREADS = prepare_threads()


def version() -> str:
    import torch

    return torch.__version__


def build(case, data, parameters, options) -> Runner:
    import torch

    import torch_model

    if case.precision != "f32":
        raise CannotRun("measured in f32 only; torch_compile.py has bf16 autocast")
    torch_model.configure(options.threads)
    model = torch_model.Autoencoder(parameters)
    if case.mode != "train":
        inputs = [torch.from_numpy(rows) for rows in inference_inputs(case, data)]
        function = torch_model.inference_function(case, model.eval())

        def call(turn: int) -> None:
            function(inputs[turn])

        def span() -> int:
            with torch.inference_mode():
                return calls()

        calls = cycled(call, len(inputs))
        return Runner(span, settings=["inference_mode", "flush_denormal"])

    rows = torch.from_numpy(data.rows)
    loss_of = torch_model.loss_function(case.workload)
    adam = torch_model.optimizer(case.workload, model)
    batches = Batches(case, len(rows))
    mean_loss = torch.zeros(())

    def span() -> int:
        nonlocal mean_loss
        total = torch.zeros(())
        for index in torch.from_numpy(batches.next()).split(case.batch):
            adam.zero_grad(set_to_none=True)
            loss = loss_of(model, rows.index_select(0, index))
            loss.backward()
            adam.step()
            total += loss.detach()
        mean_loss = total / batches.steps
        return batches.steps

    return Runner(span, lambda: mean_loss.item(), ["fused Adam", "flush_denormal"])


if __name__ == "__main__":
    main("torch-eager", version, build)
