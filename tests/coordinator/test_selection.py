"""Which devices a round asks, by what their last updates said; after a restart by the same numbers."""

from __future__ import annotations

import math
import random
from collections import Counter

import msgspec
import numpy as np
import pytest
from machines import commit_of, feed, make_coordinator, make_manifest, make_update, report, round_in, run_out, status

from edgefl import simulate
from edgefl.coordinator import selection
from edgefl.coordinator.devices import cohort
from edgefl.coordinator.selection.oort import Oort, percentile
from edgefl.coordinator.selection.power_of_choice import PowerOfChoice
from edgefl.coordinator.selection.rule import Seen, weighted
from edgefl.errors import UsageError
from edgefl.history_record import RoundRecord
from edgefl.machine import Connected
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import RoundSettings

DEVICES = [f"d{i}" for i in range(10)]


def record(round, losses, times=None):
    """Of a round that committed a model; `losses` has n and the loss of each device."""
    raw = {
        "by_loss": msgspec.Raw(msgspec.json.encode(losses)),
        "by_time": msgspec.Raw(msgspec.json.encode(times or {})),
    }
    return RoundRecord(round, "committed", round, len(losses), list(losses), 1, None, 0, 0, 1.0, **raw)


def knowing(rule, losses, *, round=1, n=10, seconds=None):
    times = {} if seconds is None else dict(zip(losses, seconds, strict=True))
    rule.learn(record(round, {device: (n, loss) for device, loss in losses.items()}, times))
    return rule


def rising():
    return {device: 1.0 + place for place, device in enumerate(DEVICES)}


def test_power_of_choice_takes_the_highest_losses_of_its_candidates():
    rule = knowing(PowerOfChoice(d=10), rising())
    assert sorted(rule.choose(DEVICES, 3, 2, random.Random(0))) == ["d7", "d8", "d9"]
    few = Counter(d for seed in range(400) for d in knowing(PowerOfChoice(d=3), rising()).choose(
        DEVICES, 3, 2, random.Random(seed)
    ))  # fmt: skip
    assert min(few[device] for device in DEVICES) > 80, "of as many candidates as are asked, all are asked"
    two = Counter(
        knowing(PowerOfChoice(), rising()).choose(DEVICES, 1, 2, random.Random(seed))[0] for seed in range(900)
    )
    assert [round(two[device] / 900, 1) for device in ("d0", "d4", "d9")] == [0.0, 0.1, 0.2], "2 i / 90 of device i"


def test_power_of_choice_draws_candidates_by_their_examples_and_asks_newcomers_first():
    rule = PowerOfChoice(d=1)
    rule.learn(record(1, {device: (1000 if device == "d3" else 10, 1.0) for device in DEVICES}))
    found = Counter(rule.choose(DEVICES, 1, 2, random.Random(seed))[0] for seed in range(300))
    assert found["d3"] / 300 == pytest.approx(1000 / 1090, abs=0.05)
    rule = knowing(PowerOfChoice(d=11), rising())
    assert rule.choose([*DEVICES, "new"], 2, 2, random.Random(0)) == ["new", "d9"]


def test_a_drawing_without_replacement_by_weight():
    weights = {"a": 1.0, "b": 2.0, "c": 5.0}
    firsts = Counter(weighted(weights, 1, weights.__getitem__, random.Random(seed))[0] for seed in range(4000))
    for device, weight in weights.items():
        assert firsts[device] / 4000 == pytest.approx(weight / 8, abs=0.03)
    assert sorted(weighted(weights, 3, weights.__getitem__, random.Random(0))) == ["a", "b", "c"]


