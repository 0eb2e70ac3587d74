"""What "auto" stands for: a pure choice, kept for the life of a state folder, and told."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from brokers import Mosquitto
from conftest import ROOT
from daemons import Federation

import edgefl
from edgefl import auto, codecs, strategies
from edgefl.core.mask import Mask
from edgefl.errors import UsageError
from edgefl.federation import make_manifest
from edgefl.history import Run
from edgefl.onnx import zoo
from edgefl.onnx.load import load
from edgefl.settings import Settings
from edgefl.settings.spec import split
from edgefl.strategies.masked import over

PLAN = load(zoo.mlp([64, 100, 10])).plan  # 7510 params
MOST, FEW, SOME, MANY = auto.MOST_ROUNDS, *(auto.now_and_then(count) for count in (2, 5, 10))


def chosen(**settings: object) -> auto.Choice:
    return auto.choose(Settings().replace(**settings), PLAN)


@pytest.mark.parametrize(
    ("settings", "codecs", "span"),
    [
        ({}, MOST, 1),
        ({"fraction": 0.5}, MOST, 1),
        ({"fraction": 0.1}, FEW, 10),  # how many reports is not known
        ({"fraction": 0.1, "expect": 40}, SOME, 10),
        ({"fraction": 0.1, "expect": 100}, MANY, 10),
        ({"fraction": 0.001, "expect": 3}, FEW, 1000),
        ({"goal": 10}, MOST, 1),  # the size of the fleet is not known
        ({"goal": 10, "expect": 12}, MOST, 1),
        ({"goal": 10, "expect": 100}, MANY, 1),  # all are asked, and fetch every model
        ({"goal": 10, "expect": 100, "over_select": 1.25}, MANY, 8),
        ({"goal": 90, "expect": 100, "fraction": 0.2}, MANY, 5),
        ({"over_select": 2.0, "fraction": 0.1}, FEW, 5),
        ({"mode": "async", "goal": 5, "expect": 100}, SOME, 20),
        ({"mode": "async", "goal": 5, "expect": 0}, MOST, 1),
    ],
    ids=str,
)
def test_the_choice_follows_how_often_a_device_takes_part(settings, codecs, span):
    choice = chosen(**settings)
    assert ((choice.codec, choice.downlink), choice.span) == (codecs, span)
    assert chosen(**settings) == choice, "the same on every call"


def test_the_documentation_has_the_table():
    text = (ROOT / "docs" / "compression.md").read_text(encoding="utf-8")
    assert f"| half of the rounds or more | `{MOST[0]}` with error feedback | `{MOST[1]}` | 1 |" in text
    up, down = auto.NOW_AND_THEN
    assert f"| fewer | `{up.format(step='S')}` | `{down}` |" in text and f"{auto.SMALL:,} params" in text
    assert auto.STEPS == ((8, 6), (0, 4))
    assert "S is 6 where a round combines 8 reports or more, else 4" in text
    assert auto.MOST == 0.5
    assert f"get `{auto.CARRIED}` both ways" in text
    assert "`{}` up, or `{}` in the second row, and `{}` down".format(*auto.EVEN) in " ".join(text.split())


@pytest.mark.parametrize("fraction", [1.0, 0.1])
def test_a_rule_by_coordinate_gets_finer_steps(fraction):
    """Of what most updates leave out, a median is 0; rows that are means of many lose nothing."""
    usual = chosen(fraction=fraction)
    for strategy in ("median", "trimmed-mean:f=0.1", "meamed", "bulyan", "median:before=clip"):
        fine = chosen(fraction=fraction, strategy=strategy)
        assert (fine.codec, fine.downlink, fine.span) == ("ecq:step=0.5", usual.downlink, usual.span)
        assert fine.reason == f"{usual.reason}; {strategy.partition(':')[0]} loses what most updates leave out"
    for strategy in ("krum", "geometric-median", "median:before=nnm", "fednova", "edgefl.strategies.presets:fedavg"):
        assert chosen(fraction=fraction, strategy=strategy) == usual


@pytest.mark.parametrize(("fraction", "up"), [(1.0, "ecq:step=1"), (0.1, "ecq-sparse:step=2,exact=none")])
def test_updates_without_large_coordinates_get_finer_steps_both_ways(fraction, up):
    """Those of Adam, and of adapters: a coarse step would send nothing of them for rounds."""
    base = load(zoo.mlp([64, 100, 10]))
    tuned, kept = base.with_adapters(4), load(base.with_adapters(4, merge=False).to_bytes()).plan
    sgd, adam = Settings().replace(fraction=fraction), Settings().replace(fraction=fraction, optimizer="adam")
    for settings, plan, whose in ((adam, base.plan, "adam"), (sgd, tuned.plan, "adapters"), (sgd, kept, "adapters")):
        choice = auto.choose(settings, plan)
        assert (choice.codec, choice.downlink) == (up, "ecq:step=1")
        assert f"updates of {whose} have no coordinates" in choice.reason
    merged = load(tuned.to_bytes(tuned.params)).plan
    assert auto.choose(sgd, merged) == auto.choose(sgd, base.plan)
    for strategy in ("median", "fedadam"):
        assert auto.choose(adam.replace(strategy=strategy), base.plan).codec == "ecq:step=0.5"


def test_a_small_model_is_tuned_by_adapters_and_coarse_steps_would_not_do_it():
    model = load(zoo.mlp([64, 32, 10])).with_adapters(4, alpha=4, trained="AB")
    run = {"devices": 3, "rounds": 6, "epochs": 3, "partition": "iid"}
    exact, found, coarse = (
        edgefl.simulate(model, "digits", codec=up, downlink=down, **run)
        for up, down in (("raw32", "raw32"), ("auto", "auto"), MOST)
    )
    assert found.rounds[-1].loss < 1.2 * exact.rounds[-1].loss < 0.5 < 1 < coarse.rounds[-1].loss
    assert found.rounds[-1].bytes_up < exact.rounds[-1].bytes_up / 20


def test_what_does_not_train_costs_a_codec_nothing():
    plan = load(zoo.mlp([32, 50, 10]), freeze=["fc1"]).plan
    assert plan.num_params < auto.SMALL and plan.num_trainable < plan.num_params / 3
    choice = auto.choose(Settings(), plan)
    assert (choice.codec, choice.downlink) == MOST


CARRY = ("fedavgm", "fedadam", "fedyogi", "fedadagrad", "scaffold", "feddyn", "fedcm", "mime-lite", "mifa")


@pytest.mark.parametrize("fraction", [1.0, 0.1])
def test_a_strategy_that_carries_what_it_gets_into_later_rounds_gets_finer_steps_both_ways(fraction):
    usual = chosen(fraction=fraction, expect=100)
    for strategy in strategies.STRATEGIES:
        options = ":trusted=pi-01" if strategy == "monna" else ""
        found = chosen(fraction=fraction, expect=100, strategy=strategy + options)
        fine = (found.codec, found.downlink) == ("ecq:step=0.5", "ecq:step=0.5")
        assert fine == (strategy in CARRY) == ("into later rounds" in found.reason), strategy
        assert found.span == usual.span
    assert chosen(fraction=fraction, expect=100, strategy="fedavgm:momentum=0") == usual, "its velocity is the delta"


def test_what_masks_a_strategy_carries_what_it_carries():
    model = load(zoo.mlp([4, 4, 3]))
    mask = Mask(model.plan, [2, 3])
    assert over(mask, strategies.get("fedadam")).carries and not over(mask, strategies.get("fedavg")).carries


def test_only_auto_is_replaced_and_only_that_is_told():
    settings = Settings().replace(codec="raw32", fraction=0.1)
    choice = auto.choose(settings, PLAN)
    applied = auto.apply(settings, choice)
    assert (applied.codec.name, applied.downlink.name, applied.downlink.span) == ("raw32", FEW[1], 10)
    assert choice.explain(settings) == f"{FEW[1]} down, span 10: a device takes part in about 10.0% of the rounds"
    assert not auto.wanted(applied) and auto.apply(applied, chosen()) == applied
    whole = Settings().replace(codec="raw32", downlink="raw32")
    assert auto.wanted(whole) and choice.explain(whole) == "", "without deltas a span matters to nobody"
    with pytest.raises(UsageError, match='has no "auto"'):
        make_manifest(settings, "pond", "0" * 16, PLAN)


@pytest.mark.parametrize("fraction", [1.0, 0.1])
@pytest.mark.parametrize("sizes", [[1, 1], [4, 3], [8, 8], [64, 10], [64, 50, 10]], ids=str)
def test_a_small_model_has_a_codec_only_where_that_is_smaller_than_float32(sizes, fraction):
    import numpy as np

    plan = load(zoo.mlp(sizes)).plan
    choice = auto.choose(Settings().replace(fraction=fraction), plan)
    delta = np.random.default_rng(5).standard_normal(plan.num_params).astype(np.float32) / 100
    for spec, wanted in zip((choice.codec, choice.downlink), MOST if fraction == 1 else FEW, strict=True):
        name, options = split(wanted)
        pays = len(codecs.get(name, **options).for_tensors(plan.params).encode(delta)) < delta.nbytes
        assert spec == (wanted if pays else "raw32")
    assert ("raw32" in (choice.codec, choice.downlink)) == ("overhead" in choice.reason)


def test_a_simulation_tells_it_and_keeps_it():
    told: list[Run] = []
    history = edgefl.simulate(
        "mlp:64-32-10", "digits", devices=10, rounds=2, fraction=0.2, seed=3, on_start=told.append
    )
    run = json.loads(history.to_json())["run"]
    assert told == [history.run] and run["seed"] == 3 and run["versions"]["edgefl"] == edgefl.__version__
    assert run["settings"]["codec"]["name"] == FEW[0] and run["settings"]["downlink"]["span"] == 5
    assert run["auto"].startswith(f"{FEW[0]} up, ") and run["fleet"]["devices"] == 10
    again = edgefl.simulate("mlp:64-32-10", "digits", history.run.settings, devices=10)
    assert again.params.tobytes() == history.params.tobytes(), "the record is enough to repeat the run"


def test_a_restart_keeps_the_first_choice_whatever_the_configuration_says(
    mosquitto: Mosquitto, federation: Callable[..., Federation]
) -> None:
    fleet = federation(mosquitto.url)
    rounds = {"rounds": 1, "deadline_s": 20.0, "min_reports": 2, "expect": 2}
    tables = {"codec": {"name": "auto"}, "downlink": {}}
    first = fleet.aggregator(rounds=rounds, **tables)
    for device in ("dev-a", "dev-b"):
        fleet.agent(device)
    assert first.join()
    chosen, manifest = first.host.history.run, first.host.machine.announcer.manifest
    assert chosen.settings.codec.name == manifest.codec == "ecq"
    second = fleet.aggregator(rounds=rounds | {"fraction": 0.5, "expect": 200, "goal": 2, "rounds": 2}, **tables)
    assert second.join()
    assert second.host.machine.announcer.manifest.id == manifest.id
    assert second.host.history.run.settings.codec == chosen.settings.codec
    kept = Run.read(fleet.folder / "aggregator" / "run.json")
    assert kept == second.host.history.run and kept.auto == chosen.auto
    named = fleet.aggregator(rounds=rounds | {"rounds": 2}, codec={"name": "raw32"}, downlink={"name": "raw32"})
    assert named.host.machine.announcer.manifest.codec == "raw32", "a name is obeyed"
