"""What does not go together is refused when it is configured, with the reason and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgefl_broker import check as aggregator_check

from edgefl.core.plan import Plan
from edgefl.errors import UsageError
from edgefl.federation import Objects, make_manifest, make_strategy
from edgefl.hosting.config import AggregatorConfig
from edgefl.onnx import zoo
from edgefl.onnx.load import load
from edgefl.settings import Settings, files
from edgefl.strategies import get
from edgefl.strategies.combine.mean import Mean
from edgefl.strategies.composed import Composed
from edgefl.strategies.fit import FEATURES, NEEDS, Fit, check
from edgefl.strategies.server.step import Step

RAW32 = {"codec.name": "raw32", "downlink.name": "raw32", "downlink.span": 1}
# Settings that ask for each feature, settings that do not, and what stands in the error
USES = {
    "sync": ({}, {"rounds.mode": "async", "rounds.goal": 2}, 'rounds.mode = "async"'),
    "async": ({"rounds.mode": "async", "rounds.goal": 2}, {}, 'rounds.mode = "sync"'),
    "late": ({"rounds.late": "fold"}, {}, 'rounds.late = "drop"'),
    "evaluate": ({"rounds.evaluate_every": 3}, {}, "evaluate_every out"),
    "weights": ({"strategy.weights": "uniform"}, {}, 'strategy.weights = "examples"'),
    "nesterov": ({"train.optimizer": "nesterov", "train.momentum": 0.9}, {}, 'train.optimizer = "sgd"'),
    "adam": ({"train.optimizer": "adam"}, {}, 'train.optimizer = "sgd"'),
    "momentum": ({"train.momentum": 0.5}, {}, "train.momentum = 0"),
    "clip": ({"train.clip_norm": 1.0}, {}, "train.clip_norm out"),
    "prox": ({"train.prox_mu": 0.1}, {}, "train.prox_mu = 0"),
    "decay": ({"train.weight_decay": 0.1}, {}, "train.weight_decay = 0"),
    "lossy": ({"codec.name": "ecq:step=2"}, {"codec.name": "planes"}, 'codec.name = "raw32"'),
    "feedback": ({"codec.name": "ecq", "codec.error_feedback": True}, {"codec.name": "ecq"}, "error_feedback = false"),
    "unfed": ({"codec.name": "ecq", "codec.error_feedback": False}, {"codec.name": "ecq"}, 'error_feedback = "auto"'),
    "noisy": ({"codec.name": "ecq-sparse"}, {"codec.name": "ecq"}, 'codec.name = "ecq"'),
}
LACKS = {
    "expect": ({}, {"rounds.expect": 9}, "rounds.expect to the number of devices"),
    "goal": ({}, {"rounds.goal": 2}, "rounds.min_reports to no more"),
}


def picky(fit: Fit) -> Composed:
    return Composed("picky", combine=Mean(), server=Step(1.0), fit=fit)


def settings(changes: dict[str, object]) -> Settings:
    return Settings().replace(**{**RAW32, **changes})


@pytest.mark.parametrize("name", sorted(USES))
def test_what_a_strategy_excludes_is_refused_where_it_is_used(name: str) -> None:
    used, unused, instead = USES[name]
    strategy = picky(Fit(without={name: "the moon is full"}))
    with pytest.raises(UsageError, match=r"'picky'.*because the moon is full.*another strategy") as refused:
        check(strategy, settings(used))
    assert instead in str(refused.value)
    check(strategy, settings(unused))
    check(picky(Fit()), settings(used))


@pytest.mark.parametrize("name", sorted(LACKS))
def test_what_a_strategy_needs_is_refused_where_it_is_lacking(name: str) -> None:
    lacking, given, instead = LACKS[name]
    strategy = picky(Fit(needs={name: "the moon is full"}))
    with pytest.raises(UsageError, match=r"'picky'.*but it needs [^,]+, because the moon is full") as refused:
        check(strategy, settings(lacking))
    assert instead in str(refused.value)
    check(strategy, settings(given))


ASYNC = {"rounds.mode": "async", "rounds.goal": 1, "rounds.min_reports": 1}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, 'rounds.mode "sync"'),
        ({"rounds.mode": "async"}, "rounds.goal is not set"),
        ({"rounds.mode": "async", "rounds.goal": 1}, "rounds.goal 1 is below rounds.min_reports 2"),
        (ASYNC | {"strategy.weights": "uniform"}, 'strategy.weights "uniform"'),
        (ASYNC | {"strategy.name": "fedasync:damping=hinge"}, "rounds.late_rounds is 3.* b is 4"),
        (ASYNC | {"strategy.name": "fedasync:damping=hinge,b=7.5", "rounds.late_rounds": 7}, "late_rounds is 7"),
        (ASYNC | {"strategy.name": "fedasync:damping=hinge,a=0"}, 'a is 0.*damping=constant'),
        (ASYNC | {"strategy.name": "fedasync:a=0"}, 'a is 0.*damping=constant'),
        (ASYNC | {"strategy.name": "fedasync:b=2"}, "b is 2, .*polynomial.* leave it out"),
        (ASYNC | {"strategy.name": "fedasync:damping=constant,a=0.5"}, "a is 0.5, .*constant.* leave it out"),
        (ASYNC | {"strategy.name": "fedasync:damping=hinge,b=-1", "rounds.late_rounds": 9}, "b is -1"),
    ],
    ids=str,
)  # fmt: skip
def test_settings_of_fedasync_that_do_nothing_are_refused(changes: dict[str, object], why: str) -> None:
    """By what a manifest is made of, so that --check says it too."""
    fedasync = settings({"strategy.name": "fedasync"} | changes)
    with pytest.raises(UsageError, match=why):
        make_manifest(fedasync, "pond", "0" * 16, small_plan())


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"rounds.goal": 4}, {"strategy.name": "fedasync:damping=constant"}, {"strategy.name": "fedasync:a=2"},
        {"strategy.name": "fedasync:damping=hinge", "rounds.late_rounds": 5},
        {"strategy.name": "fedasync:damping=hinge,a=1,b=2.5"},
    ],
    ids=str,
)  # fmt: skip
def test_settings_of_fedasync_that_do_something_are_taken(changes: dict[str, object]) -> None:
    make_manifest(settings(ASYNC | {"strategy.name": "fedasync"} | changes), "pond", "0" * 16, small_plan())


def test_keys_are_needed_in_a_deployment_only(tmp_path: Path) -> None:
    strategy = picky(Fit(needs={"keys": "it trusts one device"}))
    file = tmp_path / "aggregator.toml"
    file.write_text('federation = "pond"\nmodel = "m.onnx"\n[mqtt]\nurl = "mqtt://localhost"\n')
    with pytest.raises(UsageError, match=r"\[keys\] is off"):
        check(strategy, files.load(file, AggregatorConfig))
    check(strategy, files.load(file, AggregatorConfig, ["keys.dir=keys"]))
    check(strategy, Settings())


def test_every_feature_is_covered_here() -> None:
    assert set(USES) | {"personal"} == set(FEATURES)
    assert set(LACKS) | {"keys"} == set(NEEDS)


def test_the_parts_of_a_strategy_and_its_preset_add_up() -> None:
    mean, step = Mean(), Step(1.0)
    mean.fit, step.fit = Fit(without={"late": "a"}), Fit(needs={"expect": "b"})
    whole = Composed("whole", combine=mean, server=step, fit=Fit(without={"adam": "c"})).fit
    assert whole == Fit({"late": "a", "adam": "c"}, {"expect": "b"})
    assert picky(Fit()).fit == Fit() == get("fedavg").fit


def test_all_reasons_are_told_at_once() -> None:
    with pytest.raises(UsageError, match=r"because a: .*because b: .*because c: "):
        check(
            picky(Fit({"momentum": "a", "prox": "b"}, {"expect": "c"})),
            settings({"train.momentum": 0.5, "train.prox_mu": 1.0}),
        )


def test_a_feature_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="'momentun': did you mean 'momentum'"):
        Fit(without={"momentun": "no"})


def test_the_aggregators_check_and_its_start_refuse_the_same(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(zoo.mlp([4, 3]).SerializeToString())
    file = tmp_path / "aggregator.toml"
    file.write_text(
        f'federation = "pond"\nmodel = "{model}"\nstate_dir = "{tmp_path}"\n[mqtt]\nurl = "mqtt://localhost"\n'
        '[train]\noptimizer = "adam"\n[strategy]\nname = "fednova"\n'
    )
    config = files.load(file, AggregatorConfig)
    with pytest.raises(UsageError, match=r"'fednova'.*Adam has no fixed gain.*train.optimizer = \"sgd\""):
        list(aggregator_check.settings(aggregator_check.Federation(config)))
    with pytest.raises(UsageError, match="'fednova'"):
        make_strategy(config)
    list(aggregator_check.settings(aggregator_check.Federation(config.replace(**{"train.optimizer": "sgd"}))))


def small_plan() -> Plan:
    return load(zoo.mlp([4, 3])).plan


def test_strategy_and_manifest_are_both_refused_by_what_the_strategy_makes_of_the_settings() -> None:
    """The training settings are those that the strategy has changed."""

    class Slow(Composed):
        def defaults(self, train: object) -> dict[str, object]:
            return {"local_mode": "sgd", "momentum": 0.0}

    slow = Slow("slow", combine=Mean(), server=Step(1.0), fit=Fit({"momentum": "it is slow", "adam": "it is slow"}))
    fast, adam = settings({"train.momentum": 0.9}), settings({"train.optimizer": "adam"})
    assert make_strategy(fast, Objects(strategy=slow)) is slow
    with pytest.raises(UsageError, match="it is slow"):
        make_strategy(adam, Objects(strategy=slow))
    with pytest.raises(UsageError, match="it is slow"):
        make_manifest(adam, "pond", "0" * 16, small_plan(), objects=Objects(strategy=slow))
