"""What "auto" costs where a strategy carries what it gets into later rounds, beside float32 and FedAvg's codecs.

    python benchmarks/carried.py [--data SPEC] [--strategies NAME ...] [--seeds N] [--runs FOLDER] [--json FILE]

McMahan's 2NN on MNIST, 100 devices with dirichlet:0.3, of which a round asks ten; one epoch, batch 10, 40 rounds. A
run's accuracy is the mean over its last ten rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "lib"))

import kept_runs

from edgefl import auto

LAST = 10  # rounds whose mean accuracy is a run's
# Learning rate of the devices.
STRATEGIES = {
    "fedavgm": 0.1, "fedcm": 0.1, "mime-lite": 0.1, "fedadam": 0.05, "fedyogi": 0.05, "fedadagrad": 0.05,
    "scaffold": 0.05, "feddyn": 0.05, "mifa": 0.05,
}  # fmt: skip
WHOLE = ("fedcm", "mime-lite", "mifa")  # that exclude codecs which are right on average only


def choices(strategy: str) -> dict[str, tuple[str, str, int]]:
    """Codec up, codec down and span."""
    up, down = auto.now_and_then(10)
    return {
        "float32": ("raw32", "raw32", 1),
        "as FedAvg": ("ecq" if strategy in WHOLE else up, down, 10),
        "auto": (auto.CARRIED, auto.CARRIED, 10),
    }


def run_one(strategy: str, choice: str, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    codec, downlink, span = choices(strategy)[choice]
    name = "-".join(["carried", strategy, codec, downlink, str(seed)]).translate(str.maketrans("", "", ":|/="))
    return kept_runs.run(
        options.runs, name, "2nn", options.data, workers=1, devices=100, fraction=0.1, expect=100, epochs=1, rounds=40,
        partition="dirichlet:0.3", lr=STRATEGIES[strategy], strategy=strategy, codec=codec, downlink=downlink,
        span=span, seed=seed,
    )  # fmt: skip


def row(strategy: str, choice: str, options: argparse.Namespace) -> dict[str, Any]:
    """Means over seeds."""
    runs = [run_one(strategy, choice, seed, options) for seed in range(options.seeds)]
    found: dict[str, Any] = {"strategy": strategy, "choice": choice}
    found["accuracy"] = 100 * mean(mean(r["accuracy"] for r in run[-LAST:]) for run in runs)
    for way in ("bytes_up", "bytes_down"):
        found[way] = mean(sum(r["float32_bytes"] for r in run) / sum(r[way] for r in run) for run in runs)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", default=f"mnist:{os.environ.get('EDGEFL_SHARED', '.')}/data/mnist", metavar="SPEC")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=["fedavgm"])
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="2 for what is published")
    parser.add_argument("--runs", type=Path, default=Path("build/carried"), metavar="FOLDER")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.data.startswith("mnist:") and not Path(options.data.removeprefix("mnist:")).is_dir():
        print(f"carried: skipped, no MNIST in {options.data.removeprefix('mnist:')}: give --data mnist:DIR")
        return 0
    print("strategy    codecs     accuracy      up    down")
    rows = []
    for strategy in options.strategies:
        for choice in choices(strategy):
            rows.append(found := row(strategy, choice, options))
            up, down = found["bytes_up"], found["bytes_down"]
            print(f"{strategy:11} {choice:10} {found['accuracy']:8.2f} {up:6.0f}x {down:6.1f}x")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
