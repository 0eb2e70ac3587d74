"""Cohorts: which devices a round asks, by list or by each device's own draw, and when it has enough."""

from __future__ import annotations

import hashlib
import math

import pytest
from machines import (
    MANIFEST,
    accumulator_of,
    commit_of,
    feed,
    fetching,
    make_coordinator,
    make_round,
    of,
    report,
    round_in,
    serve,
    status,
)

from edgefl.coordinator.devices.cohort import LIST_BYTES
from edgefl.device.events import StartTraining
from edgefl.errors import UsageError
from edgefl.machine import Connected
from edgefl.protocol.messages import CONTROL_LIMIT, RETAINED_LIMIT, decode, encode
from edgefl.protocol.round import Draw, Round

DEVICES = [f"d{i}" for i in range(40)]


def opened(devices=DEVICES, start=None, **config):
    """An open round among `devices`, and its message."""
    coordinator = make_coordinator(start=start, **config)
    feed(coordinator, *map(status, devices))
    return coordinator, round_in(feed(coordinator, Connected()))


def asked(message: Round, devices=DEVICES) -> list[str]:
    return [device for device in devices if message.asks(device)]


# The draw


def test_a_draw_is_the_head_of_a_sha256_below_the_probability():
    draw = Draw(7, 0.25)
    for device in DEVICES:
        head = hashlib.sha256(f"7\n3\n{device}".encode()).digest()[:8]
        assert draw.asks(3, device) == (int.from_bytes(head, "little") / 2**64 < 0.25)
    assert all(Draw(7, 1.0).asks(3, device) for device in DEVICES)


@pytest.mark.parametrize("probability", [0.01, 0.3, 0.9])
def test_a_draw_asks_as_many_as_its_probability_says(probability):
    count, fleet = 0, 20_000
    for i in range(fleet):
        count += Draw(1, probability).asks(5, f"dev-{i}")
    assert abs(count - probability * fleet) < 5 * math.sqrt(fleet * probability * (1 - probability))


def test_every_round_and_every_seed_draws_anew():
    draws = {tuple(Draw(seed, 0.5).asks(round, d) for d in DEVICES) for seed in (1, 2) for round in (1, 2)}
    assert len(draws) == 4


def test_both_sides_make_the_same_draw():
    coordinator, message = opened(cohort="draw", fraction=0.3)
    assert message.cohort.probability == pytest.approx(0.3)
    assert set(coordinator.tally.waiting) == set(asked(message)) != set(DEVICES)
    assert decode(Round, encode(message)) == message


def test_a_draw_has_no_limit_and_takes_no_room():
    fleet = [f"dev-{i}" for i in range(4000)]
    coordinator, message = opened(fleet, cohort="draw", fraction=0.8, min_reports=2001)
    assert coordinator.tally.num_waiting > 2000
    assert len(encode(message)) < CONTROL_LIMIT


@pytest.mark.parametrize("length", [8, 64])
def test_a_list_that_does_not_fit_in_the_rounds_message_is_a_draw(length):
    """By its bytes: a name has 1 to 64 characters."""
    most = LIST_BYTES // (length + 3)
    fleet = [f"{i:0{length}d}" for i in range(most + most // 8)]
    for wanted, kind in ((most - 10, list), (most + 10, Draw)):
        coordinator, message = opened(fleet, fraction=wanted / len(fleet), min_reports=most // 2)
        assert type(message.cohort) is kind
        assert len(encode(message)) <= RETAINED_LIMIT
        assert set(coordinator.tally.waiting) == set(asked(message, fleet))
        assert abs(coordinator.tally.num_waiting - wanted) < wanted / 5


def test_i03_who_was_not_drawn_is_dropped_and_who_was_counts():
    coordinator, message = opened(cohort="draw", fraction=0.3)
    outsider = next(d for d in DEVICES if not message.asks(d))
    before = accumulator_of(coordinator)
    assert "not asked" in report(coordinator, outsider)[0].text
    assert accumulator_of(coordinator) == before
    out = [action for device in asked(message) for action in report(coordinator, device)]
    assert commit_of(out).record.devices == sorted(asked(message))


def test_a_device_that_appears_in_the_middle_draws_too():
    coordinator, message = opened(cohort="draw", fraction=0.5)
    late = [f"late{i}" for i in range(20)]
    feed(coordinator, *map(status, late))
    assert set(coordinator.tally.waiting) == {d for d in [*DEVICES, *late] if message.asks(d)}


def test_an_aggregator_that_starts_again_asks_the_same_devices():
    first, again = (opened(cohort="draw", fraction=0.3, start={"attempt": n})[1] for n in (1, 2))
    assert asked(first) == asked(again)
    assert asked(opened(cohort="draw", fraction=0.3, start={"round": 2})[1]) != asked(first)


def test_a_draw_asks_at_least_min_reports_of_those_who_are_there():
    for round in range(1, 30):
        _, message = opened(DEVICES[:6], cohort="draw", fraction=0.2, min_reports=3, start={"round": round})
        assert len(asked(message, DEVICES[:6])) >= 3


def test_a_small_fleet_is_asked_whole():
    _, message = opened(DEVICES[:2], cohort="draw", fraction=0.5, min_reports=2)
    assert message.cohort is None


@pytest.mark.parametrize("device", ["a", "b"])
def test_a_device_takes_part_only_if_its_draw_says_so(device):
    draw = next(d for d in (Draw(seed, 0.5) for seed in range(100)) if d.asks(1, "a") and not d.asks(1, "b"))
    session, out = fetching(device=device, round=make_round(cohort=draw))
    assert bool(of(serve(session, out), StartTraining)) == (device == "a")
    assert session.terms.manifest == MANIFEST


# Over-selection


@pytest.mark.parametrize("rule", ["list", "draw"])
def test_over_selection_asks_more_than_the_goal_and_closes_at_it(rule):
    coordinator, message = opened(fraction=0.25, over_select=1.3, cohort=rule)
    wanted = 13  # 1.3 * 10
    assert coordinator.tally.goal == 10
    assert len(asked(message)) == wanted if rule == "list" else message.cohort.probability == wanted / 40
    commits = [commit_of(report(coordinator, device)) for device in asked(message)[:10]]
    assert [c is not None for c in commits] == [False] * 9 + [True]
    assert commits[-1].record.reported == 10


def test_over_selection_of_a_goal():
    coordinator, message = opened(goal=5, over_select=1.5)
    assert (coordinator.tally.goal, len(message.cohort)) == (5, 8)
    coordinator, message = opened(DEVICES[:6], goal=5, over_select=1.5)
    assert len(message.cohort) == 6


def test_over_selection_of_everybody_is_refused():
    with pytest.raises(UsageError, match="goal"):
        make_coordinator(over_select=1.3)


def test_without_over_selection_a_goal_asks_everybody():
    assert opened(goal=5)[1].cohort is None
