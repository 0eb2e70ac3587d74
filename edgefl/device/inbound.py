"""Inbound: what a message to a device says, from its topic and bytes. Part of DeviceSession; no I/O."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from ..errors import ProtocolError
from ..machine import Received
from ..protocol.features import unknown_features
from ..protocol.inbox import Inbox, Judge, Missing, Receipt
from ..protocol.manifest import Manifest, manifest_id
from ..protocol.messages import RETAINED_LIMIT, decode
from ..protocol.round import Round
from ..protocol.topics import ModelTopic, Topics


class ModelPart(Struct, frozen=True):
    """A retained part of a model, still in its envelope."""

    topic: ModelTopic
    payload: bytes


class Unsupported(Struct, frozen=True):
    """A manifest, with this id, or a round (None), which requires features that this version does not know."""

    manifest: str | None
    features: list[str]

    @property
    def why(self) -> str:
        what = "round" if self.manifest is None else "manifest"
        features = ", ".join(self.features)
        return f"{what} refused: it requires {features}, which EdgeFL here does not know: update it"


Message: TypeAlias = Manifest | Round | Receipt | Missing | Judge | ModelPart | Unsupported


def read(topics: Topics, device: str, event: Received) -> Message:
    """The message of `event`; ProtocolError says what is wrong with it."""
    topic, payload = event.topic, event.payload
    if topic == topics.manifest:
        if unknown := unknown_features(payload):  # read first: the rest may mean anything
            return Unsupported(manifest_id(payload), unknown)
        return decode(Manifest, payload, RETAINED_LIMIT)
    if topic == topics.round:
        if unknown := unknown_features(payload):
            return Unsupported(None, unknown)
        return decode(Round, payload, RETAINED_LIMIT)
    if topic == topics.inbox(device):
        message: Receipt | Missing | Judge = decode(Inbox, payload)  # type: ignore[arg-type]
        return message
    if where := topics.model_part(topic):
        return ModelPart(where, payload)
    raise ProtocolError("nothing is expected there: dropped")
