"""Flow control: a device that never answers keeps others waiting for one turn at most, however many there are."""

from __future__ import annotations

import pytest
from flow import many, parts_of, requests
from machines import feed

from edgefl.coordinator.updates.intake import PATIENCE, QUIET_S, WINDOW
from edgefl.machine import Tick


@pytest.mark.parametrize("mute_first", [True, False])
def test_who_never_answers_holds_a_place_for_one_turn(mute_first):
    devices, coordinator = many(300, min_reports=300)
    mute, parts = set(devices[:200] if mute_first else devices[::3] + devices[1::3]), {d: parts_of(d) for d in devices}
    asked = requests(feed(coordinator, *(parts[device][0] for device in devices), now=0.0))
    now, asked_mute = 0.0, 0
    while coordinator.tally.num_counted < 100:
        asked_mute += len(mute.intersection(asked))
        answers = [parts[d][i] for d, wanted in asked.items() if d not in mute for i in wanted]
        if not answers:
            now = coordinator.wake_at
            answers = [Tick()]
        asked = requests(feed(coordinator, *answers, now=now))
    turns = -(-200 * 16 // WINDOW)
    assert now <= (turns + 1) * QUIET_S
    assert asked_mute <= 200 + WINDOW // 15  # no mute device was asked again before all others had reported


def test_who_was_quiet_has_its_turn_when_nobody_waits():
    devices, coordinator = many(40, min_reports=40)
    late, parts = set(devices[:20]), {d: parts_of(d) for d in devices}
    asked, now, turns = requests(feed(coordinator, *(parts[device][0] for device in devices), now=0.0)), 0.0, 0
    while coordinator.round == 1:
        answers = [parts[d][i] for d, wanted in asked.items() if d not in late or now >= 12.0 for i in wanted]
        if not answers:
            now, answers, turns = coordinator.wake_at, [Tick()], turns + 1
        asked = requests(feed(coordinator, *answers, now=now))
        assert turns <= PATIENCE
