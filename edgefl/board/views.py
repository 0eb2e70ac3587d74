"""Views: what the page and `/api` show, made from the fleet's messages (protocol/fleet.py). No I/O.

The structs are the documented contract of `/api`; openapi.py describes them. Fields that have their default are left
out of the JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from ..protocol.fleet import ABSENT, DeviceRow, Summary
from ..viewer.remedy import problem, remedy

Tone = Literal["good", "busy", "rest", "bad", "gone"]
MOST_DEVICES = 200  # rows in one answer
TONES: dict[str, Tone] = {
    "ready": "good",
    "training": "busy",
    "paused": "rest",
    "trouble": "bad",
    "disconnected": "gone",
    "lost": "gone",
    ABSENT: "gone",
}
_RANK: dict[Tone, int] = {"bad": 0, "gone": 1, "rest": 2, "busy": 3, "good": 3}


class Device(DeviceRow, frozen=True, omit_defaults=True, gc=False, kw_only=True):
    """A device's row, with a `tone` for its state, its `problem`, and a `remedy`: what the operator can do."""

    tone: Tone = "good"
    problem: str = ""
    remedy: str = ""


class Devices(msgspec.Struct, frozen=True):
    """A page of the fleet: `devices` from `offset` on, of `matching` that the search and `show` leave of `total`.
    `shown` counts the devices for each choice of `show`."""

    total: int
    matching: int
    offset: int
    shown: dict[str, int]
    devices: list[Device]


class Version(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model that the aggregator keeps: the round that made it (0: the model file's own), and its scores."""

    version: int
    round: int = 0
    closed_at: int = 0
    accuracy: float | None = None
    loss: float | None = None
    restored: int | None = None
    tags: list[str] = []
    current: bool = False


class Versions(msgspec.Struct, frozen=True):
    """The kept models, newest first."""

    versions: list[Version]


class Overview(msgspec.Struct, frozen=True, omit_defaults=True):
    """The federation now. `now` is the server's clock, in seconds after the start of 1970. `attention` has the
    summary's troubled devices, with what to do about them; `accuracy` and `loss` are the newest model's. `connected`:
    to the MQTT broker. `live`: false in a report, of which `made_from` tells. `actions`: whether there is a server that
    carries them out."""

    summary: Summary
    now: float
    attention: list[Device] = []
    accuracy: float | None = None
    loss: float | None = None
    connected: bool = False
    live: bool = False
    actions: bool = False
    made_from: str = ""


class Answer(msgspec.Struct, frozen=True):
    """What became of an action, in words."""

    done: bool
    text: str


def device(row: DeviceRow) -> Device:
    """The row with its tone and remedy."""
    fields = {name: getattr(row, name) for name in DeviceRow.__struct_fields__}
    return Device(**fields, tone=tone(row), problem=problem(row), remedy=what_to_do(row))


def what_to_do(row: DeviceRow) -> str:
    """The remedy as the page words it: with its own buttons in place of commands."""
    if row.barred:
        return "find out why in the aggregator's log, then release it"
    return "resume it when it may take part again" if row.paused else remedy(row)


def tone(row: DeviceRow) -> Tone:
    """How a device is, at a glance."""
    if row.barred:
        return "bad"
    if row.paused:
        return "rest"
    return TONES.get(row.state, "bad")


def devices(rows: Sequence[DeviceRow], *, show: str = "", search: str = "", offset: int = 0, limit: int) -> Devices:
    """A page of the fleet, devices that need an operator first, then by name.

    `show` is "" for all, "attention", "barred", "paused", or a state; `search` is a part of an id.
    """
    shown = {"": len(rows), "attention": 0, "barred": 0, "paused": 0}
    found = []
    for row in rows:
        kinds = kinds_of(row)
        for kind in kinds:
            shown[kind] = shown.get(kind, 0) + 1
        if (not show or show in kinds) and search.lower() in row.id.lower():
            found.append(row)
    found.sort(key=lambda row: (_RANK[tone(row)], row.id))
    page = found[offset : offset + min(limit, MOST_DEVICES)]
    return Devices(len(rows), len(found), offset, shown, [device(row) for row in page])


def kinds_of(row: DeviceRow) -> set[str]:
    """The choices of `show` that this device is among, beside "all"."""
    kinds = {row.state}
    if row.barred:
        kinds.add("barred")
    if row.paused:
        kinds.add("paused")
    if tone(row) in ("bad", "gone"):
        kinds.add("attention")
    return kinds


def overview(summary: Summary, now: float, newest: Version | None, *, connected: bool) -> Overview:
    """What a running aggregator shows of itself."""
    attention = [device(row) for row in summary.troubled]
    scores = (None, None) if newest is None else (newest.accuracy, newest.loss)
    return Overview(summary, now, attention, *scores, connected, live=True, actions=True)


def versions(
    kept: Sequence[int], made: Callable[[int], Version], tags: Mapping[int, list[str]] | None = None
) -> Versions:
    """The versions that are kept, oldest first; `made` says what is known of one. The newest is in use."""
    named = tags or {}
    replace = msgspec.structs.replace
    return Versions([replace(made(n), current=n == kept[-1], tags=named.get(n, [])) for n in reversed(kept)])


def find(rows: Iterable[DeviceRow], name: str) -> Device | None:
    """The device of this id."""
    return next((device(row) for row in rows if row.id == name), None)
