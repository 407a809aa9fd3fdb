"""What the quality twins share: the data they need, the classifier on codes, and their options."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from common import fashion_mnist, positive

WIDTHS = (784, 512, 256, 32)


def split(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of Fashion-MNIST; quality cannot be had from synthetic rows."""
    found = fashion_mnist(name)
    if found is None:
        sys.exit("Fashion-MNIST not found in $CVAE_DATA, datasets/ or /usr/share/datasets/")
    return found


def knn5(train_codes: np.ndarray, train_labels: np.ndarray, codes: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy of the five nearest neighbours among the training codes."""
    from sklearn.neighbors import KNeighborsClassifier

    classifier = KNeighborsClassifier(5, algorithm="brute", n_jobs=1).fit(train_codes, train_labels)
    return float(classifier.score(codes, labels))


def parser(description: str) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--epochs", type=positive, default=20)
    options.add_argument("--batch-size", type=positive, default=128)
    options.add_argument("--lr", type=float, default=1e-3)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--threads", type=positive, default=2)
    options.add_argument("--out", type=Path, help="folder for reconstructions and samples, .npy")
    return options
