"""Accuracy by rounds of masked rounds beside ecq and float32, in a plain loop. See ../masked.py."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import masked_plot
import numpy as np
from msgspec.structs import replace

from edgefl import Trainer, codecs, load
from edgefl.codecs.feedback import FEEDBACK_ROUNDS
from edgefl.core.seeds import derived_seed
from edgefl.data import fit_plan
from edgefl.data import load as load_data
from edgefl.masking import ring, vector
from edgefl.masking.propose import propose
from edgefl.onnx import zoo
from edgefl.protocol.terms import Party, Terms
from edgefl.simulation.split.partitions import split
from edgefl.trust.ed25519 import to_text

DEVICES, COHORT, BATCH, LR = 100, 10, 10, 0.1
HEAD = (
    "model  partition  epochs  rounds  seeds  setting                    accuracy            below fp32  below ecq  "
    "smaller up"
)
LINE = (
    "{model:5}  {partition:9}  {epochs:6}  {rounds:6}  {seeds:5}  {setting:25}  {accuracy:5.2f} % "
    "({worst:.2f}-{best:.2f})  {below_fp32:10.2f}  {below_ecq:9.2f}  {smaller:9.1f}x"
)
MOST = 16  # devices that a sum has room for
CLIP = 8.0  # about twice the norm of a device's first delta in five epochs
# McMahan's models: every how many rounds accuracy is measured, and of how many of the last a run's is the mean.
MODELS = {"2nn": (1, 10), "cnn": (2, 2)}
SETTINGS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "ecq": {"codec": "ecq"},
    "masked-4": {"share": 1 / 4, "bits": 16},
    "masked-8": {"share": 1 / 8, "bits": 16},
    "masked-16": {"share": 1 / 16, "bits": 16},
    "masked-8-hadamard": {"share": 1 / 8, "bits": 16, "transform": "hadamard"},
    "masked-8-10-bits": {"share": 1 / 8, "bits": 10},
    "masked-8-10-bits-hadamard": {"share": 1 / 8, "bits": 10, "transform": "hadamard"},
}


def add_options(parser: argparse.ArgumentParser) -> None:
    shared = os.environ.get("EDGEFL_SHARED", ".")
    parser.add_argument("--data", default=f"mnist:{shared}/data/mnist", metavar="SPEC")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["2nn"])
    parser.add_argument("--partitions", nargs="+", choices=("iid", "shards:2"), default=["iid"])
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--rounds", type=int, nargs="+", default=[60], metavar="N", help="one number, or one a model")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], metavar="N", help="one number, or one a model")
    parser.add_argument("--runs", type=Path, default=Path("build/masked"), metavar="FOLDER")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="accuracy against bytes, of the first epochs")


@dataclass(frozen=True)
class _Case:
    """A group of rows: what is compared is the setting."""

    model: str
    partition: str
    epochs: int
    rounds: int
    seeds: int

    def kept(self, setting: str, options: argparse.Namespace) -> list[dict[str, Any]]:
        """A run for each seed, from its file if there is one."""
        return [self._run(setting, seed, options) for seed in range(self.seeds)]

    def _run(self, setting: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
        name = f"{self.model}-{setting}-{self.partition.replace(':', '')}-{self.epochs}-{self.rounds}-{seed}.json"
        path = options.runs / name
        if not path.exists():
            fleet = _Fleet(self.model, options.data, self.partition, self.epochs, seed)
            made = fleet.train(SETTINGS[setting], self.rounds)
            options.runs.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(made))
        return dict(json.loads(path.read_text()))


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each model, partition, epochs and setting: means over seeds. A run is kept in FOLDER, and not
    repeated."""
    folder = options.data.removeprefix("mnist:")
    if options.data.startswith("mnist:") and not Path(folder).is_dir():
        print(f"curves: skipped, no MNIST in {folder}: give --data mnist:DIR")
        return []
    rows, drawn = [], dict[str, dict[str, list[dict[str, Any]]]]()
    print(HEAD)
    for at, model in enumerate(options.models):
        rounds, seeds = (each[min(at, len(each) - 1)] for each in (options.rounds, options.seeds))
        for partition, epochs in product(options.partitions, options.epochs):
            case, found = _Case(model, partition, epochs, rounds, seeds), dict[str, list[dict[str, Any]]]()
            for setting in dict.fromkeys(("fp32", "ecq", *options.settings)):
                found[setting] = case.kept(setting, options)
                rows.append(_row(case, setting, found))
                print(LINE.format(**rows[-1]), flush=True)
            drawn.setdefault(f"{model} {partition}", found)
    if options.figure:
        masked_plot.draw(drawn, options.figure)
    return rows