def test_oort_scores_by_loss_and_size_and_slow_devices_less():
    """The formula of its docstring, by hand."""
    rule = Oort(alpha=2.0)
    losses = {"a": (10, 4.0), "b": (20, 1.0), "c": (10, 1.0), "d": (10, 0.0)}
    rule.learn(record(5, losses, {"a": 10.0, "b": 20.0, "c": 40.0, "d": 10.0}))
    scores = rule._scores(list(losses), 8)
    uncertain = math.sqrt(0.1 * math.log(8) / 5)
    slow = {"b": (10 / 20) ** 2, "c": (10 / 40) ** 2}  # the 30th percentile of the four times is 10 s
    for device, utility in (("a", 1.0), ("b", 0.5), ("c", 0.25), ("d", 0.0)):
        assert scores[device] == pytest.approx((utility + uncertain) * slow.get(device, 1.0)), device


def test_oort_explores_less_and_less_and_never_less_than_its_least():
    def explored(round):
        rule = knowing(Oort(explore=0.9, least=0.2), rising(), round=round - 1)
        fresh = [f"new-{i}" for i in range(30)]
        return sum(device.startswith("new") for device in rule.choose(DEVICES + fresh, 10, round, random.Random(0)))

    assert (explored(2), explored(20), explored(500)) == (9, 7, 2)
    assert len(knowing(Oort(), rising()).choose([*DEVICES, "x", "y"], 11, 2, random.Random(0))) == 11
    assert len(set(Oort().choose(DEVICES, 4, 1, random.Random(0)))) == 4, "at first, all are new"


def test_oort_asks_for_slower_devices_where_the_others_have_taught_what_they_can():
    rule = Oort()
    for round in range(1, 61):
        loss = 1.0 if round <= 20 else 0.5 if round <= 40 else 0.4
        rule.learn(record(round, {d: (10, loss) for d in DEVICES}, {d: 1.0 + i for i, d in enumerate(DEVICES)}))
    assert [rule._preferred_s(round) for round in (21, 41, 61)] == [3.0, 4.0, 4.0]
    assert percentile([1, 2, 3, 4], 50) == 2 and percentile([], 30) == 0


def test_i13_a_device_that_has_not_reported_for_a_hundred_rounds_is_new_again():
    for rule in (PowerOfChoice(), Oort()):
        knowing(rule, {"old": 1.0}, round=1)
        knowing(rule, {"d1": 1.0}, round=90)
        rule.choose(DEVICES, 3, 101, random.Random(0))
        assert set(rule.seen) == {"old", "d1"}
        rule.choose(DEVICES, 3, 102, random.Random(0))
        assert set(rule.seen) == {"d1"}


def test_the_loss_of_a_late_update_is_learned_and_the_newest_counts():
    rule = PowerOfChoice()
    knowing(rule, {"a": 2.0}, round=3, seconds=[4.0])
    assert rule.seen["a"] == Seen(3, 10, 2.0, 4.0)
    rule.forget("a")
    assert rule.seen == {}


SELECTING = {"selection": "power-of-choice:d=4", "fraction": 0.5, "min_reports": 1}


def played(coordinator, losses):
    """One round: the devices that it asks report these losses; whom it asked, and its record."""
    asked = coordinator.tally.opening.asked
    out = []
    for device in asked:
        blob = make_update(0.0, loss=losses[device])
        out += report(coordinator, device, round=coordinator.round, version=coordinator.version, blob=blob)
    return set(asked), (commit_of(out) or commit_of(run_out(coordinator))).record


def test_rounds_ask_what_the_rule_chooses_and_a_restart_goes_on_by_the_records():
    losses = {"a": 1.0, "b": 4.0, "c": 3.0, "d": 2.0}
    coordinator = make_coordinator(**SELECTING)
    feed(coordinator, *map(status, losses), Connected())
    first, one = played(coordinator, losses)
    second, two = played(coordinator, losses)
    assert second == set(losses) - first, "newcomers come first"
    assert one.losses == {device: (5, losses[device]) for device in first}
    third, three = played(coordinator, losses)
    assert third == {"b", "c"}
    records = [msgspec.json.decode(msgspec.json.encode(r), type=RoundRecord) for r in (one, two, three)]
    start = {"round": 4, "version": 3, "attempt": 2, "recent": records}
    again = make_coordinator(params=coordinator.params, start=start, **SELECTING)
    message = round_in(feed(again, *map(status, losses), Connected()))
    assert sorted(message.cohort) == ["b", "c"]
    assert again.selection.seen == coordinator.selection.seen


