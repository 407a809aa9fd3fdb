"""The workloads in PyTorch, shared by the eager and the compiled peer."""

from __future__ import annotations

import torch
from torch import nn

from common import Case, Workload


def stack(layers) -> nn.Sequential:
    """Linear layers from (weight, bias) arrays with relu between them."""
    modules: list[nn.Module] = []
    for weight, bias in layers:
        if modules:
            modules.append(nn.ReLU())
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight))
            linear.bias.copy_(torch.from_numpy(bias))
        modules.append(linear)
    return nn.Sequential(*modules)


class Autoencoder(nn.Module):
    """Encoder and decoder as plain `nn.Sequential`s."""

    def __init__(self, parameters):
        super().__init__()
        self.encoder = stack(parameters["encoder"])
        self.decoder = stack(parameters["decoder"])

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(rows))


def loss_function(workload: Workload):
    """Loss of a batch without the decoder's L2 term, which the optimiser adds to the gradients."""

    def mse_mean(model: Autoencoder, rows: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(model(rows).float(), rows)

    def collapsed(model: Autoencoder, rows: torch.Tensor) -> torch.Tensor:
        code = model.encoder(rows)
        residual = model.decoder(code).float() - rows
        prior = code.float().square().sum()
        return (0.5 * residual.square().sum() + 0.5 * workload.beta * prior) / rows.shape[0]

    return {"mse_mean": mse_mean, "collapsed": collapsed}[workload.objective]


def optimizer(workload: Workload, model: Autoencoder, capturable: bool = False) -> torch.optim.Adam:
    """Fused Adam; its (coupled) weight decay is the gradient of (lambda/2) ||decoder||^2.

    `capturable` keeps its step count on the device, as a CUDA graph needs.
    """
    groups = [
        {"params": list(model.encoder.parameters()), "weight_decay": 0.0},
        {"params": list(model.decoder.parameters()), "weight_decay": workload.decoder_l2},
    ]
    return torch.optim.Adam(
        groups,
        lr=workload.learning_rate,
        eps=workload.adam_epsilon,
        betas=(0.9, 0.999),
        fused=True,
        capturable=capturable,
    )


def inference_function(case: Case, model: Autoencoder) -> nn.Module:
    return model if case.mode == "reconstruct" else model.encoder


def configure(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
