"""Times a round of FedAvg over simulated devices beside its peers, interleaved, on one pinned core.

    python benchmarks/fleet.py [--quick] [--epochs 1 5] [--peers NAME ...] [--peers-python PYTHON ...] [--shared DIR]

McMahan's 2NN on MNIST, 100 devices, C = 0.1, B = 10. `bare` is a loop of Trainer.fit over the same steps and nothing
else; a plain torch loop, jax (vmap and scan), Flower's simulation (on ray) and pfl-research do the whole round. Figures
are medians of a round's time over all turns; each row has its ratio and what that is to reach. Two large fleets come
last. A peer whose package no interpreter has is skipped. `--clock cpu` compares the processor's time where the machine
is busy; Flower and two workers are compared by the wall's time in any case. `--quick` takes about five minutes.
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
OTHERS = {"bare": "", "torch": "torch", "jax": "jax", "flower": "flwr", "pfl": "pfl"}  # the package that it needs
ROUNDS = {1: 24, 5: 10}
TARGETS = {
    ("bare", 5): "<= 1.08", ("bare", 1): "<= 1.25", ("torch", 5): ">= 5", ("torch", 1): ">= 5",
    ("jax", 5): ">= 1", ("jax", 1): ">= 1", ("flower", 5): ">= 8", ("flower", 1): ">= 11",
    ("defaults", 5): "<= 1.5", ("defaults", 1): "<= 1.5",
    ("raw32, two workers", 5): ">= 1.8", ("raw32, two workers", 1): ">= 1.5",
}  # fmt: skip
LONGEST_S = 60.0  # of one turn
WALL = ("flower", "raw32, two workers")  # their work is not that of one thread
LARGE: dict[str, tuple[dict[str, Any], str]] = {
    "10,000 devices, cohort 1,000": ({"devices": 10_000, "cohort": 1000}, "<= 4 s, <= 1000 MB"),
    "1,000,000 devices, cohort 100": (
        {"devices": 1_000_000, "cohort": 100, "partition": "windows:600"}, "<= 5 s, start <= 20 s, <= 1000 MB"
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, nargs="*", default=[5, 1], help="(%(default)s)")
    parser.add_argument("--peers", nargs="*", default=[*OURS, *OTHERS], metavar="NAME", help="(%(default)s)")
    parser.add_argument(
        "--peers-python", nargs="*", default=[sys.executable], metavar="PYTHON",
        help="interpreters with the peers' packages: the first that has a package runs its peer",
    )  # fmt: skip
    parser.add_argument("--shared", type=Path, default=os.environ.get("EDGEFL_SHARED"), help="holds data/mnist")
    parser.add_argument("--turns", type=int, default=5, help="of each peer (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="two turns of each peer, and fewer rounds of large fleets")
    parser.add_argument("--no-large", action="store_true", help="leave out the two large fleets")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    options.turns = min(options.turns, 2) if options.quick else options.turns
    options.python = {name: _python(name, options) for name in options.peers}
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        data = write_data(Path(folder), options.shared)
        report: dict[str, Any] = {f"E={epochs}": measure(data, epochs, options) for epochs in options.epochs}
        if not options.no_large:
            report["large"] = {name: measure_large(data, name, options) for name in LARGE}
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


def _python(name: str, options: argparse.Namespace) -> str | None:
    """The interpreter that runs a peer; None, after a line that says so, if none has its package."""
    package = OTHERS.get(name, "")
    if not package:
        return sys.executable
    for python in options.peers_python:
        if subprocess.run([python, "-c", f"import {package}"], capture_output=True, check=False).returncode == 0:
            return str(python)
    print(f"skipped {name}: {' and '.join(options.peers_python)} can't import {package}")
    return None


def measure(data: Path, epochs: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The figures of each peer, turns interleaved; printed as they are."""
    names = [name for name in options.peers if options.python[name] is not None]
    times: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": [], "rss_mb": []} for name in names}
    for _ in range(options.turns):
        for name in names:
            task = {"epochs": epochs, "rounds": ROUNDS.get(epochs, 10), **OURS.get(name, {})}
            found = turn(name, data, task, options) if options.python[name] is not None else None
            if found is None:
                options.python[name] = None  # it has failed, which `turn` has said
                continue
            for key, into in times[name].items():
                into += found[key] if isinstance(found[key], list) else [found[key]]
    report = {
        name: {key: statistics.median(found) for key, found in kinds.items()}
        for name, kinds in times.items()
        if kinds["wall"]
    }
    for name, row in report.items():
        wall, cpu = 1e3 * row["wall"], 1e3 * row["cpu"]
        ratio = _ratio(name, epochs, report, options.clock)
        print(f"E={epochs} {name:20} {wall:8.1f} ms a round, processor {cpu:8.1f}  {row['rss_mb']:5.0f} MB  {ratio}")
    return report


def _ratio(name: str, epochs: int, report: dict[str, dict[str, float]], clock: str) -> str:
    """What a row is compared with raw32's, and what that is to reach."""
    if name == "raw32" or "raw32" not in report:
        return ""
    ours, theirs = (report[row]["wall" if name in WALL else clock] for row in ("raw32", name))
    target = TARGETS.get((name, epochs))
    reach = f", to reach {target}" if target else ""
    if name == "bare":
        return f"raw32 / bare {ours / theirs:.2f}{reach}"
    if name == "raw32, two workers":
        return f"raw32 / two workers {ours / theirs:.2f}{reach}"
    return f"{name} / raw32 {theirs / ours:.2f}{reach}"


def measure_large(data: Path, name: str, options: argparse.Namespace) -> dict[str, float]:
    """One run of a large fleet, E = 1."""
    task, target = LARGE[name]
    rounds = 5 if options.quick else 8
    found = turn("raw32", data, {**task, "epochs": 1, "rounds": rounds, "settings": RAW}, options)
    if found is None:
        return {}
    row = {key: statistics.median(found[key]) for key in ("wall", "cpu")}
    row |= {"start": found["first"] - row["wall"], "rss_mb": found["rss_mb"]}
    print(
        f"{name}: {row['wall']:.2f} s a round, processor {row['cpu']:.2f} s, start {row['start']:.1f} s, "
        f"{row['rss_mb']:.0f} MB, to reach {target}"
    )
    return row


def turn(name: str, data: Path, task: dict[str, Any], options: argparse.Namespace) -> dict[str, Any] | None:
    """One run of a peer in a process of its own, pinned; None, after a line that says so, if it fails or takes longer
    than LONGEST_S."""
    task = {**FLEET, **task}
    python = options.python.get(name) or sys.executable
    cores = set(range(task["workers"])) if task["workers"] > 1 else {options.cpu}
    command = [python, str(Path(fleet_peers.__file__)), "edgefl" if name in OURS else name, str(data), json.dumps(task)]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, timeout=LONGEST_S,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )  # fmt: skip
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        timed_out = isinstance(error, subprocess.TimeoutExpired)
        why = f"a turn takes longer than {LONGEST_S:g} s" if timed_out else "it has failed"
        print(f"skipped {name}: {why}")
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
