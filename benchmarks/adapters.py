"""A small transformer is tuned by a fleet: all its weights, its output layer, or adapters beside its other weights.

    python benchmarks/adapters.py --data mnist:DIR [--start START.onnx] [--grid [--rates LR ...] | --seeds N ...]
                                  [--cases NAME ...] [--rounds N] [--codec SPEC] [--downlink SPEC] [--json FILE]

Three blocks of width 96 look at 16 patches of an image. They are trained on MNIST's digits 0 to 4; --start keeps the
result for the next run. Then ten devices tune them to the digits 5 to 9: 100 images each, labels by dirichlet:0.5, all
devices in each round, an epoch of batches of 10 with Adam. In every case the output layer is trained in full, since it
has not seen these digits. --grid tries the same rates for each case and scores them on 2,000 training images that no
device has; `CASES` has the best. Without it, scores are of the test images of digits 5 to 9.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "lib"))

import edgefl
from edgefl.data.dataset import Dataset

DEVICES, IMAGES, VALIDATION, BATCH = 10, 100, 2000, 10
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
FACTOR = 2  # alpha / rank
Labelled = tuple[np.ndarray, np.ndarray]  # images (n, 1, 28, 28), labels (n,)


class Case(NamedTuple):
    """What trains beside the output layer: adapters of this rank, all weights ("all"), or nothing ("")."""

    trained: str
    rank: int = 0
    lr: float = 1e-3

    def of(self, file: bytes) -> edgefl.Model:
        if self.rank:
            given = {"rank": self.rank, "alpha": FACTOR * self.rank, "trained": self.trained, "also": ["fc"]}
            return edgefl.load(file, adapters=given)
        return edgefl.load(file) if self.trained else edgefl.load(file, freeze=["patches", "places", "blocks"])


CASES = {
    "all weights": Case("all", lr=3e-3),
    "output layer alone": Case("", lr=3e-2),
    **{f"A and B, rank {rank}": Case("AB", rank, lr=1e-2) for rank in (2, 4, 8)},
    **{f"B, rank {rank}": Case("B", rank, lr=3e-2) for rank in (2, 4, 8)},
}


def transformer() -> bytes:
    """The untrained net, as PyTorch's older exporter writes it."""
    import torch
    from large_models import Block
    from torch import Tensor, nn

    class Vision(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.places = nn.Conv2d(1, 96, 7, 7), nn.Parameter(torch.randn(1, 16, 96) * 0.02)
            self.blocks = nn.Sequential(*(Block(96, 4) for _ in range(3)))
            self.norm, self.fc = nn.LayerNorm(96), nn.Linear(96, 10)

        def forward(self, x: Tensor) -> Tensor:
            patches = self.patches(x).flatten(2).transpose(1, 2)
            return self.fc(self.norm(self.blocks(patches + self.places)).mean(1))

    torch.manual_seed(0)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Vision().eval(), (torch.zeros((2, 1, 28, 28)),), buffer, dynamo=False, opset_version=17,
            do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE, input_names=["input"],
            output_names=["output"], dynamic_axes={"input": {0: "N"}, "output": {0: "N"}},
        )  # fmt: skip
    return buffer.getvalue()


def parts(spec: str, grid: bool) -> tuple[Dataset, Dataset, Labelled]:
    """Digits 0 to 4 to train on before; of 5 to 9 those of all devices, and those that score what they come to."""
    data = edgefl.data.load(spec)
    shuffled = np.random.default_rng(0).permutation(len(data.x_train))
    images, labels = data.x_train[shuffled].reshape(-1, 1, 28, 28), data.y_train[shuffled]
    x_test, y_test = data.x_test.reshape(-1, 1, 28, 28), data.y_test
    before = Dataset(images[labels < 5], labels[labels < 5], x_test[y_test < 5], y_test[y_test < 5])
    x, y, mine = images[labels >= 5], labels[labels >= 5], DEVICES * IMAGES
    validation = x[mine : mine + VALIDATION], y[mine : mine + VALIDATION]
    scored = validation if grid else (x_test[y_test >= 5], y_test[y_test >= 5])
    return before, Dataset(x[:mine], y[:mine]), scored


