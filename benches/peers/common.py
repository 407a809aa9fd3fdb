"""What every peer script shares: cases, workloads, data, initial weights, timing and records.

A peer script calls `main(engine, version, build)`. `build(case, data, parameters, options)` prepares one
case and returns a `Runner`; a case the peer cannot run raises `CannotRun` with the reason. One JSON record a
case goes to standard output, everything else to standard error.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import statistics
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

MODES = ("train", "reconstruct", "encode")
PRECISIONS = ("f32", "tf32", "bf16", "int8")


class CannotRun(Exception):
    """A case this peer cannot run; the message is the reason shown in the tables."""


@dataclass(frozen=True)
class Workload:
    """A network and its objective; relu between the layers, linear code and linear output.

    `objective` is "mse_mean" (mean over all elements) or "collapsed" (per-row mean of
    half the squared error plus beta/2 times the squared norm of the code).
    `decoder_l2` is the lambda of (lambda/2) ||decoder parameters||^2.
    """

    name: str
    encoder: tuple[int, ...]
    decoder: tuple[int, ...]
    objective: str
    beta: float
    decoder_l2: float
    learning_rate: float
    adam_epsilon: float
    # Training runs in spans of at most this many steps; a span of S is one epoch.
    steps_per_span: int

    @property
    def width(self) -> int:
        return self.encoder[0]


# Rows of a training span at most, so that large batches do not make it last for seconds.
ROWS_PER_SPAN = 8192

WORKLOADS = {
    "S": Workload("S", (784, 100, 784), (784, 100, 784), "mse_mean", 0.0, 0.0, 1e-3, 1e-7, 32),
    "F": Workload("F", (784, 512, 256, 32), (32, 256, 512, 784), "collapsed", 0.0064, 1e-4, 1e-3, 1e-8, 64),
}


def workload(name: str) -> Workload | None:
    """`S`, `F`, or `W512`: the objective of S with every layer 512 wide, for sweeps over widths."""
    width = name.removeprefix("W")
    if width != name and width.isdecimal() and int(width) > 0:
        layers = (int(width),) * 3
        return Workload(name, layers, layers, "mse_mean", 0.0, 0.0, 1e-3, 1e-7, 8)
    return WORKLOADS.get(name)


@dataclass(frozen=True)
class Case:
    """`WORKLOAD/MODE/BATCH[/precision]`, for example `F/train/128/bf16`."""

    workload: Workload
    mode: str
    batch: int
    precision: str

    @staticmethod
    def parse(text: str) -> Case:
        parts = text.split("/")
        if len(parts) not in (3, 4):
            raise argparse.ArgumentTypeError(f"{text!r} is not WORKLOAD/MODE/BATCH[/precision]")
        name, mode, batch = parts[:3]
        precision = parts[3] if len(parts) == 4 else "f32"
        described = workload(name)
        if described is None:
            raise argparse.ArgumentTypeError(f"unknown workload {name!r}; known: {', '.join(WORKLOADS)}, W<width>")
        if mode not in MODES:
            raise argparse.ArgumentTypeError(f"unknown mode {mode!r}; known: {', '.join(MODES)}")
        if precision not in PRECISIONS:
            raise argparse.ArgumentTypeError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
        if not batch.isdecimal() or int(batch) == 0:
            raise argparse.ArgumentTypeError(f"batch {batch!r} is not a positive number")
        return Case(described, mode, int(batch), precision)

    def __str__(self) -> str:
        suffix = "" if self.precision == "f32" else f"/{self.precision}"
        return f"{self.workload.name}/{self.mode}/{self.batch}{suffix}"


@dataclass(frozen=True)
class Data:
    """Resident rows, [rows, width] float32, and where they come from."""

    rows: np.ndarray
    source: str


@dataclass
class Runner:
    """A prepared case.

    `span()` does a fixed piece of work, waits for its end, and returns the number of steps (or
    calls) it made. `loss()`, for training, is the mean step loss of the latest span without
    the decoder's L2 term. `settings` names what was chosen to make the peer fast.
    """

    span: Callable[[], int]
    loss: Callable[[], float] | None = None
    settings: list[str] = field(default_factory=list)


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes, gzipped or not."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        magic = file.read(4)
        if len(magic) != 4 or magic[:3] != b"\x00\x00\x08":
            raise ValueError(f"{path} is not an IDX file of bytes")
        shape = struct.unpack(f">{magic[3]}I", file.read(4 * magic[3]))
        return np.frombuffer(file.read(), np.uint8).reshape(shape)


def find_fashion_mnist() -> Path | None:
    """The first folder that holds Fashion-MNIST, in the command line's order."""
    roots = [os.environ.get("CVAE_DATA"), "datasets", "/usr/share/datasets"]
    for root in filter(None, roots):
        folder = Path(root) / "fashion-mnist"
        if (folder / "train-images-idx3-ubyte.gz").is_file():
            return folder
    return None


