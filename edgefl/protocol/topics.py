"""Topics: where each message lives, under `edgefl/v1/{federation}/`. Identity comes from here, never from a payload.

An ACL (access control list) needs three patterns: a device writes below `device/{its id}/`, reads its
`inbox`, and reads `manifest`, `round` and `model/#`. Seven slashes at most, which AWS IoT Core asks for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import ProtocolError, UsageError

ROOT = "edgefl/v1"
_DEVICE_ID = re.compile(r"[a-z0-9-]{1,23}")  # what every MQTT 3.1.1 broker accepts as a client id, in one case
_FEDERATION = re.compile(r"[a-z0-9-]{1,48}")
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,9})")


def check_device_id(device: str) -> str:
    """`device` itself if it is fit for a topic and an MQTT client id; UsageError otherwise."""
    if not _DEVICE_ID.fullmatch(device):
        raise UsageError(f"device id {device!r} must be 1 to 23 of a-z, 0-9 and '-': choose another")
    return device


def check_federation(federation: str) -> str:
    """`federation` itself if it is fit for a topic; UsageError otherwise."""
    if not _FEDERATION.fullmatch(federation):
        raise UsageError(f"federation name {federation!r} must be 1 to 48 of a-z, 0-9 and '-': choose another")
    return federation


class UpdateTopic(NamedTuple):
    """What `device/{device}/update/{round}/{part}` says."""

    device: str
    round: int
    part: int


@dataclass(frozen=True)
class ModelTopic:
    """What `model/{version}/{part}` says, or with `delta` `model/{version}/delta/{part}`."""

    version: int
    delta: bool
    part: int


class Topics:
    """All topics of one federation."""

    def __init__(self, federation: str) -> None:
        self.base = f"{ROOT}/{check_federation(federation)}"
        self.manifest = f"{self.base}/manifest"
        self.round = f"{self.base}/round"
        self.aggregator = f"{self.base}/aggregator"
        self.any_status = f"{self.base}/device/+/status"
        self._devices = f"{self.base}/device/"
        self._model_part = re.compile(f"{re.escape(self.base)}/model/({_NUMBER.pattern})/(delta/)?({_NUMBER.pattern})")
        self.any_update = f"{self.base}/device/+/update/+/+"
        number = f"({_NUMBER.pattern})"
        device = f"{re.escape(self.base)}/device/({_DEVICE_ID.pattern})"
        self._update_part = re.compile(f"{device}/update/{number}/{number}")

    def model(self, version: int, part: int) -> str:
        return f"{self.base}/model/{version}/{part}"

    def delta(self, version: int, part: int) -> str:
        return f"{self.base}/model/{version}/delta/{part}"

    def status(self, device: str) -> str:
        return f"{self.base}/device/{device}/status"

    def inbox(self, device: str) -> str:
        return f"{self.base}/device/{device}/inbox"

    def update(self, device: str, round: int, part: int) -> str:
        return f"{self.base}/device/{device}/update/{round}/{part}"

    def model_part(self, topic: str) -> ModelTopic | None:
        """Which part of which model version `topic` is, if it is one of this federation."""
        found = self._model_part.fullmatch(topic)
        return ModelTopic(int(found[1]), found[2] is not None, int(found[3])) if found else None

    def device_of(self, topic: str) -> str | None:
        """The device id that a topic below `device/` belongs to."""
        if not topic.startswith(self._devices):
            return None
        device = topic[len(self._devices) :].split("/", 1)[0]
        return device if _DEVICE_ID.fullmatch(device) else None

    def parse_update(self, topic: str) -> UpdateTopic:
        """The parsed update topic; ProtocolError if it is none."""
        found = self._update_part.fullmatch(topic)
        if found is None:
            raise ProtocolError(f"{topic[:120]!r} is no topic of an update's part: dropped")
        return UpdateTopic(found[1], int(found[2]), int(found[3]))
