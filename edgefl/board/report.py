"""Report: the data of the page for a run that is over, or was until now, from its records. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import tee
from typing import Any

import msgspec

from ..history import Run
from ..history_costs import Cost, costs, spent
from ..history_record import SPENT, RoundRecord
from ..history_text import size
from ..protocol.fleet import Summary
from . import views
from .rounds import Past

MOST_DEVICES = 5000
VERSIONS = 100
COUNTS = (*SPENT, "evaluated")  # states of rounds in which reports count


class _Seen(msgspec.Struct):
    """What the records say of a device."""

    counted: int = 0
    times: int = 0
    seen: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    missed: str = ""


class Devices:
    """What the records say of each device; those that came after the first MOST_DEVICES are left out."""

    def __init__(self) -> None:
        self.is_full = False  # some are left out
        self._seen: dict[str, _Seen] = {}
        self._barred: dict[str, str] = {}

    def add(self, record: RoundRecord) -> None:
        self._barred = record.barred
        for device in record.devices if record.state in COUNTS else ():
            seen = self._of(device)
            seen.counted, seen.seen, seen.missed = record.round, record.closed_at, ""
            seen.times += 1
        for device, (up, down) in record.traffic.items():
            seen = self._of(device)
            seen.bytes_up += up
            seen.bytes_down += down
        for device, why in record.missed.items():
            self._of(device).missed = why

    def _of(self, device: str) -> _Seen:
        if device not in self._seen and len(self._seen) >= MOST_DEVICES:
            self.is_full = True
            return _Seen()
        return self._seen.setdefault(device, _Seen())

    def page(self) -> views.Devices:
        """All of them, those that missed their last round first."""
        rows = [self._row(device, seen) for device, seen in self._seen.items()]
        rows.sort(key=lambda row: (row.tone == "good", row.id))
        return views.Devices(len(rows), len(rows), 0, {"": len(rows)}, rows)

    def _row(self, device: str, seen: _Seen) -> views.Device:
        barred = self._barred.get(device, "")
        state = "missed" if seen.missed else "counted"
        tone: views.Tone = "bad" if barred else "gone" if seen.missed else "good"
        return views.Device(
            device, state, counted=seen.counted, times=seen.times, seen=seen.seen, bytes_up=seen.bytes_up,
            bytes_down=seen.bytes_down, missed=seen.missed, barred=barred, tone=tone,
            problem=barred or seen.missed,
        )  # fmt: skip


class Best:
    """The model with the best accuracy on the test set, and what it took until it was there."""

    def __init__(self) -> None:
        self._accuracy = 0.0
        self._cost: Cost | None = None

    def seen(self, records: Iterable[RoundRecord]) -> Iterator[RoundRecord]:
        """The same records, each looked at."""
        first, second = tee(records)
        for record, cost in zip(first, costs(second), strict=True):
            if record.has_new_model and record.accuracy is not None and record.accuracy > self._accuracy:
                self._accuracy, self._cost = record.accuracy, cost
            yield record

    def told(self) -> str:
        """A sentence with a space before it; "" if no model was tested."""
        if self._cost is None:
            return ""
        after = spent(self._cost.seconds, self._cost.joules)
        return f" The best accuracy, {self._accuracy:.4f}, came with round {self._cost.round}, after {after}."


def report(name: str, records: Iterable[RoundRecord], run: Run | None, now: float) -> dict[str, Any]:
    """What the page holds of a run called `name`."""
    past, devices, best = Past(), Devices(), Best()
    for record in best.seen(records):
        past.add(record)
        devices.add(record)
    fleet, newest = devices.page(), past.newest
    version = 0 if newest is None else newest.version
    states = {state: sum(row.state == state for row in fleet.devices) for state in ("counted", "missed")}
    edgefl = "" if run is None else run.versions.get("edgefl", "")
    summary = Summary(name, "", int(now), "done", past.last, version, total=fleet.total, states=states, edgefl=edgefl)
    told = _told(past, run) + best.told()
    if devices.is_full:
        told += f" Only the first {MOST_DEVICES} devices are listed."
    scores = (None, None) if newest is None else (newest.accuracy, newest.loss)
    return {
        "overview": views.Overview(summary, now, [], *scores, made_from=told),
        "devices": fleet,
        "rounds": past.rounds(),
        "curves": past.curves(),
        "versions": _versions(past, version),
    }


def _versions(past: Past, newest: int) -> views.Versions:
    numbers = range(max(1, newest - VERSIONS + 1), newest + 1)
    made = views.versions(numbers, past.version)
    return views.Versions([version for version in made.versions if version.round])


def _told(past: Past, run: Run | None) -> str:
    """The run in two sentences."""
    totals = past.totals
    rounds = sum(totals.rounds.values())
    text = (
        f"{totals.rounds.get('committed', 0)} of {rounds} rounds were committed, with {size(totals.bytes_up)} up and "
    )
    text += f"{size(totals.bytes_down)} down."
    if run is None:
        return text
    settings = run.settings
    how = f"strategy {settings.strategy.name}, codec {settings.codec.name} up and {settings.downlink.name} down"
    return f"{text} {how[0].upper()}{how[1:]}."
