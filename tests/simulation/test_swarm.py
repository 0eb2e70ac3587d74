"""Thousands of devices at once, over a real mosquitto with the limits that it has by default."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from brokers import Mosquitto, eventually
from daemons import Federation, Running
from edgefl_broker.aggregator import Aggregator
from swarm import Swarm

from edgefl import codecs
from edgefl.coordinator.updates.pace import Pace
from edgefl.protocol.update_header import UpdateHeader

DEVICES = 2000
P = 4 * 8 + 8 + 8 * 3 + 3  # of the federation's model
BLOB = UpdateHeader(5, 1, 0.5, 10, 0).to_bytes() + codecs.get("raw32").encode(np.full(P, 0.25, np.float32))
DROPPED = "Outgoing messages are being dropped"  # by mosquitto, which queues 1,000 for a client


def aggregate(federation: Federation) -> Running:
    rounds = {"rounds": 1, "deadline_s": 60.0, "min_reports": DEVICES, "expect": DEVICES}
    return federation.aggregator(rounds=rounds, codec={"name": "raw32", "part_bytes": 256})  # an update has two parts


@pytest.mark.parametrize("first", ["devices", "aggregator"])
def test_i13_two_thousand_devices_at_once_are_all_counted_and_overflow_nothing(tmp_path: Path, first: str) -> None:
    with Mosquitto() as broker:
        federation = Federation(tmp_path, broker.url, "swarm")
        early = aggregate(federation) if first == "aggregator" else None
        with Swarm(broker.port, "swarm", DEVICES, BLOB) as swarm:
            if early is None:
                eventually(lambda: swarm.shown == DEVICES, 20.0)
            running = early or aggregate(federation)
            assert running.join(30.0), "the round did not end"
        (record,) = running.host.history.rounds
        assert (record.reported, record.rejected) == (DEVICES, 0)
        assert record.seconds < 15.0, "updates got lost, and came when their devices' patience ended"
        assert DROPPED not in broker.log


def test_without_flow_control_the_broker_drops_what_it_has_acknowledged(tmp_path: Path, monkeypatch) -> None:
    """That the test above can fail, and why. The aggregator is slow, as the swarm may be on a machine that is busy."""
    monkeypatch.setattr(Pace, "spread_s", lambda self, asked, deadline_s: 0.0)
    monkeypatch.setattr(Pace, "unasked", lambda self, asked: 65535)
    answer = Aggregator._answer
    monkeypatch.setattr(Aggregator, "_answer", lambda self: (time.sleep(0.01), answer(self)))
    with Mosquitto() as broker:
        federation = Federation(tmp_path, broker.url, "swarm")
        aggregate(federation)
        with Swarm(broker.port, "swarm", DEVICES, BLOB):
            eventually(lambda: DROPPED in broker.log, 20.0)
        federation.close()
