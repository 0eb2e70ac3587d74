"""What both daemons keep on disk, damaged in any way: it is healed or refused, and what is used is sound.

The first byte chooses what the rest is: the bytes of a database file, or changes of its rows (which no checksum of
SQLite's pages or types stops), the file of an aggregator's last start, a strategy's state, or a residual.
"""

from __future__ import annotations

import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from edgefl_agent.store import AgentStore
from edgefl_broker.store import AggregatorStore
from msgspec.structs import astuple

from edgefl._core import crc32c
from edgefl.codecs import feedback
from edgefl.codecs.feedback import pack
from edgefl.coordinator.events import LateUpdate
from edgefl.device.events import Outbox
from edgefl.device.owner.budget import Spent
from edgefl.device.seen import Seen
from edgefl.device.slots import KEPT, Slot
from edgefl.errors import StoreError
from edgefl.history_record import RoundRecord
from edgefl.strategies import checkpoint

START = np.linspace(-1, 1, 20, dtype=np.float32)
SPENT = Spent(*range(1, 1 + len(Spent.__struct_fields__)))
SEEN = Seen(3, 1, "r" * 16, helpers={"north": (2, "h" * 16)}, epsilon=2.5, masked_round=7, root="f" * 16)
LONGEST = 32 * 1024
MEMORY = Path("/dev/shm")
TEMPORARY = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None, prefix="edgefl-fuzz-")
FOLDER = Path(TEMPORARY.name) / "files"
VALUES: tuple[Callable[[bytes], object], ...] = (
    lambda raw: raw,
    lambda raw: raw.decode(errors="replace"),
    lambda raw: int.from_bytes(raw[:8], "little", signed=True),
    lambda raw: struct.unpack("<d", raw[:8].ljust(8, b"\0"))[0],
    lambda raw: None,
)


def record(round: int) -> RoundRecord:
    return RoundRecord(round, "committed", round, 2, ["dev-a", "dev-b"], 10, 0.5, 100, 100, 1.0)


def left(round: int, blob: bytes | None) -> dict[str, Slot]:
    assert blob is not None
    return {name: Slot("m" * 16, round, blob, crc32c(blob)) for name in KEPT}


def write_agent(folder: Path) -> None:
    store = AgentStore(folder)
    store.count_start()
    store.save(Outbox("m" * 16, 1, 0, b"first"), left(1, pack(START.copy())))
    store.drop(applied=True)
    store.save(Outbox("m" * 16, 2, 1, b"second"), left(2, pack(START * 2)))
    store.save_spent(SPENT)
    store.save_seen(SEEN)
    store.close()


def write_aggregator(folder: Path) -> None:
    store = AggregatorStore(folder)
    store.resume("plan", START)
    store.save_attempt(3)
    store.save_late(LateUpdate("dev-a", 1, 0, 1, b"late"))
    for number in (1, 2):
        store.commit(record(number), START + number, state=checkpoint.pack("fedavgm", {"v": START}))
    store.close()


def read_agent(folder: Path) -> None:
    store = AgentStore(folder)
    try:
        assert store.count_start() >= 1
        outbox, slots = store.load(), [store.load_slot(name) for name in KEPT]
        store.load_in_model()
        seen = store.load_seen(SEEN.root)
        assert seen is None or seen.lost or seen == SEEN
        spent = store.load_spent()
        assert all(value >= 0 for value in astuple(spent))
        assert all(slot is None or (isinstance(slot.blob, bytes) and isinstance(slot.round, int)) for slot in slots)
        if outbox is not None:
            assert isinstance(outbox.blob, bytes)
            store.mark_counted(4)
        store.save(Outbox("n" * 16, 9, 8, b"new"), {})
        assert store.load() == Outbox("n" * 16, 9, 8, b"new")
        store.drop(applied=True)
        assert store.load() is None
    finally:
        store.close()


def read_aggregator(folder: Path) -> None:
    store = AggregatorStore(folder)
    try:
        state = store.resume("plan", START, record(2))
        assert state.params.shape == START.shape and state.round > 2 and state.version >= 2 and state.start > 0
        records = store.records()
        assert all(isinstance(r, RoundRecord) for r in records)
        late = list(store.late())
        store.commit(record(state.round), state.params, [(update.device, update.round) for update in late])
        store.drop_late()
        store.flush()
        assert list(store.late()) == []
        store.models.newest(len(START))
    finally:
        store.close()


WRITE = {"agent.db": write_agent, "aggregator.db": write_aggregator}
READ = {"agent.db": read_agent, "aggregator.db": read_aggregator}


@cache
def sound(name: str) -> bytes:
    """The bytes of a sound database."""
    folder = FOLDER / "sound"
    FOLDER.mkdir(exist_ok=True)
    WRITE[name](folder)
    data = (folder / name).read_bytes()
    shutil.rmtree(folder)
    return data


def read(name: str, data: bytes, attempt: bytes = b"") -> None:
    folder = FOLDER / "now"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / name).write_bytes(data)
    if attempt:
        (folder / "attempt").write_bytes(attempt)
    READ[name](folder)


def change(name: str, changes: bytes) -> None:
    """Set some columns of some rows: table, row, column, type and length, a byte each, and the value."""
    path = FOLDER / "changed.db"
    path.write_bytes(sound(name))
    database = sqlite3.connect(path, isolation_level=None)
    tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    at = 0
    while at + 5 <= len(changes) and at < 60:
        table, row, column, kind, length = changes[at : at + 5]
        value = VALUES[kind % len(VALUES)](changes[at + 5 : at + 5 + length])
        at += 5 + length
        chosen = tables[table % len(tables)]
        columns = [found[1] for found in database.execute(f"PRAGMA table_info({chosen})")]
        where = f"rowid = (SELECT rowid FROM {chosen} LIMIT 1 OFFSET ?)"
        try:
            database.execute(
                f"UPDATE {chosen} SET {columns[column % len(columns)]} = ? WHERE {where}", (value, row % 16)
            )
        except sqlite3.Error:
            continue  # SQLite itself keeps such values out
    database.close()
    read(name, path.read_bytes())


def unpack(data: bytes) -> None:
    strategy, state = checkpoint.unpack(data)
    again = checkpoint.unpack(checkpoint.pack(strategy, state))
    assert (again[0] == strategy or not state) and again[1].keys() == state.keys()


def usable(data: bytes) -> None:
    found = feedback.unpack(data, len(START))
    assert found is None or found.shape == START.shape


KINDS: tuple[Callable[[bytes], None], ...] = (
    lambda data: read("agent.db", data),
    lambda data: read("aggregator.db", data),
    lambda data: change("agent.db", data),
    lambda data: change("aggregator.db", data),
    lambda data: read("aggregator.db", sound("aggregator.db"), data),
    unpack,
    usable,
)


def seeds() -> list[bytes]:
    edits = [
        bytes([table, 0, column, kind, 2]) + b"12" for table in range(5) for column in (0, 1, 3) for kind in (0, 2)
    ]
    own = [
        (0, sound("agent.db")),
        (1, sound("aggregator.db")),
        (4, b"12~deadbeef"),
        (5, checkpoint.pack("fedadam", {"m": START, "t": np.arange(3)})),
        (6, pack(START.copy()) or b""),
        *((kind, edit) for edit in edits for kind in (2, 3)),
    ]
    return [bytes([kind]) + data for kind, data in own]


def run(data: bytes) -> None:
    if not data:
        return
    try:
        KINDS[data[0] % len(KINDS)](data[1:])
    except StoreError as error:
        assert str(error)
