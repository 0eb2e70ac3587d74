"""A simulated fleet in which one device is hostile: what it publishes is rewritten on its way to the aggregator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import edgefl
from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.coordinator.signing import Open
from edgefl.coordinator.updates.influence import Bound
from edgefl.history import History
from edgefl.machine import Received
from edgefl.protocol.envelope import Envelope, Kind
from edgefl.protocol.parts import Splitter
from edgefl.protocol.update_header import UpdateHeader
from edgefl.simulation import stage
from edgefl.simulation.hosts import fleet
from edgefl.simulation.hosts.fleet import AGGREGATOR

HOSTILE = "dev-0"
Messages = list[tuple[str, bytes]]


class Mind:
    """What a hostile device does. Subclasses change the examples and the delta of its report, or the messages that
    carry it; `coordinator` is the aggregator's machine, which it knows as if it had its eyes."""

    coordinator: RoundCoordinator
    step: np.ndarray  # (P,), by which the model has moved last

    def report(self, num_examples: int, delta: np.ndarray) -> tuple[int, np.ndarray]:
        return num_examples, delta

    def send(self, topic: str, payload: bytes) -> Messages:
        return [(topic, payload)]

    @property
    def bound(self) -> Bound | None:
        return self.coordinator.admission.bound


class Battle(fleet.Fleet):
    """A fleet with the `mind` in HOSTILE."""

    mind: Mind

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._params: np.ndarray | None = None

    def _deliver(self, client: str, topic: str, payload: bytes) -> None:
        if client != AGGREGATOR or f"/d/{HOSTILE}/u/" not in topic:
            super()._deliver(client, topic, payload)
            return
        for message in self.mind.send(topic, self._rewritten(payload)):
            self.feed_later(client, Received(*message))

    def _rewritten(self, payload: bytes) -> bytes:
        """An update in one part, with what the device makes of it."""
        part = Envelope.from_bytes(payload)
        assert part.parts == 1
        machine = self.hosts[AGGREGATOR].machine
        assert isinstance(machine, RoundCoordinator)
        if self._params is not machine.params:
            before = machine.params if self._params is None else self._params
            self._params, self.mind.step = machine.params, machine.params - before
        self.mind.coordinator = machine
        header = UpdateHeader.from_bytes(part.data)
        codec = machine.announcer.manifest.update_codec
        delta = codec.decode(memoryview(part.data)[header.size :], len(machine.params))
        examples, delta = self.mind.report(header.num_examples, delta)
        told = UpdateHeader(examples, header.steps, header.loss, header.train_ms, header.bytes_down)
        blob = told.to_bytes() + codec.encode(np.asarray(delta, np.float32))
        splitter = Splitter(
            blob, 2**20 - 48, kind=Kind.UPDATE, codec=codec.wire_id, federation=part.federation, round=part.round,
            version=part.version,
        )  # fmt: skip
        return splitter.part(0)


def fight(
    monkeypatch: Any, mind: Mind, *, signed: bool = True, note: Callable[..., None] = lambda *args: None, **options: Any
) -> History:
    """Thirty rounds of digits on five devices, of which HOSTILE does what `mind` says. `signed`: as if keys were on."""
    monkeypatch.setattr(stage, "Fleet", type("Fight", (Battle,), {"mind": mind}))
    monkeypatch.setattr(Open, "signed", signed)
    told = {"devices": 5, "rounds": 30, "seed": 1, "codec": "raw32", "part_bytes": 2**20} | options
    return edgefl.simulate("mlp:64-32-10", "digits", note=note, **told)
