"""One federation of real processes over each MQTT broker, which is killed half way: `make brokers` prints the table.

A broker that is not installed is a row that says so. The run fails if a broker that is installed does not pass.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from daemons import blobs
from other_brokers import OTHERS, Broker

from edgefl.data import Dataset
from edgefl.history_record import RoundRecord
from edgefl.onnx import zoo
from edgefl.simulation.processes import AGGREGATOR, ProcessFleet

DEVICES = 3
BEFORE, AFTER = 5, 5  # rounds that must commit before the broker is killed, and after it
PATIENCE_S = 90.0
FIRST_S = 25.0  # less than the time after which an aggregator asks again which devices are there
DOWN_S = 1.0
SETTINGS = {
    "rounds": {"rounds": 10**6, "deadline_s": 20.0, "min_reports": DEVICES, "expect": DEVICES, "interval_s": 0},
    "train": {"epochs": 1, "lr": 0.1},
}
COLUMNS = "{:<19} {:<13} {:>5} {:>9} {:>7} {:>11}  {}"


@dataclass
class Row:
    """What one broker has shown.

    `first_s`: from the start of the aggregator, while all agents are connected, to the first commit. `recovery_s`: from
    when the broker is there again to the next commit.
    """

    mqtt: str
    first_s: float
    rounds: int
    recovery_s: float
    accuracy: float


def run(kind: type[Broker], folder: Path) -> Row:
    """The federation, the kill and what followed; AssertionError if rounds do not go on."""
    x, y = blobs(60 * DEVICES, seed=1)
    x_test, y_test = blobs(200, seed=99)
    parts = np.array_split(np.arange(len(x)), DEVICES)
    link = {"reconnect_cap_s": 2.0, **kind.link}
    with kind() as broker:
        model = zoo.mlp([4, 8, 3], seed=1).SerializeToString()
        data = Dataset(x, y, x_test, y_test)
        fleet = ProcessFleet(folder, broker.url, model, data, list(parts), settings=SETTINGS, link=link)
        with ExitStack() as stack:
            stack.push(fleet.__exit__)
            for device in fleet.devices:
                fleet.start(device)
            _until(lambda: all(map(_is_connected, fleet.folder.glob("dev-*.log"))), "the agents connect", fleet)
            began = time.monotonic()
            fleet.start(AGGREGATOR)  # last, so that it has to learn which devices are there
            _until(lambda: committed(fleet), "the first round commits", fleet)
            first_s = time.monotonic() - began
            assert first_s < FIRST_S, f"the first round took {first_s:.0f} s"
            _until(lambda: len(committed(fleet)) >= BEFORE, "rounds commit", fleet)
            broker.kill9()
            time.sleep(DOWN_S)
            before = len(committed(fleet))
            broker.start()
            back = time.monotonic()
            _until(lambda: len(committed(fleet)) > before, "rounds go on after the broker was killed", fleet)
            recovery_s = time.monotonic() - back
            _until(lambda: len(committed(fleet)) >= before + AFTER, "rounds go on", fleet)
        records = committed(fleet)
        versions = [record.version for record in records]
        assert versions == list(range(1, len(versions) + 1)), "a version is missing, or there twice"
        assert all(len(record.devices) == DEVICES for record in records)
        return Row(_protocol(fleet), first_s, len(records), recovery_s, records[-1].accuracy or 0.0)


def _is_connected(log: Path) -> bool:
    return "connected to" in log.read_text()


def committed(fleet: ProcessFleet) -> list[RoundRecord]:
    return [record for record in fleet.records() if record.state == "committed"]


def _until(condition: Callable[[], object], what: str, fleet: ProcessFleet) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > until:
            logs = "\n".join(f"{path.name}:\n{path.read_text()[-1500:]}" for path in sorted(fleet.folder.glob("*.log")))
            raise AssertionError(f"not within {PATIENCE_S:.0f} s: {what}\n{logs}")
        time.sleep(0.02)


def _protocol(fleet: ProcessFleet) -> str:
    """The MQTT version that the aggregator has spoken last."""
    lines = [line for line in (fleet.folder / "aggregator.log").read_text().splitlines() if ", MQTT " in line]
    return lines[-1].split(", MQTT ")[1].split(",")[0] if lines else "?"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", help="brokers to run, by the beginnings of their names; all, if none is given"
    )
    names = [name.lower() for name in parser.parse_args().names]
    print(COLUMNS.format("broker", "version", "MQTT", "first, s", "rounds", "recovery, s", "result"))
    failed = 0
    for kind in OTHERS:
        if names and not kind.name.lower().startswith(tuple(names)):
            continue
        if not kind.installed():
            print(COLUMNS.format(kind.name, "-", "-", "-", "-", "-", f"not installed: {kind.needs}"), flush=True)
            continue
        with tempfile.TemporaryDirectory(prefix="edgefl-brokers-") as folder:
            try:
                row = run(kind, Path(folder) / "run")
            except Exception as error:
                failed += 1
                print(COLUMNS.format(kind.name, kind.version()[:13], "", "", "", "", f"FAILED: {error}"), flush=True)
                continue
        numbers = (row.mqtt, f"{row.first_s:.1f}", row.rounds, f"{row.recovery_s:.1f}")
        print(
            COLUMNS.format(kind.name, kind.version()[:13], *numbers, f"passed, accuracy {row.accuracy:.3f}"), flush=True
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
