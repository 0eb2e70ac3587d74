"""Local rules: what a strategy may have its devices do in training, and that slots follow the updates that counted."""

from __future__ import annotations

import numpy as np
import pytest
from machines import feed, fetching, give, make_manifest, of, receipt, reporting

from edgefl import load, simulate
from edgefl.data import Dataset
from edgefl.device import local
from edgefl.device.events import MarkCounted
from edgefl.device.local.rule import Learned, Rule, pack
from edgefl.device.owner.effort import flops_of
from edgefl.errors import UsageError
from edgefl.federation import make_manifest as manifest_of
from edgefl.onnx import zoo
from edgefl.protocol.features import FEATURES
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.messages import decode, encode
from edgefl.settings import Settings
from edgefl.strategies.combine.mean import Mean
from edgefl.strategies.composed import Composed
from edgefl.strategies.local import LocalRule
from edgefl.strategies.server.step import Step

MODEL = load(zoo.mlp([2, 1], seed=0))
RNG = np.random.default_rng(0)
DATA = Dataset(RNG.normal(size=(12, 2)).astype(np.float32), RNG.normal(size=(12, 1)).astype(np.float32))


class Drift(Rule):
    """Adds `by`, and what it has sent so far, to each delta."""

    passes = 3.0

    def __init__(self, by: float) -> None:
        self._by = np.float32(by)

    def train(self, work):
        plain, sum_of_sent = work.fit(), work.vector("control")
        before = np.zeros_like(work.params) if sum_of_sent is None else sum_of_sent
        delta = plain.delta + self._by + before

        def keep(sent, received):
            np.testing.assert_array_equal(received(), sent)  # raw32
            return {"control": pack(before + sent)}

        return Learned(delta, plain.steps, plain.loss, keep)


class Broken(Rule):
    def train(self, work):
        raise AssertionError("it must not be called")


@pytest.fixture(autouse=True)
def rules(monkeypatch):
    monkeypatch.setitem(local.RULES, "drift", f"{__name__}:Drift")
    monkeypatch.setitem(local.RULES, "broken", f"{__name__}:Broken")


def strategy(name="drift", **options):
    made = Composed("drifting", combine=Mean(), server=Step(1.0))
    made.local = LocalRule(name, options)
    return made


def run(rounds=3, **options):
    settings = {"devices": 2, "codec": "raw32", "downlink": "raw32", "batch_size": "all", "lr": 0.05, "seed": 3}
    settings |= {"partition": lambda dataset, argument, devices, rng: np.split(np.arange(12), 2)}
    return simulate(MODEL, DATA, rounds=rounds, **settings, **options)


def reference(rounds, by, counts=lambda round: True):
    """The same with dictionaries; `counts`: whether the updates of a round do."""
    from edgefl.core.trainer import Trainer

    trainer, params, sums = Trainer(MODEL.plan), MODEL.params, {0: np.zeros(3, np.float32), 1: np.zeros(3, np.float32)}
    for round in range(1, rounds + 1):
        deltas = {}
        for device in sums:
            examples = slice(6 * device, 6 * device + 6)
            plain = trainer.fit(params, DATA.x_train[examples], DATA.y_train[examples], batch_size="all", lr=0.05)
            deltas[device] = plain.delta + np.float32(by) + sums[device]
        if counts(round):
            sums = {device: sums[device] + deltas[device] for device in sums}
            params = params + (deltas[0] + deltas[1]) / 2
    return params


def test_a_rule_trains_with_what_its_counted_updates_have_left():
    np.testing.assert_allclose(run(strategy=strategy(by=0.25)).params, reference(3, 0.25), rtol=1e-6)


def test_an_abandoned_round_leaves_nothing():
    history = run(rounds=6, strategy=strategy(by=0.25), min_reports=2, faults="dropout:0.3", deadline_s=30)
    states = [record.state for record in history.rounds]
    assert "abandoned" in states and states.count("committed") >= 2
    expected = reference(len(states), 0.25, lambda round: states[round - 1] == "committed")
    np.testing.assert_allclose(history.params, expected, rtol=1e-6)


def test_the_manifest_says_the_rule_and_requires_the_feature():
    settings = Settings().replace(codec="raw32", downlink="raw32", span=1)
    plain = manifest_of(settings, "fleet", "0" * 16, MODEL.plan)
    assert plain.local is None and not plain.requires and b"local" not in plain.raw.replace(b"local_mode", b"")


def test_a_rule_goes_over_the_wire_and_a_slot_of_it_depends_on_the_receipt():
    manifest = make_manifest(local=LocalRule("broken"), requires=["local"])
    assert decode(Manifest, encode(manifest), 60_000).local == manifest.local and "local" in FEATURES
    assert manifest.keeps_slots and not make_manifest().keeps_slots
    session, _ = reporting(manifest=manifest)
    assert of(feed(session, receipt()), MarkCounted) == [MarkCounted(1)]
    session, _ = reporting()
    assert of(feed(session, receipt()), MarkCounted) == []


@pytest.mark.parametrize(
    "rule", [LocalRule("other"), LocalRule("os:system"[:2]), LocalRule("drift", {"to": 1.0})], ids=str
)
def test_a_device_refuses_a_rule_that_it_does_not_know_and_says_so(rule):
    with pytest.raises(UsageError, match="update EdgeFL here"):
        local.get(rule)
    session, _ = fetching()
    give(session, make_manifest(local=rule))
    assert "local rule" in session.status.trouble.text and session.terms is None


def test_the_owners_bound_on_computing_counts_what_the_rule_does():
    plain, drifting = make_manifest(), make_manifest(local=LocalRule("drift", {"by": 1.0}))
    assert flops_of(drifting, 10) == 3 * flops_of(plain, 10)


@pytest.mark.parametrize(
    ("name", "option", "bad"),
    [
        ("fedrep", "head_epochs", -1.0), ("fedrep", "head_epochs", 0.5), ("fedrep", "head_epochs", 1e308),
        ("fine-tune", "epochs", -1.0), ("fine-tune", "lr", -0.1), ("ditto", "lam", -1.0), ("apfl", "alpha", 1.5),
        ("fedcm", "alpha", 0.0), ("feddyn", "alpha", -1.0),
    ],
)  # fmt: skip
def test_options_that_would_make_light_of_the_owners_bound_are_refused(name, option, bad):
    """A pass less than none would make the whole round cost nothing under [policy] max_flops."""
    with pytest.raises(UsageError, match=option):
        local.get(LocalRule(name, {option: bad}))
    session, _ = fetching()
    give(session, make_manifest(local=LocalRule(name, {option: bad})))
    assert option in session.status.trouble.text and session.terms is None
