"""The quality twin in plain PyTorch: Fashion-MNIST through a 784-512-256-32 network and back.

Prints one JSON record with the test error after every epoch, the seconds of training until then, and the
accuracy of five nearest neighbours on the codes.
"""

from __future__ import annotations

import json
import time

from common import WORKLOADS, prepare_threads
from quality import WIDTHS, knn5, parser, split

THREADS = prepare_threads()


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--objective", choices=("ae", "collapsed"), default="ae")
    options.add_argument("--until", type=float, default=0.0, help="stop after the epoch that reaches this test error")
    options = options.parse_args()

    import numpy as np
    import torch
    from torch import nn

    import torch_model

    torch_model.configure(options.threads)
    torch.manual_seed(options.seed)
    (train, train_labels), (test, test_labels) = split("train"), split("test")

    def stack(widths) -> nn.Sequential:
        """PyTorch's own initial weights."""
        modules = []
        for at in range(len(widths) - 1):
            modules += [nn.ReLU()] * (at > 0) + [nn.Linear(widths[at], widths[at + 1])]
        return nn.Sequential(*modules)

    encoder, decoder = stack(WIDTHS), stack(WIDTHS[::-1])
    collapsed = options.objective == "collapsed"
    beta = WORKLOADS["F"].beta if collapsed else 0.0
    decay = WORKLOADS["F"].decoder_l2 if collapsed else 0.0
    adam = torch.optim.Adam(
        [{"params": encoder.parameters()}, {"params": decoder.parameters(), "weight_decay": decay}],
        lr=options.lr,
        fused=True,
    )
    train, test = torch.from_numpy(train), torch.from_numpy(test)
    history, seconds = [], 0.0
    for epoch in range(1, options.epochs + 1):
        begin = time.perf_counter()
        for index in torch.randperm(len(train)).split(options.batch_size):
            rows = train.index_select(0, index)
            code = encoder(rows)
            residual = decoder(code) - rows
            loss = 0.5 * (residual.square().sum() + beta * code.square().sum()) / len(rows)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
        seconds += time.perf_counter() - begin
        with torch.inference_mode():
            output = decoder(encoder(test))
            mse = (output - test).square().mean().item()
        history.append({"epoch": epoch, "seconds": round(seconds, 3), "test_mse": mse})
        if mse <= options.until:
            break
    with torch.inference_mode():
        train_codes, codes = encoder(train).numpy(), encoder(test).numpy()
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        np.save(options.out / "reconstructions.npy", output.numpy())
    record = {
        "engine": "torch-eager",
        "version": torch.__version__,
        "objective": options.objective,
        "seed": options.seed,
        "epochs": len(history),
        "threads": options.threads,
        "test_mse": history[-1]["test_mse"],
        "knn5": knn5(train_codes, train_labels, codes, test_labels),
        "latent_rms": float(np.sqrt(np.mean(train_codes**2))),
        "history": history,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
