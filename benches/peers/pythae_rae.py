"""Pythae's AE, RAE-L2 and VAE on Fashion-MNIST with the same 784-512-256-32 network and the same epochs.

Prints one JSON record a model. With --out, saves the test reconstructions and samples from a standard normal and from
Gaussian mixtures of 10 and of 30 components fitted on the training codes, as float32 .npy, [rows, 784], called
MODEL-KIND-SEED.npy: `cargo xtask quality --pythae FOLDER` measures them all.

`rae-l2` uses Pythae's own default weights; `rae-l2-published` those of Ghosh et al. (ICLR 2020) for MNIST,
converted to Pythae's sum of squares without the half.
"""

from __future__ import annotations

import json
import os
import tempfile

from common import WORKLOADS, prepare_threads
from quality import WIDTHS, knn5, parser, split

THREADS = prepare_threads()
MODELS = ("ae", "rae-l2", "rae-l2-published", "vae")
SAMPLES = 10_000
COMPONENTS = (10, 30)


def build(name: str):
    """The model and whether its two halves have optimisers of their own."""
    from pythae.models import AE, RAE_L2, VAE, AEConfig, RAE_L2_Config, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from torch import nn

    def stack(widths) -> nn.Sequential:
        modules = []
        for at in range(len(widths) - 1):
            modules += [nn.ReLU()] * (at > 0) + [nn.Linear(widths[at], widths[at + 1])]
        return nn.Sequential(*modules)

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.trunk = nn.Sequential(stack(WIDTHS[:-1]), nn.ReLU())
            self.embedding = nn.Linear(*WIDTHS[-2:])
            self.log_var = nn.Linear(*WIDTHS[-2:]) if name == "vae" else None

        def forward(self, x):
            hidden = self.trunk(x)
            output = ModelOutput(embedding=self.embedding(hidden))
            if self.log_var is not None:
                output["log_covariance"] = self.log_var(hidden)
            return output

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.layers = stack(WIDTHS[::-1])

        def forward(self, z):
            return ModelOutput(reconstruction=self.layers(z))

    shape = {"input_dim": (WIDTHS[0],), "latent_dim": WIDTHS[-1]}
    halves = {"encoder": Encoder(), "decoder": Decoder()}
    if name == "ae":
        return AE(AEConfig(**shape), **halves), False
    if name == "vae":
        return VAE(VAEConfig(**shape, reconstruction_loss="mse"), **halves), False
    weights = {}
    if name == "rae-l2-published":
        published = WORKLOADS["F"]
        weights = {"embedding_weight": 2 * published.beta, "reg_weight": 2 * published.decoder_l2}
    return RAE_L2(RAE_L2_Config(**shape, **weights), **halves), True


def train(model, coupled: bool, rows, options, folder: str) -> None:
    """Pythae's own training pipeline."""
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig, CoupledOptimizerTrainerConfig

    base = {
        "output_dir": folder,
        "num_epochs": options.epochs,
        "per_device_train_batch_size": options.batch_size,
        "seed": options.seed,
        "no_cuda": True,
    }
    if coupled:
        # The pipeline hands reg_weight to the decoder's optimiser as weight decay.
        config = CoupledOptimizerTrainerConfig(
            **base, encoder_learning_rate=options.lr, decoder_learning_rate=options.lr
        )
    else:
        config = BaseTrainerConfig(**base, learning_rate=options.lr)
    TrainingPipeline(training_config=config, model=model)(train_data=rows)


def samples(model, rows):
    """From a standard normal, and from Pythae's mixtures fitted on training codes, by kind."""
    import torch
    from pythae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig

    with torch.no_grad():
        drawn = {"prior": model.decoder(torch.randn(SAMPLES, WIDTHS[-1]))["reconstruction"].numpy()}
    for components in COMPONENTS:
        mixture = GaussianMixtureSampler(model, GaussianMixtureSamplerConfig(n_components=components))
        mixture.fit(torch.from_numpy(rows))
        with torch.no_grad():
            images = mixture.sample(num_samples=SAMPLES, return_gen=True)
        drawn[f"gmm{components}"] = images.cpu().numpy().reshape(SAMPLES, -1)
    return drawn


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--model", choices=MODELS, action="append", help="repeatable; all by default")
    options = options.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

    import importlib.metadata

    import numpy as np
    import torch

    torch.set_num_threads(options.threads)
    (rows, row_labels), (test, test_labels) = split("train"), split("test")
    for name in options.model or MODELS:
        torch.manual_seed(options.seed)
        model, coupled = build(name)
        with tempfile.TemporaryDirectory() as folder:
            train(model, coupled, rows, options, folder)
        model = model.cpu().eval()
        with torch.no_grad():
            train_codes = model.encoder(torch.from_numpy(rows)).embedding
            codes = model.encoder(torch.from_numpy(test)).embedding
            output = model.decoder(codes)["reconstruction"].numpy()
        record = {
            "engine": "pythae",
            "version": importlib.metadata.version("pythae"),
            "model": name,
            "seed": options.seed,
            "epochs": options.epochs,
            "test_mse": float(np.mean((output - test) ** 2)),
            "knn5": knn5(train_codes.numpy(), row_labels, codes.numpy(), test_labels),
            "latent_rms": float(train_codes.square().mean().sqrt()),
        }
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            for kind, values in {"reconstructions": output, **samples(model, rows)}.items():
                np.save(options.out / f"{name}-{kind}-{options.seed}.npy", values.astype(np.float32))
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
