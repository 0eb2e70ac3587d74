"""A trainer of a part of the plan takes the place of the whole one's memory: FedRep trains in two phases."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from edgefl import Trainer, _core, load
from edgefl.core import trainer as module
from edgefl.core.trainer import Cancelled
from edgefl.onnx import zoo

MODEL = load(zoo.mlp([64, 200, 10], seed=0))
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 64)).astype(np.float32), RNG.integers(0, 10, 60)
HEAD = frozenset((2, 3))
BODY = frozenset((0, 1))


class Nets:
    """The bytes of all nets that are alive, and the most that there were."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def counted(self) -> type:
        nets = self

        class Counted(_core.Net):  # type: ignore[misc]
            def __init__(self, *args: object, **options: object) -> None:
                nets.now += self.arena_bytes
                nets.most = max(nets.most, nets.now)

            def __del__(self) -> None:
                nets.now -= self.arena_bytes

        return Counted


@pytest.fixture
def nets(monkeypatch: pytest.MonkeyPatch) -> Nets:
    made = Nets()
    monkeypatch.setattr(module._core, "Net", made.counted())
    return made


def two_phases(trainer: Trainer) -> list[np.ndarray]:
    """As FedRep trains, whose variable still has the first part when the second one is made."""
    made = [trainer.evaluate(MODEL.params, X, Y).loss]
    with trainer.freezing(BODY) as part:
        made.append(part.fit(MODEL.params, X, Y, lr=0.1).delta)
    with trainer.freezing(HEAD) as part:
        made.append(part.fit(MODEL.params, X, Y, lr=0.1).delta)
    made.append(trainer.fit(MODEL.params, X, Y, lr=0.1).delta)
    return made


def test_phases_have_one_arena_at_a_time(nets: Nets) -> None:
    trainer = Trainer(MODEL.plan, batch=10)
    whole = trainer.arena_bytes
    two_phases(trainer)
    gc.collect()
    assert nets.most <= whole, "a part has no more gradients than the whole"
    assert nets.now == trainer.arena_bytes == whole


def test_a_trainer_is_the_same_afterwards_and_in_the_context() -> None:
    fresh = Trainer(MODEL.plan, batch=10)
    again = two_phases(fresh)
    for one, other in zip(two_phases(Trainer(MODEL.plan, batch=10)), again, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(again[-1], Trainer(MODEL.plan, batch=10).fit(MODEL.params, X, Y, lr=0.1).delta)
    trainer = Trainer(MODEL.plan, batch=10)
    with trainer.freezing(HEAD):
        assert trainer.arena_bytes == 0
        assert trainer.evaluate(MODEL.params, X, Y).loss == again[0]
        assert trainer.arena_bytes == fresh.arena_bytes
    assert trainer.predict(MODEL.params, X).shape == (60, 10)


def test_the_share_of_the_processor_outlasts_the_memory() -> None:
    trainer = Trainer(MODEL.plan, batch=10)
    trainer.set_cpu_percent(40)
    with trainer.freezing(HEAD):
        trainer.set_cpu_percent(60)
    shares = []
    original = module._core.Net

    class Told(original):  # type: ignore[misc, valid-type]
        def set_share(self, percent: int) -> None:
            shares.append(percent)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module._core, "Net", Told)
        trainer.evaluate(MODEL.params, X, Y)
    assert shares == [60]


def test_cancel_reaches_a_part_and_the_whole_after_it() -> None:
    trainer = Trainer(MODEL.plan, batch=10)
    for phase in ("part", "whole"):
        began, failed = threading.Event(), []

        def run(phase: str = phase, began: threading.Event = began, failed: list = failed) -> None:
            try:
                if phase == "part":
                    with trainer.freezing(HEAD) as part:
                        began.set()
                        part.fit(MODEL.params, X, Y, epochs=10**6)
                else:
                    began.set()
                    trainer.fit(MODEL.params, X, Y, epochs=10**6)
            except Cancelled as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        began.wait(5)
        for _ in range(100):
            trainer.cancel()
            thread.join(0.05)
            if not thread.is_alive():
                break
        assert not thread.is_alive() and len(failed) == 1
