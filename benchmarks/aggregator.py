"""The aggregator under load: its memory by how many devices report, and its rate beside a bare paho subscriber.

Devices are simulated: one process replays a ready-made update for any number of them (lib/replay.py), over a real
mosquitto on loopback, to the real aggregator in a process of its own, with the environment of its systemd unit. The
bare subscriber takes the same messages from the same broker with the same flow control, and does nothing but count
them. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))
from loopback import Resident, bare_subscriber, mosquitto
from replay import Fleet
from unit import unit_environment

import edgefl
from edgefl import codecs
from edgefl.onnx import zoo
from edgefl.protocol.topics import Topics
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings.render import dump

SIZES = [784, 200, 200, 10]
FLEETS = (10, 100, 1000, 10_000)
TURNS = 5
WINDOW_BYTES = 16_000_000  # of updates under way: more than is ever on its way to the reader
CODECS = {"raw32": 600, "ecq": 3000}  # updates in a turn: a few seconds
FLAT_MB, RATE = 5.0, 0.8


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--codec", choices=CODECS, action="append", help="of the updates (default: all)")
    parser.add_argument("--fleets", type=int, nargs="*", default=FLEETS, help="devices that report (%(default)s)")
    parser.add_argument("--turns", type=int, default=TURNS, help="of each at the rate (%(default)s; 0: none)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    report = {}
    for codec in options.codec or CODECS:
        with tempfile.TemporaryDirectory(prefix="load-") as name, mosquitto(Path(name)) as port:
            load = Load(Path(name), port, codec)
            report[codec] = {"bytes": len(load.blob), "rss_mb": {}}
            for devices in options.fleets:
                report[codec]["rss_mb"][devices] = load.memory(devices)
                print(f"{codec:<6} {devices:>6} devices: {report[codec]['rss_mb'][devices]:.1f} MB resident")
            if options.turns:
                report[codec] |= load.rates(options.turns)
                print(f"{codec:<6} {line(report[codec])}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


class Load:
    """One codec's updates, and the process that receives them."""

    def __init__(self, folder: Path, port: int, codec: str) -> None:
        self.folder, self.port, self.codec = folder, port, codec
        model = zoo.mlp(SIZES)
        (folder / "start.onnx").write_bytes(model.SerializeToString())
        plan = edgefl.load(folder / "start.onnx").plan
        encoder = codecs.get(codec).for_tensors(plan.params)
        delta = np.random.default_rng(0).laplace(0, 1e-3, plan.num_params).astype(np.float32)
        self.blob = UpdateHeader(600, 60, 0.5, 1000, 0).to_bytes() + encoder.encode(delta)
        self.window = max(4, WINDOW_BYTES // len(self.blob))

    def memory(self, devices: int) -> float:
        """MB (10^6 bytes) that an aggregator has resident at its most, once its first round is open."""
        names = ids(devices)
        fleet = Fleet(self.port, f"m{devices}", self.blob)
        fleet.appear(names)
        with self.aggregator(f"m{devices}", devices, 2) as process:
            fleet.await_round(1)
            resident = Resident(process.pid)
            fleet.report(names, self.window)
            fleet.await_round(2)
            fleet.report(names, self.window)
            process.wait(60)
        fleet.mqtt.close()
        return resident.peak

    def rates(self, turns: int) -> dict[str, float]:
        """Updates a second into the aggregator and into a bare subscriber, medians of interleaved turns."""
        names = ids(CODECS[self.codec])
        fleet = Fleet(self.port, "rate", self.blob)
        fleet.appear(names)
        ours, bare = [], []
        bare_topics = Topics("bare")
        with (
            self.aggregator("rate", len(names), turns + 1) as process,
            bare_subscriber(self.port, bare_topics.any_update) as taken,
        ):
            for turn in range(turns + 1):  # the first warms both up
                fleet.await_round(turn + 1)
                ours.append(len(names) / fleet.report(names, self.window))
                bare.append(len(names) / fleet.report_to(taken, bare_topics, names, self.window))
            process.wait(60)
        fleet.mqtt.close()
        rate, paho = statistics.median(ours[1:]), statistics.median(bare[1:])
        ratios = [a / b for a, b in zip(ours[1:], bare[1:], strict=True)]
        return {
            "updates_per_s": rate,
            "bare_per_s": paho,
            "ratio": statistics.median(ratios),
            "ratio_min": min(ratios),
        }

    @contextmanager
    def aggregator(self, federation: str, devices: int, rounds: int) -> Iterator[subprocess.Popen[bytes]]:
        table = {
            "federation": federation, "model": str(self.folder / "start.onnx"),
            "state_dir": str(self.folder / federation), "mqtt": {"url": f"mqtt://127.0.0.1:{self.port}"},
            "rounds": {
                "rounds": rounds, "interval_s": 0.0, "min_reports": devices, "expect": devices, "deadline_s": 3600.0
            },
            "train": {"lr": 0.1}, "codec": {"name": self.codec},
            "downlink": {"name": "raw32"},
        }  # fmt: skip
        path = self.folder / f"{federation}.toml"
        path.write_text(dump(table))
        with open(self.folder / f"{federation}.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "edgefl_broker", "--config", str(path)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=os.environ | unit_environment("broker/edgefl-aggregator.service"),
            )  # fmt: skip
        try:
            yield process
        except SystemExit:
            print((self.folder / f"{federation}.log").read_text()[-2000:], file=sys.stderr)
            raise
        finally:
            process.terminate()
            process.wait()


def line(figures: dict[str, float]) -> str:
    return (
        f"{figures['updates_per_s']:.0f} updates/s, {figures['bare_per_s']:.0f} to a bare subscriber: "
        f"{figures['ratio']:.2f} (to reach: {RATE}), at least {figures['ratio_min']:.2f}"
    )


def ids(devices: int) -> list[str]:
    return [f"device-{i:05}" for i in range(devices)]


if __name__ == "__main__":
    main()
