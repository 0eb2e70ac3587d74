"""JournalSlots: the slots that simulated devices hold at a checkpoint, and those that tasks under way began with.

Each slot is written once, when it is first held, and deleted when nothing holds it any more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from ...device.slots import Slot
from ..hosts.disk import Disk
from ..tasks.slot_file import SlotFile, whole
from ..tasks.task import Task

SCHEMA = """
CREATE TABLE slots (
    serial INTEGER PRIMARY KEY, owner TEXT NOT NULL, round INTEGER NOT NULL, blob BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE held (
    place TEXT, name TEXT, serial INTEGER NOT NULL, PRIMARY KEY (place, name)) WITHOUT ROWID;
"""
Held = dict[tuple[str, str], Slot]  # (place, slot's name) -> slot; a place is "device=" or "device+", or a task's


class JournalSlots:
    """The tables of a journal that hold slots. A transaction is its caller's."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._written: dict[
            int, tuple[int, Slot]
        ] = {}  # id of a slot -> its serial; the slot, so that the id stays its
        self._held: dict[tuple[str, str], int] = {}
        self._serial = 0

    def write(self, disks: Mapping[str, Disk], tasks: Mapping[str, Task]) -> None:
        """What is held now."""
        held = {key: self._serial_of(slot) for key, slot in _all(disks, tasks).items()}
        gone = [key for key in self._held if key not in held]
        news = [(*key, serial) for key, serial in held.items() if self._held.get(key) != serial]
        self._database.executemany("DELETE FROM held WHERE place = ? AND name = ?", gone)
        self._database.executemany("INSERT OR REPLACE INTO held VALUES (?, ?, ?)", news)
        self._held, used = held, set(held.values())
        unused = [key for key, (serial, _) in self._written.items() if serial not in used]
        serials = [(self._written.pop(key)[0],) for key in unused]
        self._database.executemany("DELETE FROM slots WHERE serial = ?", serials)

    def put_back(self, disks: Mapping[str, Disk], tasks: Mapping[str, Task], file: SlotFile) -> None:
        """Give devices and tasks, after a replay, the slots that they held; `file` takes their bytes."""
        rows = self._database.execute("SELECT serial, owner, round, blob, crc FROM slots")
        slots = {serial: file.keep(Slot(*fields)) for serial, *fields in rows}
        self._written = {id(slot): (serial, slot) for serial, slot in slots.items()}
        self._serial = max(slots, default=0)
        places: dict[str, dict[str, Slot]] = {}
        for place, name, serial in self._database.execute("SELECT place, name, serial FROM held"):
            places.setdefault(place, {})[name] = slots[serial]
            self._held[place, name] = serial
        for device, disk in disks.items():
            disk.put_back(places.get(f"{device}=", {}), places.get(f"{device}+", {}))
        for place, task in tasks.items():
            task.slots = places.get(place, {})

    def _serial_of(self, slot: Slot) -> int:
        if id(slot) not in self._written:
            self._serial += 1
            self._written[id(slot)] = self._serial, slot
            row = (self._serial, slot.owner, slot.round, whole(slot).blob, slot.crc)
            self._database.execute("INSERT INTO slots VALUES (?, ?, ?, ?, ?)", row)
        return self._written[id(slot)][0]


def _all(disks: Mapping[str, Disk], tasks: Mapping[str, Task]) -> Held:
    held: Held = {}
    for device, disk in disks.items():
        current, new = disk.held()
        held |= {(f"{device}=", name): slot for name, slot in current.items()}
        held |= {(f"{device}+", name): slot for name, slot in new.items()}
    for place, task in tasks.items():
        held |= {(place, name): slot for name, slot in task.slots.items()}
    return held
