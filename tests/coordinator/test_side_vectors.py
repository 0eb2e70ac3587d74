"""Side vectors: what a strategy sends along with each model, through every downlink, to devices that come and go."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl import load, simulate
from edgefl.device import local
from edgefl.device.local.rule import Learned, Rule
from edgefl.errors import UsageError
from edgefl.federation import make_manifest
from edgefl.onnx import zoo
from edgefl.protocol.features import FEATURES
from edgefl.settings import Settings
from edgefl.strategies import get
from edgefl.strategies.combine.mean import Mean
from edgefl.strategies.composed import Composed
from edgefl.strategies.local import LocalRule
from edgefl.strategies.server.step import Step

SEEN: dict[int, set[tuple[bytes, bytes]]] = {}  # by round: the side vectors that devices had


class Telling(Rule):
    def train(self, work):
        SEEN.setdefault(work.round, set()).add((work.sides["up"].tobytes(), work.sides["down"].tobytes()))
        return Learned(work.fit().delta, 1, 0.5)


class Sides(Composed):
    """The sums of all deltas, and of their squares, which are much smaller."""

    sides = ("up", "down")
    local = LocalRule("telling")

    def __init__(self):
        super().__init__("sides", combine=Mean(), server=Step(1.0))
        self.told, self.exact = {}, {}

    def prepare(self, site):
        super().prepare(site)
        self.up = self.down = np.zeros(site.num_params, np.float32)

    def shown(self, sides):
        self.now = (sides["up"].tobytes(), sides["down"].tobytes())

    def start(self, params, round):
        self.told[round], self.exact[round] = self.now, (self.up.copy(), self.down.copy())
        super().start(params, round)

    def finish(self):
        before = self._params
        after = super().finish()
        self.up, self.down = self.up + (after - before), self.down + (after - before) ** 2 / 100
        return after

    def broadcast(self):
        return {"up": self.up, "down": self.down}


@pytest.fixture(autouse=True)
def rules(monkeypatch):
    monkeypatch.setitem(local.RULES, "telling", f"{__name__}:Telling")
    SEEN.clear()


@pytest.mark.parametrize("span", [1, 4])
@pytest.mark.parametrize("downlink", ["raw32", "planes", "ecq"])
def test_devices_have_the_vectors_of_their_round_even_if_they_come_late(downlink, span):
    strategy = Sides()
    history = simulate(
        "mlp:64-16-10", "digits", devices=12, rounds=12, strategy=strategy, downlink=downlink, span=span, seed=2,
        codec="raw32", faults="dropout:0.3", over_select=2.0, goal=4, deadline_s=30,
    )  # fmt: skip
    assert history.final.committed >= 6
    trained = [round for round in strategy.told if round in SEEN]
    assert len(trained) >= 6
    off: dict[int, list[float]] = {0: [], 1: []}  # of each vector, relative to its length
    for round in trained:
        assert SEEN[round] == {strategy.told[round]}, "what the strategy is told is what devices decode"
        for place, (blob, exact) in enumerate(zip(strategy.told[round], strategy.exact[round], strict=True)):
            if exact.any():
                off[place].append(np.linalg.norm(np.frombuffer(blob, "<f4") - exact) / np.linalg.norm(exact))
    if downlink == "ecq":
        assert max(map(np.mean, off.values())) < 0.6, "each has a step of its own, so the small one is not lost"
    else:
        assert off[0] and max(map(max, off.values())) == 0


def test_the_bytes_of_the_vectors_are_counted():
    down = {}
    for name in ("fedavg", Sides()):
        history = simulate(
            "mlp:64-16-10", "digits", devices=4, rounds=4, strategy=name, downlink="raw32", span=1, codec="raw32"
        )
        down[isinstance(name, str)] = sum(r.bytes_down for r in history.rounds)
    assert 2.7 < down[False] / down[True] < 3  # beside messages, which are as long


def test_the_manifest_names_them_and_requires_the_feature():
    settings = Settings().replace(codec="raw32", downlink="raw32", span=1)
    from edgefl.federation import Objects

    manifest = make_manifest(settings, "fleet", "0" * 16, load(zoo.mlp([2, 1])).plan, objects=Objects(strategy=Sides()))
    assert manifest.sides == ["up", "down"] and manifest.model_size == 9
    assert set(manifest.requires) == {"local", "side"} <= FEATURES


def test_a_strategy_that_names_no_vector_and_sends_one_is_refused():
    class Silent(Sides):
        sides = ()

    with pytest.raises(UsageError, match="but not both"):
        get(Silent)
