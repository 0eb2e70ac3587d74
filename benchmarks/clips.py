"""Accuracy with clips that were chosen well and badly, fixed and adaptive: McMahan's 2NN on MNIST, masked, with noise.

    python benchmarks/clips.py [--data SPEC] [--devices N] [--seeds N] [--json FILE]

A hundred simulated devices of 600 examples, one epoch in batches of 10 at a rate of 0.1. Ten of them train in each of
40 rounds, in turn, and stand for 10,000 or 1,000, by whose number the noise in the sum is divided, as if the others
had learned the same. The good clip was chosen on the test set, which epsilon leaves out.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from edgefl import data
from edgefl.onnx import zoo
from edgefl.onnx.load import load
from edgefl.simulation.privacy.rounds import Local, PrivateRounds
from edgefl.simulation.privacy.terms import Goal, propose
from edgefl.simulation.split.shifts import spread

DEVICES, TRAINED, ROUNDS = 100, 10, 40
DELTA, EPSILON = 1e-5, 4.0
FLEETS = (10_000, 1000)
CLIPS = (1.0, 10.0, 0.1)
QUANTILES = (None, 0.5)  # None: the clip is fixed


class Bench:
    """The model and the data."""

    def __init__(self, spec: str, seeds: int) -> None:
        self.model = load(zoo.from_spec("mcmahan:2nn", 0))
        self.dataset, self.parts = spread(data.fit_plan(data.load(spec), self.model.plan), "iid", DEVICES, 0)
        self.seeds = seeds

    def row(self, devices: int, clip: float, quantile: float | None) -> dict[str, Any]:
        """Means over the seeds: of the accuracy after the last round, and of that round's clip."""
        proposal = propose(
            Goal(
                ROUNDS, devices, EPSILON, self.model.plan.num_params, devices, delta=DELTA, clip=clip,
                quantile=quantile, noise="independent",
            )
        )  # fmt: skip
        found, ends = [], []
        for seed in range(self.seeds):
            rounds = PrivateRounds(
                self.model.plan, self.model.params, self.dataset, self.parts, proposal, local=Local(), seed=seed,
                trained=TRAINED,
            )  # fmt: skip
            found.append(list(rounds.run(ROUNDS))[-1])
            ends.append(rounds.clips[-2])  # of the last round
        return {
            "devices": devices, "clip": clip, "quantile": quantile, "epsilon": EPSILON,
            "multiplier": proposal.multiplier, "accuracy": 100 * float(np.mean(found)), "worst": 100 * min(found),
            "last_clip": float(np.mean(ends)),
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", default="mnist:data/mnist", help="SPEC of MNIST (default: mnist:data/mnist)")
    parser.add_argument("--devices", type=int, choices=FLEETS, help="the fleet of so many alone")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each row (default: 1)")
    parser.add_argument("--json", type=Path, help="write the rows here, too")
    options = parser.parse_args()
    bench, rows = Bench(options.data, options.seeds), []
    print("| devices | clip | kept | clip of the last round | accuracy |\n|---|---|---|---|---|")
    for devices, clip, quantile in itertools.product(FLEETS, CLIPS, QUANTILES):
        if options.devices in (None, devices):
            rows.append(row := bench.row(devices, clip, quantile))
            kept = "fixed" if quantile is None else "adaptive"
            print(f"| {devices:,} | {clip:g} | {kept} | {row['last_clip']:.3g} | {row['accuracy']:.1f} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
