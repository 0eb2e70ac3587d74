"""Updates as devices really send them: deltas of small federations trained here, in early, middle and late rounds.

McMahan's 2NN and CNN on MNIST, IID and with two labels a device; the character LSTM on Shakespeare, lines dealt at
random and a role a device. A round is FedAvg's: a few devices of fifty train one epoch, cut short, and are averaged.
What is made lies in a folder of the caller's and is not made twice.

Not here: the round protocol (edgefl.simulate runs it); a codec sees the same deltas without.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from models import VOCABULARY, char_lstm, mcmahan_cnn, mlp

import edgefl
from edgefl import data
from edgefl.core.plan import Param
from edgefl.data import Dataset, fit_shape
from edgefl.simulation.split.partitions import split

DEVICES = 50
UNROLLED = 80  # characters that the LSTM reads before it is asked for the next
STAGES = ("early", "middle", "late")
NATURAL_ROLES = 20  # roles with most lines; the rest of a play's have a few each


@dataclass(frozen=True)
class Federation:
    """How a model's updates are made: `rounds` that the stages' deltas come from, devices a round, steps at most."""

    make: Callable[[], bytes]
    read: Callable[[Path], Dataset]
    partitions: tuple[str, ...]
    rounds: tuple[int, int, int]
    cohort: int
    max_steps: int
    lr: float


@dataclass(frozen=True)
class RealUpdate:
    """One device's delta, (P,) float32, of `tensors`."""

    model: str
    partition: str
    stage: str
    delta: np.ndarray
    tensors: list[Param]


def mnist(shared: Path) -> Dataset:
    return data.load(f"mnist:{shared / 'data/mnist'}")


def shakespeare(shared: Path) -> Dataset:
    """x (n, 80) characters, y (n,) the next one, device_train the role: of the first 2,000 characters of each."""
    with gzip.open(shared / "data/shakespeare/roles.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = ["\n".join(json.loads(line)["speeches"]) for line in lines]
    texts = sorted(texts, key=len, reverse=True)[:NATURAL_ROLES]
    number = {character: i for i, character in enumerate(sorted(set("".join(texts))), start=1)}
    if len(number) >= VOCABULARY:
        raise ValueError(f"{len(number)} characters where the model knows {VOCABULARY}")
    windows = [
        np.lib.stride_tricks.sliding_window_view([number[c] for c in text[:2000]], UNROLLED + 1) for text in texts
    ]
    roles = np.repeat(np.arange(len(windows)), [len(w) for w in windows])
    rows = np.concatenate(windows).astype(np.int64)
    return Dataset(rows[:, :-1], rows[:, -1], device_train=roles, name="shakespeare")


FEDERATIONS = {
    "2nn": Federation(mlp, mnist, ("iid", "shards:2"), (2, 30, 150), 10, 60, 0.1),
    "cnn": Federation(mcmahan_cnn, mnist, ("iid", "shards:2"), (2, 8, 24), 4, 40, 0.1),
    "char-lstm": Federation(char_lstm, shakespeare, ("iid", "natural"), (2, 8, 24), 3, 20, 1.0),
}


def updates(shared: Path, folder: Path, models: tuple[str, ...] = tuple(FEDERATIONS)) -> Iterator[RealUpdate]:
    """Those of `models`, by partition and stage; `shared` has the data, `folder` keeps what has been made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in models:
        federation = FEDERATIONS[name]
        model = edgefl.load(federation.make(), loss="cross_entropy")
        for partition in federation.partitions:
            path = folder / f"{name}-{partition.replace(':', '')}.npz"
            if not path.exists():
                print(f"training {path.stem} ...", file=sys.stderr, flush=True)
                np.savez(path, **_train(federation, model, partition, shared))
            with np.load(path) as kept:
                for stage in STAGES:
                    yield RealUpdate(name, partition, stage, kept[stage], model.plan.params)


EPOCHS = (1, 5)
AFTER = 10  # rounds


def by_epochs(shared: Path, folder: Path) -> dict[str, RealUpdate]:
    """The 2NN's update of a device with 600 examples of MNIST, batch 10, by local epochs: "E=1" and "E=5", after AFTER
    rounds of five of a hundred devices (McMahan et al. 2017). Empty without MNIST in `shared`."""
    if not (shared / "data/mnist").is_dir():
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    path, model = folder / "2nn-epochs.npz", edgefl.load(mlp(), loss="cross_entropy")
    if not path.exists():
        print(f"training {path.stem} ...", file=sys.stderr, flush=True)
        np.savez(path, **{f"E={epochs}": _of_epochs(model, shared, epochs) for epochs in EPOCHS})
    with np.load(path) as kept:
        return {name: RealUpdate("2nn", "iid", name, kept[name], model.plan.params) for name in kept.files}


def _of_epochs(model: edgefl.Model, shared: Path, epochs: int) -> np.ndarray:
    dataset = fit_shape(mnist(shared), tuple(model.plan.input_shape))
    parts = split(dataset, "iid", 100, seed=0)
    trainer, rng, params = edgefl.Trainer(model.plan, batch=10), np.random.default_rng(0), model.params.copy()
    for number in range(AFTER):
        deltas = [
            trainer.fit(params, dataset.x_train[part], dataset.y_train[part], lr=0.1, epochs=epochs, seed=number).delta
            for part in (parts[device] for device in rng.choice(len(parts), 5, replace=False))
        ]
        params += np.mean(deltas, axis=0, dtype=np.float32)
    return deltas[0]


def _train(federation: Federation, model: edgefl.Model, partition: str, shared: Path) -> dict[str, np.ndarray]:
    """The first device's delta in each stage's round."""
    dataset = fit_shape(federation.read(shared), tuple(model.plan.input_shape))
    parts = split(dataset, partition, NATURAL_ROLES if partition == "natural" else DEVICES, seed=0)
    trainer = edgefl.Trainer(model.plan, batch=10)
    rng = np.random.default_rng(0)
    params, found = model.params.copy(), {}
    for number in range(1, federation.rounds[-1] + 1):
        deltas = []
        for device in rng.choice(len(parts), federation.cohort, replace=False):
            x, y = dataset.x_train[parts[device]], dataset.y_train[parts[device]]
            fitted = trainer.fit(params, x, y, lr=federation.lr, max_steps=federation.max_steps, seed=number)
            deltas.append(fitted.delta)
        if number in federation.rounds:
            found[STAGES[federation.rounds.index(number)]] = deltas[0]
        params += np.mean(deltas, axis=0, dtype=np.float32)
    return found
