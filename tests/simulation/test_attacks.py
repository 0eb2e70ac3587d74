"""Attacks of simulated devices: what each one sends, that it counts within the round, and that admission takes it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import edgefl
from edgefl.errors import UsageError
from edgefl.simulation.devices import attacks
from edgefl.simulation.devices.adversary import MARGIN_S, Adversary
from edgefl.simulation.devices.attacks import KINDS, Attack, Known, craft, furthest
from edgefl.simulation.devices.faults import Faults

RNG = np.random.default_rng(4)
HONEST = RNG.normal(size=(7, 30)).astype(np.float32)
MEAN, STD = HONEST.mean(0, dtype=np.float64), HONEST.std(0, dtype=np.float64)


def run(attack: str, **options):
    usual = {"devices": 10, "rounds": 3, "seed": 1, "codec": "raw32", "downlink": "raw32", "epochs": 3, "lr": 0.2}
    return edgefl.simulate("mlp:64-16-10", "digits", faults=attack and f"attack:{attack}", **{**usual, **options})


def known(judge=lambda delta: 0.0, capped=lambda delta: delta) -> Known:
    return Known(lambda: iter(HONEST), judge, capped, 9)


@pytest.mark.parametrize("kind", KINDS)
def test_every_attack_has_a_default_size_and_a_place_in_the_help(kind):
    assert Faults.parse(f"slow:0.1,attack:{kind}:0.2").attack == Attack(kind, 0.2, KINDS[kind].size)
    assert Faults.parse(f"attack:{kind}:0.2:3").attack == Attack(kind, 0.2, 3.0)
    assert kind in attacks.HELP
    assert kind == "label-flip" or kind in attacks.RULES


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("attack", "unknown attack ''"), ("attack:alei:0.2", "did you mean 'alie'"), ("attack:alie", "wants numbers"),
        ("attack:alie:1", "share from 0"), ("attack:alie:0.2:0", "positive number"), ("attack:alie:0.2:1:1", "one"),
        ("attack:alie:x", "write attack:alie:0.2"), ("attack:alie:0.1,attack:ipm:0.1", "a run has one attack"),
    ],
)  # fmt: skip
def test_a_spec_that_makes_no_sense_is_refused(spec, why):
    with pytest.raises(UsageError, match=why):
        Faults.parse(spec)


def test_what_each_attack_sends():
    expected = {
        "sign-flip": -3 * MEAN, "ipm": -3 * MEAN, "alie": MEAN + 3 * STD, "mimic": HONEST[2], "inf": np.full(30, 1e30)
    }  # fmt: skip
    for kind, delta in expected.items():
        np.testing.assert_allclose(craft(Attack(kind, 0.2, 3.0), known()), delta, rtol=1e-5)
    assert (craft(Attack("mimic", 0.2, 99.0), known()) == HONEST[6]).all()
    noise = craft(Attack("gaussian", 0.2, 10.0), known())
    assert 0.5 < np.linalg.norm(noise) / np.linalg.norm(10 * MEAN) < 2
    assert (noise == craft(Attack("gaussian", 0.2, 10.0), known())).all()


def test_the_best_size_is_found_by_what_the_result_shows():
    for best in (0.6, 3.0, 37.0, 500.0):
        assert abs(furthest(lambda c, best=best: -((c - best) ** 2), 20) - best) < 0.15 * best
    assert furthest(lambda c: -c, 20) == 0.0
    tried = []
    furthest(lambda c: tried.append(c) or min(c, 30.0), 6)
    assert tried == [0.0, 2.0, 6.0, 14.0, 30.0, 62.0]

    def judge(delta: np.ndarray) -> float:  # a rule that ignores whatever is more than 4 σ away
        away = np.abs(delta - MEAN) / STD
        return float(away.max() if away.max() <= 4 else 0)

    delta = craft(Attack("opt-alie", 0.2, 30.0), known(judge))
    assert 3.8 < float(((delta - MEAN) / STD).max()) <= 4


def test_what_is_tried_is_what_would_be_sent():
    """Beyond what admission takes, a larger size does no more harm."""
    tried = []

    def capped(delta: np.ndarray) -> np.ndarray:
        return delta * min(1.0, 5.0 / max(1e-9, np.linalg.norm(delta)))

    craft(Attack("opt-ipm", 0.2, 20.0), known(lambda delta: tried.append(np.linalg.norm(delta)) or 0.0, capped))
    assert len(tried) == 20
    assert max(tried) <= 5.001


@pytest.fixture
def crafted(monkeypatch):
    """What is crafted in each round: the attack, the honest deltas that the adversary has seen, its own."""
    seen = []

    def spied(attack, facts):
        delta = craft(attack, facts)
        seen.append((list(facts.honest()), delta))
        return delta

    monkeypatch.setattr("edgefl.simulation.devices.adversary.craft", spied)
    return seen


@pytest.mark.parametrize("options", [{}, {"partition": "dirichlet:0.3"}, {"codec": "ecq"}])
def test_attackers_see_all_honest_updates_and_count_in_the_same_round(crafted, options):
    history = run("sign-flip:0.3", **options)
    assert [len(honest) for honest, _ in crafted] == [7, 7, 7]
    assert [(record.reported, record.rejected) for record in history.rounds] == [(10, 0)] * 3
    honest, delta = crafted[0]
    np.testing.assert_allclose(delta, -np.mean(honest, axis=0), rtol=1e-4, atol=1e-7)


def test_when_attackers_report():
    """After the last honest device, before a goal is reached, and not after one that takes for ever."""
    tally = SimpleNamespace(goal=None)
    adversary = Adversary(Attack("ipm", 0.4, 2.0), ["a", "b", "c", "d", "e"], 1, SimpleNamespace(tally=tally))
    one, other = sorted(adversary.attackers)
    honest = sorted({"a", "b", "c", "d", "e"} - adversary.attackers)
    for device, lasts_s in [(one, 5.0), (other, 9.0), *zip(honest, (8.0, 20.0, 900.0), strict=True)]:
        adversary.begins(device, 3, 100.0, lasts_s)
    asked = SimpleNamespace(round=3)
    assert [adversary.reports_at(device, asked) for device in honest] == [0.0] * 3
    assert adversary.reports_at(one, asked) == 120.0 + MARGIN_S
    for tally.goal, expected in ((3, 108.0 - MARGIN_S), (4, 120.0 - MARGIN_S), (5, 120.0 + MARGIN_S)):
        assert adversary.reports_at(other, asked) == expected


def test_attackers_that_must_be_early_use_the_updates_of_the_round_before(crafted):
    sizes = [64] * 7 + [8] * 3  # the attackers could be first
    adversary = Adversary(Attack("ipm", 0.3, 2.0), [f"dev-{i}" for i in range(10)], 1, None)
    order = sorted((f"dev-{i}" for i in range(10)), key=lambda name: name in adversary.attackers)

    def few(dataset, argument, devices, rng):
        starts = np.cumsum([0, *(size for _, size in sorted(zip(order, sizes, strict=True)))])
        return np.split(np.arange(starts[-1]), starts[1:-1])

    history = run("ipm:0.3", goal=3, over_select=4.0, partition=few)
    assert all(adversary.attackers == set(record.devices) for record in history.rounds)
    assert [len(honest) for honest, _ in crafted] == [7, 7]


def test_attackers_do_not_wait_for_a_device_that_hangs(crafted):
    history = run("alie:0.3,hung:0.1", deadline_s=60.0)
    assert all(len(record.devices) >= 9 for record in history.rounds)
    assert all(len(honest) >= 6 for honest, _ in crafted)


@pytest.mark.parametrize("kind", ["inf", "opt-ipm", "gaussian"])
def test_i28_no_attack_is_refused_and_none_counts_more_than_its_bound(kind):
    """Where influence is bounded, attackers stay within the bound, in the first round too."""
    history = run(f"{kind}:0.2", influence=1.5, rounds=8)
    assert [(record.state, record.rejected, record.reported) for record in history.rounds] == [("committed", 0, 10)] * 8
    assert any(record.lowered for record in history.rounds)


@pytest.mark.parametrize("strategy", ["fedavg", "fednova"])
def test_attackers_go_as_far_as_admission_lets_them(strategy):
    """In FedNova, where that is a length by the step."""
    record = run("inf:0.2", influence=1.5, strategy=strategy, rounds=2).rounds[1]
    norms = sorted(norm for _, norm in record.influence.values())
    assert len(norms) == 10 and not record.rejected
    assert norms[8] > 10 * norms[4]


def test_attacks_do_harm_to_a_mean_and_are_the_same_bits_for_any_workers():
    honest = run("", rounds=6).final.accuracy
    for kind in ("sign-flip:0.4", "opt-alie:0.2", "inf:0.1", "gaussian:0.2:50"):
        assert run(kind, rounds=6).final.accuracy < honest - 0.05, kind
    for kind in ("gaussian:0.2", "label-flip:0.3", "opt-alie:0.2:5"):
        assert (run(kind, workers=1).params == run(kind, workers=2).params).all(), kind


def test_wrong_labels_change_what_attackers_learn_and_nothing_else():
    honest, wrong = run(""), run("label-flip:0.3")
    assert (honest.params != wrong.params).any()
    assert honest.final.bytes_up == wrong.final.bytes_up
    assert [record.num_examples for record in wrong.rounds] == [record.num_examples for record in honest.rounds]


def test_an_attack_that_can_not_be_is_refused():
    data = edgefl.data.load("digits", seed=1)
    floats = edgefl.data.Dataset(data.x_train, data.y_train.astype(np.float32)[:, None], None, None)
    with pytest.raises(UsageError, match="needs integer labels"):
        edgefl.simulate("mlp:64-8-1", floats, devices=4, rounds=1, faults="attack:label-flip:0.5")
    with pytest.raises(UsageError, match="name it"):
        run("opt-alie:0.2", strategy=edgefl.strategies.get("fedavg"))
