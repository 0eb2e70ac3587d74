"""The state folder of an aggregator that has run for months, and what a start in it costs.

    python tests/support/long_history.py FOLDER --rounds 10000 --devices 2000

FOLDER then holds start.onnx, aggregator.toml and state/. `--old` leaves all records in the database too, as version
0.1.0 did. The script prints time and memory of a start there, beside those of a start in an empty folder.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgefl import load
from edgefl.history_files import HistoryFiles
from edgefl.history_record import RoundRecord
from edgefl.hosting.store import seal
from edgefl.onnx import zoo
from edgefl.settings.render import dump

START = """
import sys, time
from edgefl_broker.aggregator import Aggregator
from edgefl_broker.progress import Silent
from edgefl.hosting.config import AggregatorConfig
from edgefl.settings import files
imported = time.process_time()
Aggregator(files.load(sys.argv[1], AggregatorConfig, []), Silent())
print(time.process_time() - imported, open("/proc/self/status").read())
"""


class Cost(NamedTuple):
    """Of a start, after the imports: processor seconds, and VmHWM in 10^6 bytes."""

    seconds: float
    peak_mb: float


def records(rounds: int, devices: int) -> Iterator[RoundRecord]:
    """A committed record for each round, with traffic of every device."""
    names = [f"device-{i:04d}" for i in range(devices)]
    traffic = msgspec.Raw(msgspec.json.encode({name: (4321, 87654) for name in names}))
    times = msgspec.Raw(msgspec.json.encode(dict.fromkeys(names, 12.3)))
    for round in range(1, rounds + 1):
        yield RoundRecord(
            round, "committed", round, devices, names, 600 * devices, 0.5, 4321 * devices, 87654 * devices, 60.0,
            by_device=traffic, attempt=1, by_time=times,
        )  # fmt: skip


def write(folder: Path, rounds: int, devices: int, *, old: bool = False, **settings: object) -> Path:
    """The folder of a federation after so many rounds; returns its aggregator.toml."""
    from edgefl_broker.round_rows import KEPT_RECORDS
    from edgefl_broker.store import AggregatorStore

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "start.onnx").write_bytes(zoo.mlp([4, 8, 3], seed=1).SerializeToString())
    table = {
        "federation": "long", "model": str(folder / "start.onnx"), "state_dir": str(folder / "state"),
        "loss": "cross_entropy", "mqtt": {"url": "mqtt://127.0.0.1:1"}, **settings,
    }  # fmt: skip
    config = folder / "aggregator.toml"
    config.write_text(dump(table))
    if not rounds:
        return config
    model = load(folder / "start.onnx", "cross_entropy")
    store = AggregatorStore(folder / "state")
    store.resume(model.plan.hash, model.params)
    with store._db, open(folder / "state" / "history.jsonl", "wb") as file:
        store._db.execute("BEGIN IMMEDIATE")
        store.models.insert(rounds, model.params.astype("<f4").tobytes(), b"")
        for record in records(rounds, devices):
            line = msgspec.json.encode(record)
            file.write(line + b"\n")
            if old or record.round > rounds - KEPT_RECORDS:
                store._db.execute("INSERT INTO rounds VALUES (?, ?)", (record.round, seal(line)))
    store.close()
    return config


def cost(config: Path) -> Cost:
    """Of a start by this aggregator.toml, in a process of its own."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", START, str(config)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    peak_kb = re.search(r"VmHWM:\s+(\d+) kB", done.stdout)
    assert peak_kb is not None
    return Cost(float(done.stdout.split()[0]), int(peak_kb[1]) * 1024 / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="must not exist")
    parser.add_argument("--rounds", type=int, default=10_000, help="(%(default)s)")
    parser.add_argument("--devices", type=int, default=2_000, help="(%(default)s)")
    parser.add_argument("--old", action="store_true", help="leave all records in the database too")
    options = parser.parse_args()
    fresh = cost(write(options.folder / "fresh", 0, 0))
    config = write(options.folder / "long", options.rounds, options.devices, old=options.old)
    for name in ("history.jsonl", "aggregator.db"):
        print(f"{name}: {(options.folder / 'long' / 'state' / name).stat().st_size / 1e6:.0f} MB")
    print("fresh: {:.2f} s, {:.1f} MB".format(*fresh))
    for _ in range(2):  # the second start finds the files that the first one has mended
        print("long:  {:.2f} s, {:.1f} MB".format(*cost(config)))
    files = HistoryFiles(options.folder / "long" / "state", 1e9)
    print(f"{sum(1 for _ in files.records())} records can be read")
    shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()