def _row(case: _Case, setting: str, found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The setting's line: means over seeds, the worst and the best seed, points below float32 and ecq."""
    by_setting = {name: [_accuracy(case.model, each) for each in kept] for name, kept in found.items()}
    mean = {name: float(np.mean(each)) for name, each in by_setting.items()}
    return {
        **asdict(case), "setting": setting, "accuracy": mean[setting], "worst": min(by_setting[setting]),
        "best": max(by_setting[setting]), "below_fp32": mean["fp32"] - mean[setting],
        "below_ecq": mean.get("ecq", mean[setting]) - mean[setting],
        "smaller": float(np.mean([each["smaller"] for each in found[setting]])),
    }  # fmt: skip


def _accuracy(model: str, kept: dict[str, Any]) -> float:
    return 100 * float(np.mean(kept["accuracy"][-MODELS[model][1] :]))


class _Fleet:
    """The devices' examples, and the model that they train."""

    def __init__(self, model: str, data: str, partition: str, epochs: int, seed: int) -> None:
        self.epochs, self.seed, self.every = epochs, seed, MODELS[model][0]
        self.model = load(zoo.from_spec(f"mcmahan:{model}", seed))
        dataset = fit_plan(load_data(data), self.model.plan)
        self.parts = split(dataset, partition, DEVICES, seed)
        self.train_x, self.train_y = dataset.x_train, dataset.y_train
        self.test = dataset.x_test, dataset.y_test
        self.trainer = Trainer(self.model.plan, threads=1)

    def train(self, setting: dict[str, Any], rounds: int) -> dict[str, Any]:
        """The accuracy after every so many rounds, the bytes that had gone up until then, in all and in float32."""
        params, accuracy, after, bytes_up, up = self.model.params.copy(), [], [], [], 0
        server = _Masked(setting, len(params)) if "share" in setting else _Plain(setting)
        for number in range(rounds):
            cohort = np.random.default_rng([self.seed, number]).choice(DEVICES, COHORT, replace=False)
            deltas = {int(device): self._fit(params, number, int(device)) for device in cohort}
            mean, size = server.mean(deltas, number, self.seed)
            params, up = (params + mean).astype(np.float32), up + size
            if (number + 1) % self.every == 0:
                accuracy.append(self.trainer.evaluate(params, *self.test).accuracy)
                after.append(number + 1)
                bytes_up.append(up)
        float32 = 4 * len(params) * COHORT
        return {"accuracy": accuracy, "rounds": after, "bytes_up": bytes_up, "smaller": float32 * rounds / up}

    def _fit(self, params: np.ndarray, number: int, device: int) -> np.ndarray:
        x, y = self.train_x[self.parts[device]], self.train_y[self.parts[device]]
        seed = derived_seed(self.seed, number, device)
        fitted = self.trainer.fit(params, x, y, epochs=self.epochs, batch_size=BATCH, lr=LR, seed=seed)
        return fitted.delta


class _Plain:
    """float32, or a codec with error feedback."""

    def __init__(self, setting: dict[str, Any]) -> None:
        self.codec = codecs.get(setting["codec"]) if "codec" in setting else None
        self.residuals: dict[int, tuple[int, np.ndarray]] = {}

    def mean(self, deltas: dict[int, np.ndarray], number: int, seed: int) -> tuple[np.ndarray, int]:
        del seed
        if self.codec is None:
            return np.mean(list(deltas.values()), axis=0), sum(delta.nbytes for delta in deltas.values())
        total, size = 0.0, 0
        for device, delta in deltas.items():
            then, residual = self.residuals.get(device, (number - FEEDBACK_ROUNDS - 1, 0))
            target = delta + residual if number - then <= FEEDBACK_ROUNDS else delta
            payload = self.codec.encode_after(delta, target)
            decoded = self.codec.decode(payload, len(delta))
            self.residuals[device] = number, target - decoded
            total, size = total + decoded, size + len(payload)
        return total / len(deltas), size


class _Masked:
    """Integers, their sum modulo 2^m, and its mean. Uniform weights: all devices have as many examples."""

    def __init__(self, setting: dict[str, Any], params: int) -> None:
        self.rng = np.random.default_rng(0)
        party = Party("north", 1, to_text(bytes(32)), to_text(b"1" * 32))
        nowhere = ("plant", "0" * 16, 0, 0, "0" * 64, "0" * 16)
        self.terms = Terms(
            *nowhere, seed=0, least=2, helpers=(party,), **propose(params, CLIP, MOST, **setting)
        )  # fmt: skip

    def mean(self, deltas: dict[int, np.ndarray], number: int, seed: int) -> tuple[np.ndarray, int]:
        own = Terms.read(replace(self.terms, round=number, seed=derived_seed(seed, "masked", number) >> 10).text)
        total = np.zeros(own.length, np.uint32)
        for delta in deltas.values():
            q = vector.quantize(delta, 1, own, self.rng.bytes).q
            ring.add(total, ring.pack(ring.of(q, own.bits), own.bits), own.bits)
        return vector.mean(ring.centre(total, own.bits), own).delta, len(deltas) * own.packed_bytes
