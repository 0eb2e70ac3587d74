"""What a round writes to disk: bytes that reach the storage of a device and of the aggregator, and what lies there.

    python benchmarks/writes.py [--folder DIR] [--rounds N]

The stores of both daemons go through rounds of a model of 199,210 params (McMahan's 2NN), as a session and a
coordinator would have them do; `write_bytes` of /proc/self/io is read before and after. DIR must not be in memory
(tmpfs). Linux only.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from edgefl_agent.ledger import Entry
from edgefl_agent.store import AgentStore
from edgefl_broker.store import AggregatorStore

import edgefl
from edgefl import codecs
from edgefl._core import crc32c
from edgefl.codecs import feedback
from edgefl.device.events import Origin, Outbox
from edgefl.device.slots import Slot
from edgefl.history_files import HistoryFiles
from edgefl.history_record import RoundRecord
from edgefl.onnx import zoo
from edgefl.protocol.update_header import UpdateHeader

SIZES = [784, 200, 200, 10]
WARM = 10  # rounds before the first that counts
DEVICES = 100  # in a record of the aggregator's
Step = Callable[[int], None]


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("build"), metavar="DIR", help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=100, metavar="N", help="(%(default)s)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    model = edgefl.load(zoo.mlp(SIZES))
    delta = np.random.default_rng(0).normal(0, 1e-3, model.plan.num_params).astype(np.float32)
    cases: dict[str, Callable[[Path], Step]] = {
        "device, raw32": lambda folder: device(folder, "raw32", delta),
        "device, ecq": lambda folder: device(folder, "ecq", delta),
        "device, ecq, scaffold": lambda folder: device(folder, "ecq", delta, "control"),
        f"aggregator, {DEVICES} devices": lambda folder: aggregator(folder, model),
    }
    print("                           MB a round   MB on disk")
    for name, make in cases.items():
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            step, before = make(Path(folder)), 0
            for round in range(1, WARM + options.rounds + 1):
                if round == WARM + 1:
                    before = written()
                step(round)
            there = sum(path.stat().st_size for path in Path(folder).iterdir())
            print(f"{name:26} {(written() - before) / options.rounds / 1e6:10.2f} {there / 1e6:12.1f}")


def device(folder: Path, codec_name: str, delta: np.ndarray, *kept: str) -> Step:
    """A round of a device: save the update, its residual under error feedback, and the slots `kept`, as long as the
    params; drop the update when it is counted."""
    store, codec = AgentStore(folder), codecs.get(codec_name)
    header = UpdateHeader(600, 60, 0.5, 1000, 87654).to_bytes()
    payload, residual = feedback.encode(codec, delta, None) if codec.feedback else (codec.encode(delta), None)
    left = dict.fromkeys(kept, delta.tobytes())
    if residual is not None:
        left["residual"] = residual

    def step(round: int) -> None:
        outbox, origin = Outbox("m" * 16, round, round - 1, header + payload, attempt=1), Origin("0" * 64, 1.0)
        slots = {name: Slot("m" * 16, round, blob, crc32c(blob)) for name, blob in left.items()}
        store.save(outbox, slots, Entry.of(outbox, origin, time.time(), trusted=True))
        store.ledger.published(len(payload))
        if left:
            store.mark_counted(1)
        store.drop(applied=True, receipt="counted")

    return step


def aggregator(folder: Path, model: edgefl.Model) -> Step:
    """A round of the aggregator: commit the model and the record, append to the history, write model.onnx."""
    store, history = AggregatorStore(folder), HistoryFiles(folder, 1e9)
    store.resume(model.plan.hash, model.params)
    names = [f"device-{i:04d}" for i in range(DEVICES)]
    traffic = msgspec.Raw(msgspec.json.encode({name: (4321, 87654) for name in names}))

    def step(round: int) -> None:
        record = RoundRecord(
            round, "committed", round, DEVICES, names, 600 * DEVICES, 0.5, 4321, 87654, 60.0, by_device=traffic
        )
        store.commit(record, model.params)
        history.append(record)
        model.save(folder / "model.onnx", model.params)

    return step


def written() -> int:
    """Bytes that this process has caused to be written to storage."""
    os.sync()
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["write_bytes"])


if __name__ == "__main__":
    main()
