"""Rounds of devices that send an update's parts as they are asked for."""

from __future__ import annotations

from machines import TOPICS, feed, of, open_round, update_parts

from edgefl.machine import Publish
from edgefl.protocol.inbox import Inbox, Missing
from edgefl.protocol.messages import decode

PART = 256  # 16 of them are an update


def parts_of(device):
    return update_parts(device, part_bytes=PART)


def requests(actions) -> dict[str, list[int]]:
    """The parts that each device is asked for."""
    words = ((TOPICS.device_of(a.topic), decode(Inbox, a.payload)) for a in of(actions, Publish) if "inbox" in a.topic)
    return {device: word.parts for device, word in words if isinstance(word, Missing)}


def many(count, **config):
    """A round of so many devices that each sends only its first part unasked."""
    devices = [f"d{i:04}" for i in range(count)]
    return devices, open_round(*devices, deadline_s=1e6, **config)


def serve(coordinator, actions, now):
    """Devices send what they are asked for, until nothing more is; all that was done."""
    out = list(actions)
    while asked := requests(actions):
        actions = feed(coordinator, *(parts_of(d)[i] for d, wanted in asked.items() for i in wanted), now=now)
        out += actions
    return out
