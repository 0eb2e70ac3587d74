"""Control messages: JSON, typed, bounded, readable with `mosquitto_sub -t 'edgefl/#' -v`.

    manifest    retained  aggregator -> devices   what the federation trains, and how: manifest.py
    round       retained  aggregator -> devices   the round that is open, or that all is done: round.py
    aggregator  retained  aggregator to itself    Claim: which one has the federation
    status      retained  device -> aggregator    Status: presence; also the will
    inbox       -         aggregator -> device    inbox.py

They can grow. A receiver ignores fields that it does not know. A field that has its default is left out, so defaults
never change. What a device must know is named first (features.py). Only the plan is strict: its version says what the
core must know.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from ..errors import ModelError, ProtocolError
from ..settings.sections import Count, Positive

CONTROL_LIMIT = 8 * 1024
RETAINED_LIMIT = 60 * 1024  # Azure Event Grid keeps no retained message above 64 KB

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}\\Z")]
Run = Annotated[str, Meta(pattern="^([0-9a-f]{16})?\\Z")]  # "" where keys are off
Reason = Annotated[str, Meta(max_length=500)]

T = TypeVar("T")


class KeepsBytes(msgspec.Struct, frozen=True, dict=True):
    """A message whose bytes count, and not only what this version reads in them."""

    @cached_property
    def raw(self) -> bytes:
        """The bytes as they are published, or as they came: these may hold fields that this version does not know."""
        return encode(self)


PRESENT = ("ready", "training")
FAREWELLS = ("lost", "disconnected")
STARTS = 2**20  # distance between the first boot numbers of two starts, with room for so many connections


class Status(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A device's presence: ready, training, paused, trouble, disconnected or lost. A device in a state that this side
    does not know is not present. `boot` is the number of the start times `STARTS`, plus the connections before in that
    start.

    "paused" is the owner's wish, "trouble" the device's own; `reason` says more, and `code` is one of trouble.CODES.
    `max_bytes` is what the owner's byte budget allows the update of the round that it trains for; 0: no limit.
    `fresh`: its data have changed since they last counted, as far as it knows; told where rounds ask for new data only.
    `agent` is the version of its software, and `celsius` what its processor's sensor last said; both are only shown.
    """

    state: Annotated[str, Meta(max_length=32)]
    boot: Annotated[int, Meta(ge=0, le=2**53)]
    num_examples: Count = 0
    reason: Reason = ""
    code: Annotated[str, Meta(max_length=16)] = ""
    max_bytes: Count = 0
    fresh: bool = True
    agent: Annotated[str, Meta(max_length=32)] = ""
    celsius: Annotated[int, Meta(ge=-100, le=300)] | None = None

    @property
    def present(self) -> bool:
        return self.state in PRESENT

    @property
    def is_farewell(self) -> bool:
        """Whether a connection ends with it."""
        return self.state in FAREWELLS

    def is_older_than(self, known: Status) -> bool:
        """Whether it is of an earlier connection than what is known of the same device: a late will, or a message that
        was repeated. Boot numbers rise, but a device whose disk was restored or wiped counts again, from an earlier
        start or from the same one. So only a farewell is always older. Any other status is if it is of the same start,
        and the device is known to be present: at worst, one that was wiped in its first start is asked for a while
        though it is paused or gone, while a late will that is believed hides one that is there."""
        if self.boot >= known.boot:
            return False
        return self.is_farewell or (known.present and self.boot // STARTS == known.boot // STARTS)


class Claim(msgspec.Struct, frozen=True):
    """Which aggregator has the federation (coordinator/fence.py). `run` and `attempt` are the manifest's and the
    round's; each process draws an `instance`, and `connection` counts its connections.
    """

    run: Annotated[str, Meta(pattern="^[0-9a-f]{16}\\Z")]
    attempt: Positive
    instance: Annotated[str, Meta(pattern="^[0-9a-f]{16}\\Z")]
    connection: Count
    state: Literal["asking", "holding", "released"]


def encode(message: msgspec.Struct) -> bytes:
    """The JSON bytes of one control message."""
    return msgspec.json.encode(message)


def decode(kind: type[T], payload: bytes, limit: int = CONTROL_LIMIT) -> T:
    """Parse and bound one control message; ProtocolError says what is wrong with it."""
    if len(payload) > limit:
        raise ProtocolError(f"control message of {len(payload)} bytes, at most {limit}: dropped")
    try:
        message = msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, ModelError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"malformed control message ({str(error)[:200]!r}): dropped") from None
    if isinstance(message, KeepsBytes):
        message.__dict__["raw"] = bytes(payload)
    return message


# msgspec completes its description of a type when the type is first used. If a second thread uses the type meanwhile (a
# process may run several agents), it reads an incomplete description, and the process dies of a segmentation fault. So
# each file here uses its types once at import.
for _kind in (Status, Claim):
    msgspec.json.Decoder(_kind)
