"""The aggregator under load: its memory by how many devices report, its rate beside a bare paho subscriber, and the
processor time that an update takes it.

    EDGEFL_SHARED=... python benchmarks/aggregator.py [--codec NAME] [--delta synthetic] [--delta E=1] [--delta E=5]

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
from real_updates import by_epochs
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
    parser.add_argument("--delta", action="append", help="synthetic, E=1 or E=5: of the updates (default: all)")
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("EDGEFL_SHARED", ".")), metavar="FOLDER")
    parser.add_argument("--updates", type=Path, default=Path("build/updates"), metavar="FOLDER")
    parser.add_argument("--fleets", type=int, nargs="*", default=FLEETS, help="devices that report (%(default)s)")
    parser.add_argument("--turns", type=int, default=TURNS, help="of each at the rate (%(default)s; 0: none)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    report = {}
    deltas = {"synthetic": None} | {name: u.delta for name, u in by_epochs(options.shared, options.updates).items()}
    if unknown := set(options.delta or ()) - set(deltas):
        parser.error(f"no delta {', '.join(sorted(unknown))}: {', '.join(deltas)}; real ones need MNIST in --shared")
    for codec in options.codec or CODECS:
        for name in options.delta or deltas if codec != "raw32" else ["synthetic"]:
            report[f"{codec} {name}"] = measure(codec, name, deltas[name], options)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def measure(codec: str, name: str, delta: np.ndarray | None, options: argparse.Namespace) -> dict[str, object]:
    """The figures of one codec's updates of one delta, which are printed too."""
    with tempfile.TemporaryDirectory(prefix="load-") as folder, mosquitto(Path(folder)) as port:
        load = Load(Path(folder), port, codec, delta)
        memory = {}
        for devices in options.fleets:
            memory[devices] = load.memory(devices)
            print(f"{codec:<6} {name:<9} {devices:>6} devices: {memory[devices]:.1f} MB resident")
        found = {"bytes": len(load.blob), "rss_mb": memory}
        if options.turns:
            found |= load.rates(options.turns)
            print(f"{codec:<6} {name:<9} {len(load.blob)} bytes: {line(found)}")
    return found


class Load:
    """One codec's updates, and the process that receives them."""

    def __init__(self, folder: Path, port: int, codec: str, delta: np.ndarray | None) -> None:
        self.folder, self.port, self.codec = folder, port, codec
        model = zoo.mlp(SIZES)
        (folder / "start.onnx").write_bytes(model.SerializeToString())
        plan = edgefl.load(folder / "start.onnx").plan
        encoder = codecs.get(codec).for_tensors(plan.params)
        encoder = encoder.with_forms(encoder.FORMS)  # as a device of this version writes it
        if delta is None:
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
        ours, bare, taken_s = [], [], []
        bare_topics = Topics("bare")
        with (
            self.aggregator("rate", len(names), turns + 1) as process,
            bare_subscriber(self.port, bare_topics.any_update) as taken,
        ):
            for turn in range(turns + 1):  # the first warms both up
                fleet.await_round(turn + 1)
                before = processor_s(process.pid)
                ours.append(len(names) / fleet.report(names, self.window))
                taken_s.append((processor_s(process.pid) - before) / len(names))
                bare.append(len(names) / fleet.report_to(taken, bare_topics, names, self.window))
            process.wait(60)
        fleet.mqtt.close()
        rate, paho = statistics.median(ours[1:]), statistics.median(bare[1:])
        ratios = [a / b for a, b in zip(ours[1:], bare[1:], strict=True)]
        return {
            "updates_per_s": rate,
            "cpu_ms": 1e3 * statistics.median(taken_s[1:]),
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
        f"{figures['updates_per_s']:.0f} updates/s, {figures['cpu_ms']:.2f} ms of CPU each, "
        f"{figures['bare_per_s']:.0f} to a bare subscriber: {figures['ratio']:.2f} (to reach: {RATE}), "
        f"at least {figures['ratio_min']:.2f}"
    )


def processor_s(pid: int) -> float:
    """The processor time that a process has taken: proc(5)."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def ids(devices: int) -> list[str]:
    return [f"device-{i:05}" for i in range(devices)]


if __name__ == "__main__":
    main()
