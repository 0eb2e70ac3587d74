"""FleetShelf: what a simulated fleet reads once for all its devices: rounds, manifests, models and their parts.

What was read is kept by the bytes that it was read from, so it is what each device would have read itself.
"""

from __future__ import annotations

from typing import TypeVar

from ...core.params import DIGEST
from ...device import inbound
from ...device.shelf import Proven, Shelf
from ...machine import Received
from ...protocol.envelope import Envelope
from ...protocol.topics import Topics

MESSAGES = 256  # the newest ones
MODELS = 4  # a device decodes the newest, and what deltas lead there from
K = TypeVar("K")
V = TypeVar("V")


class FleetShelf(Shelf):
    """Keeps the newest messages, parts and models."""

    def __init__(self) -> None:
        self._messages: dict[bytes, tuple[str, inbound.Message]] = {}
        self._parts: dict[bytes, Envelope] = {}
        self._models: dict[str, Proven] = {}

    def message(self, topics: Topics, device: str, event: Received) -> inbound.Message:
        """Messages to one device are read each time; all others once."""
        found = self._messages.get(event.payload)
        if found is not None and found[0] == event.topic:
            return found[1]
        message = inbound.read(topics, device, event)
        if topics.device_of(event.topic) is None:
            _put(self._messages, event.payload, (event.topic, message), MESSAGES)
        return message

    def envelope(self, payload: bytes) -> Envelope:
        found = self._parts.get(payload)
        if found is None:
            found = Envelope.from_bytes(payload)
            _put(self._parts, payload, found, MESSAGES)
        return found

    def model(self, digest: str) -> Proven | None:
        return self._models.get(digest)

    def keep(self, proven: Proven) -> bytes:
        digest = proven.sha256[:DIGEST]
        if digest not in self._models:
            _put(self._models, digest, proven, MODELS)
        return self._models[digest].params


def _put(kept: dict[K, V], key: K, value: V, most: int) -> None:
    """Keep a value; the one that was kept first makes room."""
    while len(kept) >= most:
        del kept[next(iter(kept))]
    kept[key] = value
