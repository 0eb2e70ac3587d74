"""A device that is gone is erased from the aggregator's disk: no byte of its name is left, and no sum changes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from edgefl_broker.forgetting import erase_claims
from edgefl_broker.store import AggregatorStore

from edgefl.coordinator.events import LateUpdate
from edgefl.history_files import HistoryFiles
from edgefl.history_record import RoundRecord

GONE = "gone-device"


def record(round: int, *devices: str) -> RoundRecord:
    traffic = msgspec.Raw(msgspec.json.encode(dict.fromkeys(devices, (100, 50))))
    return RoundRecord(
        round, "committed", round, len(devices), sorted(devices), 9, 0.5, 100, 50, 1.5, by_device=traffic,
        why=f"0 of 2 reports ({GONE}: lost 3 min ago)" if GONE in devices else "",
    )  # fmt: skip


def bytes_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_no_byte_of_its_name_is_left_in_the_folder(tmp_path: Path) -> None:
    store, files = AggregatorStore(tmp_path), HistoryFiles(tmp_path, 3000)
    for round in range(1, 30):
        made = record(round, GONE, f"{GONE}-2") if round % 2 else record(round, "b")
        store.commit(made, np.zeros(3, np.float32) if round == 1 else None)
        files.append(made)
    store.save_late(LateUpdate(GONE, 3, 2, 1, b"payload"))
    store.save_late(LateUpdate("b", 3, 2, 1, b"payload"))
    store.save_paused({"b": "winter"})
    before, sums = store.records(), [(r.round, r.reported, r.bytes_up) for r in files.records()]
    parts = sorted(path.name for path in tmp_path.glob("history*"))
    assert len(parts) >= 3
    for _ in range(2):  # it may be interrupted, and is carried out again
        store.forget(GONE)
        files.forget(GONE)
    assert GONE.encode() + b'"' not in bytes_in(tmp_path) and GONE.encode() + b":" not in bytes_in(tmp_path)
    assert [r.devices for r in store.records()][-1] == [f"{GONE}-2"], "another device is not touched"
    assert [update.device for update in store.late()] == ["b"] and store.paused() == {"b": "winter"}
    assert sorted(path.name for path in tmp_path.glob("history*")) == parts
    assert [(r.round, r.reported, r.bytes_up) for r in files.records()] == sums
    assert [r.without_device(GONE) for r in before] == store.records()
    store.forget(f"{GONE}-2")
    files.forget(f"{GONE}-2")
    store.close()
    assert GONE.encode() not in bytes_in(tmp_path)
    assert len(AggregatorStore(tmp_path).records()) == 29


def test_a_damaged_record_is_left_as_it_is(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    store.commit(record(1, GONE), None)
    store.commit(record(2, GONE), None)
    store._db.execute("UPDATE rounds SET record = CAST('{' || record AS BLOB) WHERE round = 1")
    store.forget(GONE)
    (left,) = store.records()
    assert left.round == 2 and left.devices == []


def test_requests_to_be_enrolled_that_name_it_are_deleted(tmp_path: Path) -> None:
    erase_claims(tmp_path / "claims", GONE)
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "a.json").write_text(f'batch-1\n{{"name":"{GONE}"}}')
    (tmp_path / "claims" / "b.json").write_text('batch-1\n{"name":"pi-1"}')
    erase_claims(tmp_path / "claims", GONE)
    assert [path.name for path in (tmp_path / "claims").iterdir()] == ["b.json"]
