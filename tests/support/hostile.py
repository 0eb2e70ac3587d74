"""A simulated fleet in which one device is hostile: what it publishes is rewritten on its way to the aggregator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import edgefl
from edgefl.coordinator.signing import Open
from edgefl.core.accumulator import MAX_WEIGHT
from edgefl.history import History
from edgefl.machine import Received
from edgefl.protocol.envelope import Envelope, Kind
from edgefl.protocol.parts import Splitter
from edgefl.protocol.update_header import UpdateHeader
from edgefl.simulation import fleet, simulate
from edgefl.simulation.fleet import AGGREGATOR

HOSTILE = "dev-0"


class Battle(fleet.Fleet):
    """`attack` is given what the hostile device reports, and the params of this round and the one before; it returns
    what is reported instead: examples and delta."""

    attack: Callable[[UpdateHeader, np.ndarray, list[np.ndarray]], tuple[int, np.ndarray]]
    flood: Callable[[Battle, str, bytes], list[tuple[str, bytes]]] | None = None
    models: list[np.ndarray]
    made: Battle

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        type(self).made = self
        self.models = []

    def _deliver(self, client: str, topic: str, payload: bytes) -> None:
        if client == AGGREGATOR and f"/d/{HOSTILE}/u/" in topic:
            payload = self._rewritten(payload)
            for extra in [] if self.flood is None else self.flood(topic, payload):
                self.feed_later(client, Received(*extra))
        super()._deliver(client, topic, payload)

    def _rewritten(self, payload: bytes) -> bytes:
        """The update in one part, with what the attack makes of it."""
        part = Envelope.from_bytes(payload)
        assert part.parts == 1
        machine = self.hosts[AGGREGATOR].machine
        if not self.models or machine.params is not self.models[-1]:
            self.models.append(machine.params)
        header = UpdateHeader.from_bytes(part.data)
        codec = machine._codec
        delta = codec.decode(memoryview(part.data)[header.size :], len(machine.params))
        examples, delta = type(self).attack(header, delta, self.models)
        assert 1 <= examples <= MAX_WEIGHT
        header = UpdateHeader(examples, header.steps, header.loss, header.train_ms, header.bytes_down)
        blob = header.to_bytes() + codec.encode(np.asarray(delta, np.float32))
        splitter = Splitter(
            blob, 2**20 - 48, kind=Kind.UPDATE, codec=codec.wire_id, federation=part.federation, round=part.round,
            version=part.version,
        )  # fmt: skip
        assert splitter.parts == 1
        return splitter.part(0)


def fight(monkeypatch, attack, *, signed=True, rounds=30, devices=5, flood=None, **options) -> History:
    """`rounds` rounds of digits, in which HOSTILE reports what `attack` says. `signed`: as if updates were."""
    fleet_of = type("Fight", (Battle,), {"attack": staticmethod(attack), "flood": flood})
    monkeypatch.setattr(simulate, "Fleet", fleet_of)
    monkeypatch.setattr(Open, "signed", signed)
    return edgefl.simulate(
        "mlp:64-32-10", "digits", devices=devices, rounds=rounds, seed=1, codec="raw32", part_bytes=2**20, **options
    )
