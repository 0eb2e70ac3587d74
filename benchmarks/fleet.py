"""Times a round of FedAvg over simulated devices beside its peers, interleaved, on one pinned core.

    python benchmarks/fleet.py [--epochs 1 5] [--peers NAME ...] [--peers-python PYTHON] [--shared DIR] [--json FILE]

McMahan's 2NN on MNIST, 100 devices, C = 0.1, B = 10. `bare` is a loop of Trainer.fit over the same steps and nothing
else; a plain torch loop, jax (vmap and scan), Flower's simulation (on ray) and pfl-research do the whole round. Figures
are medians of a round's time over all turns; the ratio is peer / EdgeFL. `--clock cpu` compares the processor's time
where the machine is busy; Flower works in other processes, so only the wall's time can be had of it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

import fleet_peers
import models

import edgefl

FLEET = {"devices": 100, "cohort": 10, "batch": 10, "lr": 0.05, "partition": "iid", "workers": 1, "test": False}
RAW = {"codec": "raw32", "downlink": "raw32"}
OURS: dict[str, dict[str, Any]] = {
    "raw32": {"settings": RAW},
    "defaults": {"settings": {}},
    "raw32, two workers": {"settings": RAW, "workers": 2},
    "raw32, tested": {"settings": RAW, "test": True},
}
OTHERS = ("bare", "torch", "jax", "flower", "pfl")
ROUNDS = {1: 24, 5: 10}


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, nargs="*", default=[5, 1], help="(%(default)s)")
    parser.add_argument("--peers", nargs="*", default=[*OURS, *OTHERS], metavar="NAME", help="(%(default)s)")
    parser.add_argument("--peers-python", default=sys.executable, help="an interpreter that has the peers' packages")
    parser.add_argument("--shared", type=Path, default=os.environ.get("EDGEFL_SHARED"), help="holds data/mnist")
    parser.add_argument("--turns", type=int, default=5, help="of each peer (%(default)s)")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        data = write_data(Path(folder), options.shared)
        report = {epochs: measure(data, epochs, options) for epochs in options.epochs}
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def write_data(folder: Path, shared: Path | None) -> Path:
    """MNIST, or noise in its shape where it is not there: what a step costs does not depend on the values."""
    path, model = folder / "task.npz", np.frombuffer(models.mlp(), np.uint8)
    if shared is not None and (shared / "data/mnist").is_dir():
        found = edgefl.data.load(f"mnist:{shared / 'data/mnist'}")
        train, test = (found.x_train.reshape(-1, 784), found.y_train), (found.x_test.reshape(-1, 784), found.y_test)
    else:
        rng = np.random.default_rng(0)
        train, test = [(rng.random((n, 784), np.float32), rng.integers(0, 10, n)) for n in (60_000, 10_000)]
    np.savez(path, x=train[0], y=train[1], x_test=test[0], y_test=test[1], model=model)
    return path


def measure(data: Path, epochs: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The figures of each peer, turns interleaved; printed as they are."""
    times: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": [], "rss_mb": []} for name in options.peers}
    for _ in range(options.turns):
        for name in options.peers:
            found = turn(name, data, epochs, options)
            for key, into in times[name].items():
                into += found[key] if isinstance(found[key], list) else [found[key]]
    report = {name: {key: statistics.median(found) for key, found in kinds.items()} for name, kinds in times.items()}
    own = report.get("raw32")
    for name, row in report.items():
        ratio = f"{row[options.clock] / own[options.clock]:5.2f}x raw32" if own else ""
        wall, cpu = 1e3 * row["wall"], 1e3 * row["cpu"]
        print(f"E={epochs} {name:20} {wall:8.1f} ms a round, processor {cpu:8.1f}  {row['rss_mb']:5.0f} MB  {ratio}")
    return report


def turn(name: str, data: Path, epochs: int, options: argparse.Namespace) -> dict[str, Any]:
    ours = OURS.get(name)
    task = {**FLEET, "epochs": epochs, "rounds": ROUNDS.get(epochs, 10), **(ours or {})}
    python = sys.executable if ours or name == "bare" else options.peers_python
    cores = set(range(task["workers"])) if task["workers"] > 1 else {options.cpu}
    command = [python, str(Path(fleet_peers.__file__)), "edgefl" if ours else name, str(data), json.dumps(task)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, preexec_fn=lambda: os.sched_setaffinity(0, cores)
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