def test_without_a_rule_records_have_no_losses():
    coordinator = make_coordinator(fraction=0.5, min_reports=1)
    feed(coordinator, *map(status, "abcd"), Connected())
    _, found = played(coordinator, dict.fromkeys("abcd", 1.0))
    assert found.losses == {} and b"losses" not in msgspec.json.encode(found)


def test_a_round_that_only_evaluates_asks_each_alike_and_teaches_no_loss():
    """The losses of training stay what they were."""
    losses = dict(zip("abcdefgh", range(1, 9), strict=True))
    manifest = make_manifest(holdout=0.5)
    coordinator = make_coordinator(
        manifest=manifest, **SELECTING | {"evaluate_every": 3, "selection": "power-of-choice"}
    )
    feed(coordinator, *map(status, losses), Connected())
    for _ in range(2):
        played(coordinator, losses)
    seen, blob = dict(coordinator.selection.seen), UpdateHeader(0, 0, 0.0, 0, 1, 5, 0.5, 0.5).to_bytes()
    assert len(seen) == 8
    asked = coordinator.tally.opening.asked
    out = [action for device in asked for action in report(coordinator, device, round=3, version=2, blob=blob)]
    record = (commit_of(out) or commit_of(run_out(coordinator))).record
    assert (record.state, record.losses, coordinator.selection.seen) == ("evaluated", {}, seen)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"selection": "power-of-chance"}, "did you mean 'power-of-choice'"),
        ({"selection": "oort:beta=1"}, "the options of oort are alpha, explore, least"),
        ({"selection": "uniform:d=3"}, "uniform"),
        ({"selection": "power-of-choice:d=0"}, "d is 0"),
        ({"selection": "oort:least=2"}, "least is 2"),
        ({"selection": "oort", "fraction": 1.0}, "leave nothing to select"),
        ({"selection": "oort", "cohort": "draw"}, 'rounds.cohort = "list"'),
        ({"selection": "oort", "mode": "async", "goal": 3}, "asynchronous rounds ask every device"),
    ],
)
def test_what_can_not_be_is_refused_at_the_start(settings, what):
    with pytest.raises(UsageError, match=what):
        cohort.check(RoundSettings(**{"fraction": 0.5} | settings))


def test_every_rule_has_a_name_and_its_options():
    for name, rule in selection.RULES.items():
        made = selection.of(RoundSettings(selection=name, fraction=0.5))
        assert type(made) is rule and rule.OPTIONS


def test_rare_labels_are_learned_sooner_where_devices_with_a_high_loss_are_asked():
    """Nine devices of ten have two easy labels, one of ten has the other eight. The losses that these report bring them
    into more rounds, without a poll."""

    def partition(dataset, argument, devices, rng):
        order = np.argsort(dataset.y_train, kind="stable")
        easy, hard = order[dataset.y_train[order] < 2], order[dataset.y_train[order] >= 2]
        hard = hard[rng.permutation(len(hard))][:200]
        return [*np.array_split(rng.permutation(easy), devices - 5), *np.array_split(hard, 5)]

    def accuracy(selection):
        found = []
        for seed in (0, 1):
            history = simulate(
                "mlp:64-32-10", "digits", devices=50, rounds=25, partition=partition, fraction=0.1,
                selection=selection, seed=seed, codec="raw32", downlink="raw32",
            )  # fmt: skip
            found += [record.accuracy for record in history.rounds[-10:]]
        return np.mean(found)

    plain = accuracy("uniform")
    assert accuracy("power-of-choice:d=25") > plain + 0.08 < accuracy("oort")
