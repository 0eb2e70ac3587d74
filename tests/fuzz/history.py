"""The aggregator's history files, whatever is in them: what can be read is read, in order, and rounds are appended.

The input is the contents of four files, with a zero byte between them: the newest, a part, and both sums.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import msgspec

from edgefl.history_files import HistoryFiles, NewRecords
from edgefl.history_record import RoundRecord

NAMES = ("history.jsonl", "history.3.jsonl", "history.sums.jsonl", "history.sums.old.jsonl")
MOST = 4096
LONGEST = 8192
MEMORY = Path("/dev/shm")
TEMPORARY = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None, prefix="edgefl-fuzz-")
FOLDER = Path(TEMPORARY.name) / "files"


def record(round: int) -> RoundRecord:
    return RoundRecord(round, "committed", round, 2, ["dev-a", "dev-b"], 10, 0.5, 100, 100, 1.0)


def lines(*rounds: int) -> bytes:
    return b"".join(msgspec.json.encode(record(round)) + b"\n" for round in rounds)


def seeds() -> list[bytes]:
    whole = [lines(7, 8), lines(5, 6), lines(3, 4), lines(1, 2)]
    return [b"\0".join(whole), lines(1), lines(1, 2)[:-9], b"\0".join([b"", lines(9, 3), lines(4)])]


def run(data: bytes) -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    for name, content in zip(NAMES, data.split(b"\0", 3), strict=False):
        (FOLDER / name).write_bytes(content)
    files, new = HistoryFiles(FOLDER, MOST), NewRecords(FOLDER)
    rounds = [found.round for found in files.records()]
    assert rounds == sorted(set(rounds))
    list(new)
    files.mend([record(20), record(21)])
    files.append(record(22))
    assert (last := files.last()) is not None and last.round == 22
    list(new)
    for number in range(23, 30):
        files.append(record(number))
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MOST + len(data)
