"""What the defaults cost: "auto" codecs beside float32, where devices take part in all rounds and now and then.

    python benchmarks/defaults.py [--data SPEC] [--cases NAME ...] [--partitions iid shards:2] [--seeds N]
                                  [--choices "CODEC|DOWNLINK|SPAN" ...] [--runs FOLDER] [--json FILE]

McMahan's 2NN and CNN on MNIST, batch 10, lr 0.1. A run's accuracy is the mean over its last ten rounds; `below` says
how many points it stands below float32's. `rounds` is how many rounds the target takes, in parts of float32's.

`up` and `down` say how many times fewer bytes a run takes to the target than float32's takes to it; of a run that does
not reach it, a round's bytes. `later` is `down` in the whole run without what a device's first model takes at least, as
the first rounds show it; `first` is the share of that in `down`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "lib"))

import kept_runs

Rounds = list[dict[str, Any]]
LAST = 10  # rounds whose mean accuracy is a run's
FLOAT32, AUTO = "raw32|raw32|1", "auto|auto|auto"


@dataclass(frozen=True)
class Case:
    """A fleet; and by partition how many rounds it runs, and the accuracy that it has to reach."""

    model: str
    devices: int
    fraction: float
    epochs: int
    rounds: dict[str, int]
    target: dict[str, float]


CASES = {
    "2nn-all": Case("2nn", 100, 1.0, 1, {"iid": 66, "shards:2": 100}, {"iid": 0.97, "shards:2": 0.95}),
    "2nn-tenth": Case("2nn", 100, 0.1, 5, {"iid": 50, "shards:2": 120}, {"iid": 0.97, "shards:2": 0.95}),
    "2nn-tenth-e1": Case("2nn", 100, 0.1, 1, {"iid": 70, "shards:2": 200}, {"iid": 0.97, "shards:2": 0.95}),
    "2nn-two": Case("2nn", 20, 0.1, 1, {"iid": 60, "shards:2": 120}, {"iid": 0.97, "shards:2": 0.95}),
    "cnn-all": Case("cnn", 20, 1.0, 1, {"iid": 15, "shards:2": 20}, {"iid": 0.99, "shards:2": 0.97}),
    "cnn-tenth": Case("cnn", 100, 0.1, 5, {"iid": 35, "shards:2": 60}, {"iid": 0.99, "shards:2": 0.97}),
}


def run_one(name: str, partition: str, choice: str, seed: int, options: argparse.Namespace) -> Rounds:
    """One simulation of a case with the codecs and the span of `choice`."""
    case = CASES[name]
    codec, downlink, span = choice.split("|")
    file = "-".join([name, partition, choice, str(seed)]).translate(str.maketrans("", "", ":|/"))
    return kept_runs.run(
        options.runs, file, case.model, options.data, workers=options.workers, devices=case.devices,
        fraction=case.fraction, epochs=case.epochs, rounds=case.rounds[partition], partition=partition, seed=seed,
        codec=codec, downlink=downlink, span=span if span == "auto" else int(span),
    )  # fmt: skip


def row(case: Case, partition: str, float32: list[Rounds], runs: list[Rounds]) -> dict[str, Any]:
    """Means over seeds, and the worst seed's loss; no `rounds` where a run misses a target that float32 reaches."""
    target = case.target[partition]
    needed = [(_rounds_to(a, target), _rounds_to(b, target)) for a, b in zip(float32, runs, strict=True)]
    both = [(a, b) for a, b in needed if a and b]
    missed = any(a and not b for a, b in needed)
    below = [100 * (_accuracy(a) - _accuracy(b)) for a, b in zip(float32, runs, strict=True)]
    return {
        "accuracy": 100 * mean(map(_accuracy, runs)),
        "below": mean(below),
        "worst": max(below),
        "rounds_float32": mean(a for a, _ in both) if both else None,
        "rounds": None if missed or not both else mean(b for _, b in both) / mean(a for a, _ in both),
        "up": mean(_fewer(a, b, "bytes_up", target) for a, b in zip(float32, runs, strict=True)),
        "down": mean(_fewer(a, b, "bytes_down", target) for a, b in zip(float32, runs, strict=True)),
        "first": mean(_first_models(run)[1] for run in runs),
        "later": mean(_first_models(run)[0] for run in runs),
    }


def _accuracy(run: Rounds) -> float:
    return mean(r["accuracy"] for r in run[-LAST:])


def _rounds_to(run: Rounds, target: float) -> int | None:
    return next((number for number, r in enumerate(run, 1) if r["accuracy"] >= target), None)


def _fewer(float32: Rounds, run: Rounds, field: str, target: float) -> float:
    """Float32's numbers over the run's bytes, both to the target; of the whole run if one does not reach it."""
    needed = _rounds_to(float32, target), _rounds_to(run, target)
    whole, part = needed if all(needed) else (len(run), len(run))
    return float(sum(r["float32_bytes"] for r in float32[:whole]) / sum(r[field] for r in run[:part]))


def _first_models(run: Rounds) -> tuple[float, float]:
    """How many times fewer bytes than float32 go down but for first models, and these models' share of all bytes."""
    each = min(r["bytes_down"] / len(r["devices"]) for r in run[:3])  # nearly all are there for the first time
    devices = {device for r in run for device in r["devices"]}
    reports, down = sum(len(r["devices"]) for r in run), sum(r["bytes_down"] for r in run)
    number = sum(r["float32_bytes"] for r in run) / reports
    return number * (reports - len(devices)) / (down - each * len(devices)), each * len(devices) / down


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", default=f"mnist:{os.environ.get('EDGEFL_SHARED', '.')}/data/mnist", metavar="SPEC")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["2nn-all", "2nn-tenth"])
    parser.add_argument("--partitions", nargs="+", choices=("iid", "shards:2"), default=["iid", "shards:2"])
    parser.add_argument("--choices", nargs="+", default=[AUTO], metavar="CODEC|DOWNLINK|SPAN")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="3 for what is published")
    parser.add_argument("--runs", type=Path, default=Path("build/defaults"), metavar="FOLDER")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    folder = options.data.removeprefix("mnist:")
    if options.data.startswith("mnist:") and not Path(folder).is_dir():
        print(f"defaults: skipped, no MNIST in {folder}: give --data mnist:DIR")
        return 0
    print(f"{'case':12} {'partition':10} {'choice':40}  below  worst  rounds      up    down   later  first")
    rows = []
    for name in options.cases:
        for partition in options.partitions:
            float32 = [run_one(name, partition, FLOAT32, seed, options) for seed in range(options.seeds)]
            for choice in [FLOAT32, *options.choices]:
                runs = [run_one(name, partition, choice, seed, options) for seed in range(options.seeds)]
                found = row(CASES[name], partition, float32, runs)
                rows.append({"case": name, "partition": partition, "choice": choice, **found})
                rounds = "-" if found["rounds"] is None else f"{found['rounds']:.2f}"
                print(
                    f"{name:12} {partition:10} {choice:40} {found['below']:6.2f} {found['worst']:6.2f} {rounds:>7} "
                    f"{found['up']:6.1f}x {found['down']:6.1f}x {found['later']:6.1f}x {found['first']:5.0%}"
                    f"   {found['accuracy']:.2f} %, float32's rounds {found['rounds_float32']}",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
