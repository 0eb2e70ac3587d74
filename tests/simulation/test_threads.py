"""Threads of a simulation's trainings: never more than cores, wherever they can be, and the same bits."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import edgefl
from edgefl.errors import UsageError
from edgefl.simulation import options
from edgefl.simulation.options import FleetOptions, workers_and_threads


@pytest.mark.parametrize(
    ("cores", "workers", "threads", "expected"),
    [
        (8, None, 1, (8, 1)),
        (8, None, 2, (4, 2)),
        (8, None, 3, (2, 3)),
        (2, None, 4, (1, 2)),
        (8, 2, 4, (2, 4)),
        (8, 4, 4, (4, 2)),
        (8, 8, 4, (8, 1)),
        (2, 16, 4, (16, 1)),
        (1, None, 1, (1, 1)),
    ],
)
def test_workers_and_threads_together_are_no_more_than_the_cores(cores, workers, threads, expected, monkeypatch):
    monkeypatch.setattr(options, "cores", lambda: cores)
    assert workers_and_threads(FleetOptions(workers=workers, threads=threads)) == expected


def test_a_simulation_has_the_same_bits_with_threads(monkeypatch):
    monkeypatch.setattr(options, "cores", lambda: 3)
    counts = []
    module = importlib.import_module("edgefl.simulation.stage")
    trainer = module.Trainer
    monkeypatch.setattr(module, "Trainer", lambda *a, **how: counts.append(how["threads"]) or trainer(*a, **how))
    rng = np.random.default_rng(0)
    data = edgefl.data.Dataset(rng.normal(0, 1, (60, 600)).astype(np.float32), rng.integers(0, 5, 60))
    one, three = (
        edgefl.simulate("mlp:600-1000-5", data, devices=3, rounds=2, batch_size=20, threads=threads)
        for threads in (1, 3)
    )
    assert set(counts) == {1, 3}
    assert one.params.tobytes() == three.params.tobytes()


def test_threads_of_ray_workers_are_refused():
    with pytest.raises(UsageError, match="threads work with the engine local"):
        edgefl.simulate("mlp:64-32-10", "digits", devices=3, rounds=1, engine="ray", threads=2)