def fashion_mnist(split: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Images [rows, 784] in [0, 1] and labels of `split` ("train" or "test"); None where absent."""
    folder = find_fashion_mnist()
    if folder is None:
        return None
    prefix = {"train": "train", "test": "t10k"}[split]
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
    return images.reshape(len(images), -1).astype(np.float32) / 255.0, labels.astype(np.int64)


def load_data(case: Case) -> Data:
    """S and W: 1000 rows N(0, 1), or four batches where a batch is longer. F: Fashion-MNIST, or uniform rows."""
    rng = np.random.default_rng(1)
    if case.workload.name != "F":
        rows = 1000 if case.batch <= 1000 else 4 * case.batch
        return Data(rng.standard_normal((rows, case.workload.width), np.float32), "synthetic")
    images = fashion_mnist("train")
    if images is not None and case.batch <= len(images[0]):
        return Data(images[0], "fashion-mnist")
    return Data(rng.random((max(60_000, case.batch), 784), np.float32), "synthetic")


def initial_parameters(workload: Workload) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Glorot-uniform weights [out, in] and zero biases, the same for every peer."""
    rng = np.random.default_rng(2)
    halves = {}
    for half, widths in (("encoder", workload.encoder), ("decoder", workload.decoder)):
        layers = []
        for fan_in, fan_out in zip(widths, widths[1:], strict=False):
            bound = (6.0 / (fan_in + fan_out)) ** 0.5
            weight = rng.uniform(-bound, bound, (fan_out, fan_in)).astype(np.float32)
            layers.append((weight, np.zeros(fan_out, np.float32)))
        halves[half] = layers
    return halves


class Batches:
    """Row indices of training spans: shuffled epochs, cut into batches.

    A span of S is one epoch with its short last batch; any other is up to `steps_per_span` whole batches.
    """

    def __init__(self, case: Case, rows: int):
        self._rng = np.random.default_rng(3)
        self._rows = rows
        self._batch = case.batch
        self._order = np.empty(0, np.int64)
        if case.workload.name == "S":
            self.full, self.short = divmod(rows, case.batch)
        else:
            steps = max(1, min(case.workload.steps_per_span, ROWS_PER_SPAN // case.batch))
            self.full = min(steps, rows // case.batch)
            self.short = 0

    @property
    def steps(self) -> int:
        return self.full + (self.short > 0)

    def next(self) -> np.ndarray:
        """Indices of one span, one after another; the short batch, where there is one, last."""
        wanted = self.full * self._batch + self.short
        if len(self._order) < wanted:
            self._order = self._rng.permutation(self._rows)
        span, self._order = self._order[:wanted], self._order[wanted:]
        return span

    def cut(self, span: np.ndarray) -> list[np.ndarray]:
        return [span[at : at + self._batch] for at in range(0, len(span), self._batch)]


def inference_inputs(case: Case, data: Data) -> list[np.ndarray]:
    """Resident batches that calls cycle through: 4 to 64 of them."""
    count = max(4, min(64, 2048 // case.batch))
    index = np.arange(count * case.batch) % len(data.rows)
    return [np.ascontiguousarray(part) for part in np.split(data.rows[index], count)]


def cycled(call: Callable[[int], None], count: int) -> Callable[[], int]:
    """A span of one call, on each of `count` inputs in turn."""
    turn = -1

    def span() -> int:
        nonlocal turn
        turn = (turn + 1) % count
        call(turn)
        return 1

    return span


def one_round(runner: Runner, min_seconds: float) -> float:
    """Median microseconds a step (or call) over spans that last `min_seconds` together."""
    samples = []
    begin = now = time.perf_counter()
    while now - begin < min_seconds or not samples:
        steps = runner.span()
        after = time.perf_counter()
        samples.append((after - now) * 1e6 / steps)
        now = after
    return statistics.median(samples)


def warm_up(runner: Runner, seconds: float) -> None:
    """At least two spans and `seconds` of work."""
    begin = time.perf_counter()
    spans = 0
    while spans < 2 or time.perf_counter() - begin < seconds:
        runner.span()
        spans += 1


def percentile(values: list[float], fraction: float) -> float:
    return float(np.quantile(np.asarray(values), fraction))


def measure(case: Case, runner: Runner, options: argparse.Namespace) -> dict:
    """Warm up, time the rounds, and describe the result."""
    runner.span()
    loss_first = runner.loss() if runner.loss else None
    warm_up(runner, options.min_seconds)
    rounds = []
    if options.paced:
        print(json.dumps({"case": str(case), "ready": True}), flush=True)
        for _ in sys.stdin:
            rounds.append(one_round(runner, options.min_seconds))
            print(json.dumps({"case": str(case), "round_us": rounds[-1]}), flush=True)
        if not rounds:
            raise CannotRun("standard input closed before the first round")
    else:
        rounds = [one_round(runner, options.min_seconds) for _ in range(options.rounds)]
    median = statistics.median(rounds)
    record = {
        "median_us": median,
        "spread": (percentile(rounds, 0.9) - percentile(rounds, 0.1)) / median,
        "per_second": 1e6 / median,
        "rows_per_second": rows_per_step(case) * 1e6 / median,
        "rounds": len(rounds),
        "settings": runner.settings,
    }
    if runner.loss:
        record["loss_first"] = loss_first
        record["loss_last"] = runner.loss()
    return record


def rows_per_step(case: Case) -> float:
    """Mean rows of a step: S ends each epoch of 1000 rows with a short batch."""
    if case.mode == "train" and case.workload.name == "S" and case.batch <= 1000:
        return 1000 / -(-1000 // case.batch)
    return float(case.batch)


def peak_memory_mib() -> float:
    """Largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def pin_to(threads: int) -> None:
    """Keep the process on as many cores as threads are wanted, so that no library takes more."""
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[:threads])


def threads_from_arguments() -> int:
    """`--threads` before the libraries are imported: several read it from the environment then."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--threads", type=positive, default=2)
    return parser.parse_known_args()[0].threads


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def prepare_threads() -> int:
    """Call before importing a numerical library; returns the number of threads."""
    threads = threads_from_arguments()
    pin_to(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["MKL_NUM_THREADS"] = str(threads)
    return threads


def arguments(variants: tuple[str, ...]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time one peer; one JSON record a case.")
    parser.add_argument(
        "--case", type=Case.parse, action="append", required=True, metavar="WORKLOAD/MODE/BATCH[/precision]"
    )
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--min-seconds", type=float, default=1.0, help="length of a round and of the warm-up")
    parser.add_argument(
        "--paced",
        action="store_true",
        help="with one case: report ready, then run one round for each line on standard input",
    )
    if variants:
        parser.add_argument("--variant", choices=variants, default=variants[0])
    options = parser.parse_args()
    if options.paced and len(options.case) > 1:
        parser.error("--paced takes exactly one --case")
    return options


def main(engine: str, version: Callable[[], str], build: Callable[..., Runner], variants: tuple[str, ...] = ()) -> None:
    """Run every case asked for. Importing the peer happens inside `version` and `build`.

    With `variants`, `--variant` chooses one for `build` and is part of the engine's name.
    """
    options = arguments(variants)
    if variants:
        engine = f"{engine}-{options.variant}"
    for case in options.case:
        record = {"case": str(case), "engine": engine}
        try:
            record["version"] = version()
            data = load_data(case)
            runner = build(case, data, initial_parameters(case.workload), options)
            record |= measure(case, runner, options)
            record["data"] = data.source
        except ImportError as error:
            record["reason"] = f"not installed: {error}"
        except CannotRun as error:
            record["reason"] = str(error)
        except Exception as error:  # a peer's own failure is a row of the table, not a lost run
            record["reason"] = f"{type(error).__name__}: {error}".split("\n")[0]
        record["threads"] = options.threads
        record["peak_memory_mib"] = round(peak_memory_mib(), 1)
        print(json.dumps(record), flush=True)
