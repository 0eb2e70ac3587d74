"""A share of the processor: training rests between pieces of a batch, gives the same bits, and ends a rest at once."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from edgefl import Trainer, load
from edgefl.core.trainer import Cancelled
from edgefl.errors import UsageError
from edgefl.onnx import zoo

MODEL = load(zoo.mlp([64, 256, 10], seed=0))
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(4000, 64)).astype(np.float32), RNG.integers(0, 10, 4000)


def fit(trainer: Trainer, epochs: int):
    return trainer.fit(MODEL.params, X, Y, epochs=epochs, batch_size=32)


def used(trainer: Trainer, epochs: int) -> tuple[float, float]:
    """Seconds of this thread's processor time, and of the clock."""
    cpu, wall = time.thread_time(), time.perf_counter()
    fit(trainer, epochs)
    return time.thread_time() - cpu, time.perf_counter() - wall


def test_a_share_of_the_time_and_the_same_bits():
    free, shared = Trainer(MODEL.plan), Trainer(MODEL.plan)
    shared.set_cpu_percent(25)
    epochs = max(1, round(0.3 / used(free, 1)[0]))
    cpu, wall = used(shared, epochs)
    assert cpu / wall < 0.35, "a busy machine can only make it less"
    assert fit(shared, 1).delta.tobytes() == fit(free, 1).delta.tobytes()
    shared.set_cpu_percent(100)
    began = time.perf_counter()
    shared.evaluate(MODEL.params, X, Y)
    assert time.perf_counter() - began < 5


def test_evaluation_rests_too():
    trainer = Trainer(MODEL.plan)
    trainer.set_cpu_percent(10)
    x, y = np.tile(X, (20, 1)), np.tile(Y, 20)
    cpu, wall = time.thread_time(), time.perf_counter()
    trainer.evaluate(MODEL.params, x, y)
    cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
    assert cpu / wall < 0.5


def test_a_rest_ends_when_training_is_cancelled():
    trainer, ended = Trainer(MODEL.plan), []
    trainer.set_cpu_percent(1)  # after 20 ms of work, two seconds of rest

    def run() -> None:
        with pytest.raises(Cancelled):
            fit(trainer, 10_000)
        ended.append(time.perf_counter())

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.5)
    cancelled = time.perf_counter()
    trainer.cancel()
    thread.join(10)
    assert ended[0] - cancelled < 0.5


@pytest.mark.parametrize("percent", [0, 101, -1, 2.5, True])
def test_only_percentages_are_accepted(percent):
    with pytest.raises(UsageError, match="cpu_percent"):
        Trainer(MODEL.plan).set_cpu_percent(percent)
