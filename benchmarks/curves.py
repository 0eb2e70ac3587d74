"""Accuracy against bytes: McMahan's 2NN and CNN on MNIST, over the real wire format, beside the same fleet in float32.

    python benchmarks/curves.py [--data SPEC] [--models 2nn cnn 2nn-tenth] [--partitions shards:2 iid]
                                [--settings NAME ...] [--seeds N] [--runs FOLDER] [--figure PNG] [--json FILE]

Twenty devices, all of which take part in every round; in `2nn-tenth` a hundred, ten of which do. A run is kept as a
JSON file in FOLDER, and not repeated while its arguments stay the same: what was interrupted goes on. Accuracy is the
mean over the last ten rounds, as the pathological split makes single rounds jump. Bytes are History's, everything that
goes over MQTT: manifest, rounds, receipts and the first whole model too, which `down later` leaves out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "lib"))

import curves_plot
import kept_runs
from curves_plot import Run

FLEET = {"batch_size": 10, "lr": 0.1, "codec": "raw32", "downlink": "raw32", "span": 1}
ALL = {"devices": 20, "min_reports": 20}
CASES: dict[str, dict[str, Any]] = {
    "2nn": ALL | {"model": "2nn", "rounds": 200, "max_steps": 60},
    "cnn": ALL | {"model": "cnn", "rounds": 40, "max_steps": 20},
    "2nn-tenth": {"model": "2nn", "devices": 100, "fraction": 0.1, "rounds": 120},
}
PARTITIONS = ("shards:2", "iid")
# What goes up and down. fp32 comes first: the others are measured against it.
SETTINGS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "ecq": {"codec": "ecq", "downlink": "ecq:step=8"},
    "ecq-sparse": {"codec": "ecq-sparse:step=22,exact=none", "downlink": "ecq:step=32,exact=none"},
    "qsgd": {"codec": "baselines:Qsgd:bits=4"},
    "topk": {"codec": "baselines:TopK:fraction=0.005"},
    "sign": {"codec": "baselines:Sign"},
    "auto": {"codec": "auto", "downlink": "auto", "span": "auto"},
}
MAIN, TENTH = ["fp32", "ecq", "ecq-sparse"], ["fp32", "auto"]


def run_one(case: str, partition: str, setting: str, seed: int, options: argparse.Namespace) -> Run:
    """Run one simulation, or read its result from its file."""
    arguments = FLEET | CASES[case] | SETTINGS[setting]
    file = f"{case}-{partition.replace(':', '')}-{setting}-{seed}"
    rounds = kept_runs.run(
        options.runs, file, arguments.pop("model"), options.data, workers=options.workers, **arguments,
        partition=partition, seed=seed,
    )  # fmt: skip
    return Run.of(rounds, arguments["devices"])


def settings_of(case: str, options: argparse.Namespace) -> list[str]:
    """What is compared, float32 first."""
    chosen = options.settings or (TENTH if "fraction" in CASES[case] else MAIN)
    return ["fp32", *(name for name in chosen if name != "fp32")]


def table(found: curves_plot.Found, seeds: int) -> list[dict[str, Any]]:
    """A row for each panel and setting: means over seeds, the worst seed's loss, ratios of all bytes."""
    rows = []
    for (model, partition), by_setting in found.items():
        reference = [run.final_accuracy for run in by_setting["fp32"]]
        for setting, runs in by_setting.items():
            points = [100 * (r - run.final_accuracy) for r, run in zip(reference, runs, strict=True)]
            rows.append({
                "model": model, "partition": partition, "setting": setting,
                "accuracy": 100 * sum(run.final_accuracy for run in runs) / seeds,
                "below": sum(points) / seeds, "worst": max(points),
                "up": sum(run.ratio_up for run in runs) / seeds,
                "down": sum(run.ratio_down for run in runs) / seeds,
                "down_later": sum(run.ratio_down_later for run in runs) / seeds,
            })  # fmt: skip
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default=f"mnist:{os.environ.get('EDGEFL_SHARED', '.')}/data/mnist", metavar="SPEC")
    parser.add_argument("--models", nargs="+", choices=CASES, default=["2nn"])
    parser.add_argument("--partitions", nargs="+", choices=PARTITIONS, default=list(PARTITIONS))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS)
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="5 for what is published")
    parser.add_argument("--runs", type=Path, default=Path("build/curves"), metavar="FOLDER")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--figure", type=Path, metavar="PNG")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    folder = options.data.removeprefix("mnist:")
    if options.data.startswith("mnist:") and not Path(folder).is_dir():
        print(f"curves: skipped, no MNIST in {folder}: give --data mnist:DIR")
        return 0
    found: curves_plot.Found = {
        (model, partition): {
            setting: [run_one(model, partition, setting, seed, options) for seed in range(options.seeds)]
            for setting in settings_of(model, options)
        }
        for model in options.models
        for partition in options.partitions
    }
    rows = table(found, options.seeds)
    print("model      partition  setting        accuracy  below fp32  worst seed       up     down  down later")
    for row in rows:
        print(
            "{model:10} {partition:10} {setting:14} {accuracy:7.2f} % {below:10.2f}  {worst:10.2f}  "
            "{up:6.1f}x  {down:6.1f}x  {down_later:9.1f}x".format(**row)
        )
    if options.figure:
        curves_plot.draw(found, options.figure)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
