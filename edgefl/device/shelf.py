"""Shelf: what the sessions of one process may share. A device has one session, and shares nothing; no I/O.

A simulated fleet reads the same rounds, and decodes the same models, thousands of times: it keeps what was read by the
message that it was read from (simulation/hosts/shelf.py). The result is the same.
"""

from __future__ import annotations

from typing import NamedTuple

from ..machine import Received
from ..protocol.envelope import Envelope
from ..protocol.topics import Topics
from . import inbound


class Proven(NamedTuple):
    """Params (P,) little-endian float32, and their SHA-256."""

    sha256: str
    params: bytes


class Shelf:
    """Nothing is kept."""

    def message(self, topics: Topics, device: str, event: Received) -> inbound.Message:
        """What the message says; ProtocolError."""
        return inbound.read(topics, device, event)

    def envelope(self, payload: bytes) -> Envelope:
        """A part of a payload of the model; ProtocolError."""
        return Envelope.from_bytes(payload)

    def model(self, digest: str) -> Proven | None:
        """Params that were proven to have this digest."""
        return None

    def keep(self, proven: Proven) -> bytes:
        """The params, or an equal object that is shared."""
        return proven.params
