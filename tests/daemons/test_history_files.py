"""The aggregator's records on disk: appended, mended, bounded in bytes, and never read whole at a start."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import get_origin, get_type_hints

import long_history
import msgspec
import pytest

from edgefl import history_files
from edgefl.history_files import HistoryFiles, NewRecords, iter_records, last_record, read_records
from edgefl.history_record import DETAIL, RoundRecord

LIMIT = 400_000
DEVICES = 20  # a record takes 1 kB; its sums 0.3 kB


def total(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def line(record: RoundRecord) -> bytes:
    return msgspec.json.encode(record) + b"\n"


def filled(folder: Path, rounds: int, limit: float = LIMIT) -> HistoryFiles:
    files = HistoryFiles(folder, limit)
    for record in long_history.records(rounds, DEVICES):
        files.append(record)
    return files


def test_i13_the_files_stay_below_their_limit_however_many_rounds_there_are(tmp_path: Path) -> None:
    files, most = HistoryFiles(tmp_path, LIMIT), 0
    for record in long_history.records(5000, DEVICES):
        files.append(record)
        most = max(most, total(tmp_path))
    kept = list(files.records())
    assert LIMIT / 2 < most <= LIMIT + len(line(kept[-1]))
    numbers = [record.round for record in kept]
    assert numbers == list(range(numbers[0], 5001)), "the oldest are gone, and no other is"
    detailed = [record for record in kept if record.devices]
    assert [r.round for r in detailed] == numbers[-len(detailed) :] and len(detailed) > LIMIT / 2 / 1200
    sums = kept[0]
    assert (sums.devices, sums.traffic, sums.reported, sums.bytes_up) == ([], {}, DEVICES, 4321 * DEVICES)
    assert files.last() == kept[-1]


def test_everything_that_a_record_has_of_each_device_is_detail() -> None:
    of_each = (list, dict, tuple, msgspec.Raw)
    kinds = get_type_hints(RoundRecord).items()
    assert {name for name, kind in kinds if (get_origin(kind) or kind) in of_each} == set(DETAIL)
    (record,) = long_history.records(1, 2)
    assert len(line(record.without_detail())) < 500


def test_a_start_appends_what_is_missing_and_rewrites_nothing(tmp_path: Path) -> None:
    files = filled(tmp_path, 5)
    path = tmp_path / "history.jsonl"
    before, inode = path.read_bytes(), path.stat().st_ino
    records = list(long_history.records(7, DEVICES))
    with open(path, "ab") as file:
        file.write(line(records[5])[:40])  # the power went
    files.mend(records[3:])
    assert path.read_bytes() == before + line(records[5]) + line(records[6])
    assert path.stat().st_ino == inode
    files.mend(records)
    assert read_records(path) == records == list(files.records())


@pytest.mark.parametrize("torn", [b"", b'{"round":', b"\0" * 200_000])
def test_a_first_line_that_was_torn_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "history.jsonl").write_bytes(torn)
    records = list(long_history.records(2, 1))
    HistoryFiles(tmp_path, LIMIT).mend(records)
    assert (tmp_path / "history.jsonl").read_bytes() == line(records[0]) + line(records[1])


def assert_no_gap(files: HistoryFiles) -> None:
    """Every round from the oldest to the newest is there once."""
    numbers = [record.round for record in files.records()]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))


@pytest.mark.parametrize("fails", ["replace", "unlink"])
def test_a_kill_while_records_move_to_the_sums_loses_and_doubles_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    class Killed(Exception):
        pass

    def kill(*_: object) -> None:
        raise Killed

    kills = 0
    for record in long_history.records(2500, DEVICES):
        files = HistoryFiles(tmp_path, LIMIT)
        with monkeypatch.context() as patch:
            if kills < 3:
                patch.setattr(Path, fails, kill)
            try:
                files.append(record)
            except Killed:
                kills += 1
                assert_no_gap(files)
        files.mend([record])
    assert kills == 3 and files.last() == record
    assert_no_gap(files)
    assert total(tmp_path) <= LIMIT + 2000


def test_the_last_record_is_read_from_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.jsonl"
    records = list(long_history.records(300, 1000))  # each takes 41 kB
    path.write_bytes(b"".join(map(line, records)) + b"not a record\n" + line(records[0])[:500])
    read = []

    def counted(*args: int) -> bytes:
        block = os_pread(*args)
        read.append(len(block))
        return block

    os_pread = os.pread
    monkeypatch.setattr(history_files.os, "pread", counted)
    assert last_record(path) == records[-1]
    assert sum(read) <= 3 * history_files.BLOCK_BYTES
    assert last_record(tmp_path / "none.jsonl") is None


def test_new_records_are_read_once_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    new, records = NewRecords(tmp_path), list(long_history.records(4, 1))
    assert list(new) == []
    path.write_bytes(line(records[0]) + line(records[1])[:9])
    assert list(new) == records[:1]
    with open(path, "ab") as file:
        file.write(line(records[1])[9:] + b"{rubbish}\n" + line(records[2]))
    assert list(new) == records[1:3]
    assert list(new) == []


def test_new_records_go_on_when_the_file_gets_a_number(tmp_path: Path) -> None:
    """Whenever that is: between two looks, or just before the next file is there."""
    files, new, seen = HistoryFiles(tmp_path, LIMIT), NewRecords(tmp_path), []
    for record in long_history.records(300, DEVICES):
        files.append(record)
        if record.round % 7 == 0 or not (tmp_path / "history.jsonl").exists():
            seen += [r.round for r in new]
    seen += [r.round for r in new]
    assert len(list(tmp_path.iterdir())) > 10
    assert seen == list(range(1, 301))


def test_a_damaged_line_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = list(long_history.records(3, 1))
    path = tmp_path / "history.jsonl"
    path.write_bytes(line(records[0]) + b"{rubbish}\n" + line(records[2]))
    assert list(iter_records(path)) == [records[0], records[2]]
    assert f"line 2 of {path} is damaged" in caplog.text


@pytest.mark.parametrize("old", [False, True], ids=["kept by this version", "all in the database"])
def test_i13_a_long_history_takes_no_memory_and_no_time_at_a_start(tmp_path: Path, old: bool) -> None:
    """1,000 rounds of 2,000 devices: 80 MB. `tests/support/long_history.py` does the same with 10,000 rounds."""
    fresh = long_history.cost(long_history.write(tmp_path / "fresh", 0, 0))
    config = long_history.write(tmp_path / "long", 1000, 2000, old=old)
    assert (tmp_path / "long" / "state" / "history.jsonl").stat().st_size > 80e6
    cost = long_history.cost(config)
    assert cost.peak_mb < fresh.peak_mb + 5
    assert cost.seconds < fresh.seconds + 2


def test_i13_a_start_removes_what_a_killed_process_left_half_written(tmp_path: Path) -> None:
    config = long_history.write(tmp_path, 3, 2)
    (tmp_path / "state" / ".model.onnx.77.partial").write_bytes(b"half")
    long_history.cost(config)
    assert not list((tmp_path / "state").glob(".*"))
    assert (tmp_path / "state" / "model.onnx").exists()


def test_i12_no_flipped_bit_of_the_history_stops_a_start(tmp_path: Path) -> None:
    """What can't be decoded is left out. A digit may change unnoticed; the history only decides the next round's number
    and attempt, which may rise."""
    rng, records = random.Random(3), list(long_history.records(5, 3))
    sound = b"".join(map(line, records))
    for _ in range(600):
        data, bit = bytearray(sound), rng.randrange(8 * len(sound))
        data[bit // 8] ^= 1 << bit % 8
        (tmp_path / "history.jsonl").write_bytes(data)
        files = HistoryFiles(tmp_path, LIMIT)
        files.mend(records)
        last = files.last()
        assert last is not None and last.round >= 5
        assert len(list(files.records())) >= 3
        assert len(list(iter_records(tmp_path / "history.jsonl"))) >= 3
