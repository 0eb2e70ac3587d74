"""Objects and plug-ins in the Python API: simulate() takes a strategy, a codec and a partition as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from daemons import blobs

import edgefl
from edgefl import codecs, strategies
from edgefl.data import Dataset
from edgefl.errors import UsageError
from edgefl.onnx import zoo
from edgefl.strategies import Site, State
from edgefl.strategies.combine.mean import Mean
from edgefl.strategies.combine.spilled import Spilled
from edgefl.strategies.composed import Composed
from edgefl.strategies.presets import fedavgm, fedsgd
from edgefl.strategies.server.step import Step

from .conftest import Install, codec_source

MODEL = zoo.mlp([4, 6, 3], seed=1)
DATA = Dataset(*blobs(60, seed=1))


def run(**options: Any) -> bytes:
    history = edgefl.simulate(edgefl.load(MODEL), DATA, devices=3, rounds=3, seed=2, **options)
    assert all(record.state == "committed" for record in history.rounds)
    return history.params.tobytes()


def test_objects_do_what_their_names_do() -> None:
    named = run(strategy="fedavgm", codec="ecq:step=2", partition="shards:2")
    rule, codec = fedavgm(), codecs.get("ecq", step=2.0)
    from edgefl.simulation.split.partitions import shards

    def two(dataset: Dataset, argument: str, devices: int, rng: np.random.Generator) -> list[np.ndarray]:
        return shards(dataset, "2", devices, rng)

    for _ in range(2):  # the second run begins without the first one's momentum
        assert run(strategy=rule, codec=codec, partition=two) == named
    assert run(strategy="fedavgm") != run(strategy="fedavg")


def test_a_strategy_object_takes_the_learning_rate_of_each_run() -> None:
    rule = fedsgd(None)
    assert rule.options == {}
    for lr in (0.1, 0.3):
        assert run(strategy=rule, lr=lr) == run(strategy="fedsgd", lr=lr)


@pytest.mark.parametrize("rule", [fedavgm(0.5, momentum=0.3), strategies.get("fedavgm", server_lr=0.5, momentum=0.3)])
def test_the_record_has_the_options_of_a_strategy_object(rule: strategies.Strategy) -> None:
    history = edgefl.simulate(edgefl.load(MODEL), DATA, devices=3, rounds=2, strategy=rule)
    assert history.run is not None
    assert history.run.settings.strategy.name == "fedavgm:server_lr=0.5,momentum=0.3"
    again = edgefl.simulate(edgefl.load(MODEL), DATA, history.run.settings, devices=3)
    assert again.params.tobytes() == history.params.tobytes()


class Late(Composed):
    """Restores what `prepare` has made room for."""

    def __init__(self) -> None:
        super().__init__("late", combine=Mean(), server=Step(1.0))

    def prepare(self, site: Site) -> None:
        super().prepare(site)
        self.room = np.zeros(site.num_params)

    def restore(self, state: State) -> None:
        self.room[:] = 0
        super().restore(state)


def test_a_strategy_is_prepared_before_it_is_restored() -> None:
    assert run(strategy=Late()) == run(strategy=Late) == run(strategy="fedavg")


def test_plug_ins_by_name_by_place_and_as_objects_are_one(install: Install) -> None:
    source = codec_source("loud", 200)
    install("loud-things", "loud_things", source, codecs={"loud": "loud_things:Loud"})
    install("unlisted", "unlisted", codec_source("quiet", 201))
    runs = [run(codec="loud:gain=0.5"), run(codec="loud_things:Loud:gain=0.5")]
    runs += [run(codec=codecs.get("loud", gain=0.5)), run(codec="unlisted:Loud:gain=0.5")]
    runs += [run(codec=codecs.get("unlisted:Loud", gain=0.5))]
    assert len(set(runs)) == 1 and runs[0] != run()


@pytest.mark.parametrize("option", ["strategy", "codec", "downlink", "partition"])
@pytest.mark.parametrize("wrong", [5, None, b"ecq", ["iid"]])
def test_a_wrong_type_says_what_is_expected(option: str, wrong: object) -> None:
    with pytest.raises(UsageError, match=r"give a name, 'module:(Class|function)'"):
        run(**{option: wrong})


def test_options_that_no_manifest_can_carry_are_refused(install: Install) -> None:
    install(
        "loud-things", "loud_things", codec_source().replace("float(gain)", "gain"), codecs={"loud": "loud_things:Loud"}
    )
    with pytest.raises(UsageError):
        run(codec=codecs.get("loud", gain=[1]))


class Median(Spilled):
    def rule(self, deltas: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.median(deltas, axis=0)


def test_a_spill_that_can_not_fit_ends_the_start() -> None:
    run(strategy=Composed("median", combine=Median(), server=Step(1.0)))
    with pytest.raises(UsageError, match=r"3 updates of 51 params take 612 bytes on disk, spill_mb allows 600"):
        run(strategy=Composed("median", combine=Median(), server=Step(1.0)), spill_mb=0.0006)