def started(options: argparse.Namespace, data: Dataset) -> bytes:
    """The file that the fleet begins with."""
    if options.start is not None and options.start.exists():
        return bytes(options.start.read_bytes())
    model = edgefl.load(transformer())
    trainer, params = edgefl.Trainer(model.plan, batch=32), model.params
    for lr in (2e-3, 1e-3, 5e-4, 2e-4):
        fit = trainer.fit(params, data.x_train, data.y_train, epochs=1, batch_size=32, lr=lr, optimizer="adam")
        params = params + fit.delta
    accuracy = trainer.evaluate(params, data.x_test, data.y_test).accuracy
    print(f"trained before: {4 * len(data.x_train):,} images, {accuracy:.2%} of the test's digits 0 to 4", flush=True)
    file = model.to_bytes(params)
    if options.start is not None:
        options.start.write_bytes(file)
    return file


def tune(
    case: Case, file: bytes, data: Dataset, scored: Labelled, options: argparse.Namespace, *, seed: int = 0
) -> dict[str, Any]:
    model = case.of(file)
    began = time.process_time()
    history = edgefl.simulate(
        model, data, devices=DEVICES, rounds=options.rounds, partition="dirichlet:0.5", epochs=1, batch_size=BATCH,
        lr=case.lr, optimizer="adam", workers=1, seed=seed, codec=options.codec, downlink=options.downlink,
    )  # fmt: skip
    seconds, rounds = time.process_time() - began, history.rounds
    trainer = edgefl.Trainer(model.plan, batch=BATCH)
    score = trainer.evaluate(history.params, *scored)
    return {
        "trained": model.plan.num_trainable,
        "up": float(np.mean([record.bytes_up / record.reported for record in rounds])),
        "first": rounds[0].bytes_down / rounds[0].reported,
        "later": float(np.mean([record.bytes_down / record.reported for record in rounds[1:]])),
        "accuracy": score.accuracy,
        "loss": score.loss,
        "arena": trainer.arena_bytes,
        "seconds": round(seconds, 1),
    }


def grid(file: bytes, data: Dataset, scored: Labelled, options: argparse.Namespace) -> dict[str, Any]:
    """The score of each case at each rate, on the validation part."""
    print(f"| trained | {' | '.join(f'{rate:g}' for rate in options.rates)} |\n|---|{'---|' * len(options.rates)}")
    found = {}
    for name in options.cases:
        found[name] = [tune(CASES[name]._replace(lr=rate), file, data, scored, options) for rate in options.rates]
        scores = " | ".join(f"{of['accuracy']:.2%}, {of['loss']:.3f}" for of in found[name])
        print(f"| {name} | {scores} |", flush=True)
    return found


def compare(file: bytes, data: Dataset, scored: Labelled, options: argparse.Namespace) -> dict[str, Any]:
    """Each case at its rate, on the test part: the mean over seeds, and the spread of accuracy."""
    model = edgefl.load(file)
    print(f"{model.plan.num_params:,} params")
    print("| trained | params | kB up | kB down, first | kB down, later | accuracy | loss | arena MB | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    found = {}
    for name in options.cases:
        runs = found[name] = [tune(CASES[name], file, data, scored, options, seed=seed) for seed in options.seeds]
        of = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
        spread = np.ptp([run["accuracy"] for run in runs]) / 2
        sizes = f"{of['up'] / 1e3:.2f} | {of['first'] / 1e3:.0f} | {of['later'] / 1e3:.2f}"
        scores = f"{of['accuracy']:.2%} ± {spread:.2%} | {of['loss']:.3f}"
        costs = f"{of['arena'] / 1e6:.2f} | {of['seconds']:.1f}"
        print(f"| {name} | {of['trained']:,.0f} | {sizes} | {scores} | {costs} |", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="SPEC", help="mnist:DIR")
    parser.add_argument(
        "--start", type=Path, metavar="FILE", help="the model to begin with; it is made if it is missing"
    )
    parser.add_argument("--grid", action="store_true", help="rates, scored on the validation part")
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES), metavar="LR")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help="; ".join(CASES))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--codec", default="auto", metavar="SPEC")
    parser.add_argument("--downlink", default="auto", metavar="SPEC")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.data is None:
        print("not run: give --data mnist:DIR")
        return
    before, data, scored = parts(options.data, options.grid)
    file = started(options, before)
    found = grid(file, data, scored, options) if options.grid else compare(file, data, scored, options)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
