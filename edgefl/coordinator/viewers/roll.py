"""Roll: what is known of each device, as viewers see it. No I/O. Part of RoundCoordinator.

A device has a row if it has announced itself, or is enrolled. The row is made when it is wanted, from the device's
status and from what is kept here: when its state began, when it was last heard, and what the rounds that are over say
of it. That is restored from the records of the newest rounds, so sums begin with the oldest of these.

Devices stay on the page that they were put on, so that a change of one device changes one page.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterable

import msgspec

from ...history_record import SPENT, RoundRecord, without_name
from ...machine import WallClock
from ...protocol.fleet import (
    ABSENT,
    MAX_PAGES,
    MAX_PAST,
    MAX_TROUBLED,
    MOST,
    PAGE_DEVICES,
    DeviceRow,
    PastRound,
    plain,
    word,
)
from ...protocol.messages import Status
from ..devices.presence import Presence
from ..updates.admission import Admission

OWNERS = ("budget", "hours")  # codes of trouble that is the owner's wish
NONE, FULL = -1, -2
MOST_STATES = 15  # that are counted apart
COUNTS = (*SPENT, "evaluated")  # states of rounds in which reports count


class Entry(msgspec.Struct, gc=False):
    """What is kept of a device. `page` is NONE if it has no row, FULL if no page has room; `was` is its last status."""

    page: int = NONE
    was: Status | None = None
    since: int = 0
    seen: int = 0
    counted: int = 0
    times: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    model: int = 0
    missed: str = ""

    @property
    def listed(self) -> bool:
        return self.page != NONE

    @property
    def in_records(self) -> bool:
        """Whether a round that is over says anything of the device."""
        return bool(self.times or self.bytes_up or self.bytes_down or self.missed)


class Roll:
    """`past` has the newest rounds that are over, newest first. `pages` counts those in use."""

    def __init__(
        self, presence: Presence, admission: Admission, clock: WallClock, enrolled: Iterable[str] = ()
    ) -> None:
        self.past: deque[PastRound] = deque(maxlen=MAX_PAST)
        self.dirty: set[int] = set()
        self._presence, self._admission, self._clock = presence, admission, clock
        self._out: dict[str, str] = {}  # devices that were barred or paused at the last look, and why
        self._entries: dict[str, Entry] = {}
        self._pages: list[list[str]] = []
        self._room: set[int] = set()  # pages that are not full
        self._enrolled: set[str] = set()
        self.enrol(enrolled)

    # What happens

    def enrol(self, devices: Iterable[str]) -> set[int]:
        """These devices are enrolled, and no others; without keys none is. Returns the pages that others were on."""
        before, self._enrolled = self._enrolled, set(devices)
        for device in sorted(self._enrolled - before):
            self._list(device)
        gone = before - self._enrolled
        pages = {self._entries[device].page for device in gone if device in self._entries}
        for device in gone:
            self._look(device)
        return pages

    def heard(self, device: str, now: float, *, retained: bool) -> None:
        """A message of the device was read; `retained`: the broker has kept it, so it proves nothing of now."""
        if device not in self._presence.statuses:
            self._look(device)
            return
        entry, unix_s = self._list(device), max(0, round(self._clock.shown(now) or 0))
        if not retained:
            entry.seen = unix_s or entry.seen
        status = self._presence.statuses[device]
        if entry.was is None or (entry.was.state, entry.was.code) != (status.state, status.code):
            entry.since = 0 if retained else unix_s
        entry.was = status
        self._touch(entry)

    def learn(self, record: RoundRecord, asked: int | None = None) -> None:
        """A round is over that has asked so many devices; None: it is restored from its record."""
        entries = {device: self._entry(device) for device in record.devices} if record.state in COUNTS else {}
        for entry in entries.values():
            entry.counted, entry.model, entry.missed = record.round, record.base, ""
            entry.seen = record.closed_at if asked is None else entry.seen
        for device in [*entries, *(device for device, _ in record.folded if record.state in SPENT)]:
            self._entry(device).times += 1
        for device, (up, down) in record.traffic.items():
            entry = self._entry(device)
            entry.bytes_up = min(MOST, entry.bytes_up + up)
            entry.bytes_down = min(MOST, entry.bytes_down + down)  # as the device says
            self._touch(entry)
        for device, why in record.missed.items():
            entry = self._entry(device)
            entry.missed = plain(why)
            self._touch(entry)
        self.past.appendleft(_past(record, asked or 0))

    def look(self) -> None:
        """Find out which devices were barred, paused or let in since the last look."""
        now = {**self._presence.paused, **self._admission.barred}
        for device, _ in now.items() ^ self._out.items():
            if (entry := self._entries.get(device)) is not None:
                self._touch(entry)
        self._out = now

    def drop(self, device: str) -> int:
        """Nothing is known of the device any more; it has a row only if it is enrolled. Returns the page that it was
        on; negative: on none."""
        cut = [msgspec.structs.replace(past, why=without_name(past.why, device)) for past in self.past]
        self.past = deque(cut, maxlen=MAX_PAST)
        page = self._entries[device].page if device in self._entries else NONE
        self._unlist(device)
        self._entries.pop(device, None)
        self._look(device)
        return page

    # What is shown

    @property
    def pages(self) -> int:
        return len(self._pages)

    def rows(self) -> list[DeviceRow]:
        """All devices, by name."""
        return [self.row(device) for device in sorted(self._entries) if self._entries[device].listed]

    def page(self, number: int) -> list[DeviceRow]:
        """The devices of a page, by name."""
        return [self.row(device) for device in sorted(self._pages[number])]

    def row(self, device: str) -> DeviceRow:
        """The row of a device that has one."""
        entry, status = self._entries[device], self._presence.statuses.get(device) or Status(ABSENT, 0)
        return DeviceRow(
            device, word(status.state), word(status.code), plain(status.reason), entry.since, entry.seen,
            status.num_examples, entry.counted, entry.times, entry.bytes_up, entry.bytes_down, word(status.agent),
            entry.model, status.celsius, entry.missed, self._admission.barred.get(device, ""),
            self._presence.paused.get(device, ""),
        )  # fmt: skip

    def states(self) -> Counter[str]:
        """How many devices are in each state, the rarest ones together: devices can make up any number of states."""
        statuses = self._presence.statuses
        counts = Counter(
            word(statuses[device].state) if device in statuses else ABSENT
            for device, entry in self._entries.items()
            if entry.listed
        )
        rare = counts.most_common()[MOST_STATES:]
        for state, _ in rare:
            del counts[state]
        if rare:
            counts["other"] += sum(number for _, number in rare)
        return counts

    def troubled(self) -> list[DeviceRow]:
        """The devices that need an operator most, at most MAX_TROUBLED."""
        found = ((self._rank(device, entry), device) for device, entry in self._entries.items() if entry.listed)
        worst = heapq.nsmallest(MAX_TROUBLED, ((rank, device) for rank, device in found if rank is not None))
        return [self.row(device) for _, device in worst]

    def _rank(self, device: str, entry: Entry) -> int | None:
        """How much the device needs an operator, 0 most; None: it does not."""
        status = self._presence.statuses.get(device)
        if device in self._admission.barred:
            return 0
        if device in self._presence.paused:
            return None
        if status is None:
            return 4
        if status.state == "trouble":
            return None if status.code in OWNERS else 1
        if status.state == "lost":
            return 2
        return 3 if entry.missed and status.present else None

    # Entries and pages

    def _entry(self, device: str) -> Entry:
        """What is kept of the device, which is not kept if there is no more room."""
        entry = self._entries.get(device)
        if entry is None:
            entry = Entry()
            if len(self._entries) < 2 * self._presence.most:
                self._entries[device] = entry
        return entry

    def _look(self, device: str) -> None:
        """The device may have got a row, or lost it."""
        if device in self._enrolled:
            entry = self._list(device)
            if device not in self._presence.statuses:
                entry.was, entry.since = None, 0
            self._touch(entry)
        elif device not in self._presence.statuses:
            self._unlist(device)

    def _list(self, device: str) -> Entry:
        entry = self._entries.setdefault(device, self._entry(device))  # there are not more than presence lets in
        if not entry.listed:
            entry.page = self._page_with_room()
            if entry.page >= 0:
                page = self._pages[entry.page]
                page.append(device)
                if len(page) == PAGE_DEVICES:
                    self._room.remove(entry.page)
            self._touch(entry)
        return entry

    def _page_with_room(self) -> int:
        if self._room:
            return min(self._room)
        if len(self._pages) >= MAX_PAGES:
            return FULL
        self._pages.append([])
        self._room.add(len(self._pages) - 1)
        return len(self._pages) - 1

    def _unlist(self, device: str) -> None:
        entry = self._entries.get(device)
        if entry is None or not entry.listed:
            return
        self._touch(entry)
        if entry.page >= 0:
            self._pages[entry.page].remove(device)
            self._room.add(entry.page)
        entry.page, entry.was, entry.since = NONE, None, 0
        if not entry.in_records:
            del self._entries[device]
        while self._pages and not self._pages[-1]:
            self._pages.pop()
            self._room.remove(len(self._pages))

    def _touch(self, entry: Entry) -> None:
        if entry.page >= 0:
            self.dirty.add(entry.page)


def _past(record: RoundRecord, asked: int) -> PastRound:
    return PastRound(
        record.round, record.state, record.version, record.reported, asked or _asked(record), round(record.seconds, 3),
        record.bytes_up, min(MOST, record.bytes_down), record.accuracy, record.loss, record.closed_at,
        plain(record.why), record.device_accuracy, record.device_loss, record.personal, record.own,
        record.personal_accuracy, record.personal_loss,
    )  # fmt: skip


def _asked(record: RoundRecord) -> int:
    """How many devices the round asked, as far as its record tells: those of a draw are not known."""
    rule = msgspec.json.decode(record.cohort)
    return len(rule) if isinstance(rule, list) else len({*record.devices, *record.missed}) if rule is None else 0
