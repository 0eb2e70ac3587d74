"""The work of one round on a device that has something of its own, beside a small data set. For tests of both."""

from __future__ import annotations

import numpy as np
from machines import PARAMS, PLAN, make_manifest, make_round

from edgefl.core.params import params_to_bytes
from edgefl.core.trainer import Trainer
from edgefl.device.events import TrainJob
from edgefl.device.slots import Slot
from edgefl.device.training import train_update
from edgefl.settings import TrainSettings
from edgefl.strategies.local import LocalRule

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 99)).astype(np.float32)
Y = (X[:, :10].argmax(1)).astype(np.int64)
KEEPS_BIAS = make_manifest(personal=[1], requires=["personal"], holdout=0.4, train=TrainSettings(lr=0.05, epochs=3))
DITTO = make_manifest(local=LocalRule("ditto", {"lam": 0.1}), requires=["local"], holdout=0.4)
OWN = slice(990, 1000)


def work(manifest=KEEPS_BIAS, slots=None, *, round=1, mode="train", **options):
    """A round's work, and what its device is told to keep."""
    kept = []
    message = make_round(round, round - 1, manifest=manifest, mode=mode)
    job = TrainJob(manifest, message, params_to_bytes(PARAMS), 0)
    options = {"load_slot": (slots or {}).get, "keep": kept.append} | options
    made = train_update(Trainer(PLAN), job, "a", X, Y, **options)
    return made, (kept or [None])[0]


def slots_of(made, manifest=KEEPS_BIAS, round=1):
    return {name: Slot.of(name, manifest, round, blob) for name, blob in made.slots.items()}


def values(blob):
    return np.frombuffer(blob, "<f4", offset=4)
