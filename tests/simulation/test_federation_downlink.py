"""Compressed both ways, over real brokers: devices hold the very params that the aggregator shows."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from brokers import eventually
from daemons import Federation

NUMBERS = itertools.count(1)
TABLES = {
    "codec": {"name": "ecq:step=2"},
    "downlink": {"name": "ecq:step=4", "span": 1},
}


@pytest.mark.parametrize("span", [1, 3])
def test_deltas_on_both_brokers_and_versions(
    wire: tuple[str, str], federation: Callable[..., Federation], span: int
) -> None:
    fleet = federation(*wire)
    tables = TABLES | {"downlink": TABLES["downlink"] | {"span": span}}
    aggregator = fleet.aggregator(rounds={"rounds": 8, "deadline_s": 10.0, "min_reports": 2, "expect": 2}, **tables)
    agents = [fleet.agent(device) for device in ("dev-a", "dev-b")]
    assert aggregator.join(), "the rounds did not end"
    assert aggregator.error is None
    records = aggregator.host.history.rounds
    assert [(r.state, r.reported) for r in records] == [("committed", 2)] * 8
    assert records[-1].accuracy > 0.9
    downlink = aggregator.host.machine.announcer.downlink
    assert downlink.frames[-1].delta > 0
    for agent in agents:  # what they trained from last lies on the way to the newest
        held = agent.host.machine._part.models.held
        shown = {frame.digest for frame in downlink.frames}
        assert held and (set(held) & shown or span > 1)


def test_a_device_that_was_away_and_a_restarted_aggregator(
    embedded: object, federation: Callable[..., Federation]
) -> None:
    fleet = federation(embedded.url)  # type: ignore[attr-defined]
    rounds = {"deadline_s": 5.0, "min_reports": 1}
    first = fleet.aggregator(rounds=rounds, **TABLES)
    fleet.agent("dev-a")
    away = fleet.agent("dev-b")
    eventually(lambda: any(r.reported == 2 for r in first.host.history.rounds))
    away.stop()
    seen = len(first.host.history.rounds)
    eventually(lambda: len(first.host.history.rounds) >= seen + 5)
    fleet.agent("dev-b")
    eventually(lambda: any(r.reported == 2 for r in first.host.history.rounds[seen + 5 :]))
    first.die()
    done = len(first.host.history.rounds)
    second = fleet.aggregator(rounds={**rounds, "rounds": done + 4}, **TABLES)
    assert second.join() and second.error is None
    assert second.host.history.rounds[-1].accuracy > 0.9
