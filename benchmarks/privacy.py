"""Accuracy against epsilon: McMahan's 2NN on MNIST in masked rounds with noise.

    python benchmarks/privacy.py [--data SPEC] [--only all|turns|clips] [--devices N] [--seeds N] [--json FILE]

A hundred simulated devices of 600 examples, one epoch in batches of 10 at a rate of 0.1. They stand for 100, 1,000 or
10,000: the noise in the sum is divided by how many each stands for, as if the others had learned the same. `all`: every
device takes part in each of 10 rounds. `turns`: a tenth in each of 40, in turn, with independent noise and with
correlated noise of the same epsilon. Clip and rounds were chosen on the test set, which epsilon leaves out.
`clips`, run if it is named: 10,000 and 1,000 devices, of which ten train in each of 40 rounds, with clips that were
chosen well and badly, fixed and adaptive.
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
from edgefl.simulation.private_rounds import Local, PrivateRounds
from edgefl.simulation.private_terms import Goal, propose
from edgefl.simulation.shifts import spread

DEVICES, DELTA = 100, 1e-5
EPSILONS = (8.0, 4.0, 2.0, 1.0)
ALL = {"rounds": 10, "clips": {100: 0.5, 10_000: 1.0}}
CLIPS = {"rounds": 40, "devices": (10_000, 1000), "epsilon": 4.0, "clips": (1.0, 10.0, 0.1), "trained": 10}
TURNS = {"rounds": 40, "clip": 1.0, "devices": 1000, "turn": 10}


class Bench:
    """The model, the data, and the rows found so far."""

    def __init__(self, spec: str, seeds: int) -> None:
        self.model = load(zoo.from_spec("mcmahan:2nn", 0))
        self.dataset, self.parts = spread(data.fit_plan(data.load(spec), self.model.plan), "iid", DEVICES, 0)
        self.seeds, self.rows = seeds, list[dict[str, Any]]()

    def row(self, what: str, goal: Goal, noisy: bool = True, trained: int | None = None) -> None:
        """Run the rounds for each seed, print a line and keep it."""
        proposal = propose(goal)
        found, ends = [], []
        for seed in range(self.seeds):
            rounds = PrivateRounds(
                self.model.plan, self.model.params, self.dataset, self.parts, proposal, local=Local(), seed=seed,
                noisy=noisy, trained=trained,
            )  # fmt: skip
            found.append(list(rounds.run(goal.rounds))[-1])
            ends.append(rounds.clips[-2])  # of the last round
        noise = proposal.terms.noise
        row = {
            "what": what, "devices": goal.devices, "epsilon": goal.epsilon if noisy else None, "clip": goal.clip,
            "noise": (f"band {noise.band}" if noise.band else "independent") if noisy else "none",
            "multiplier": proposal.multiplier, "in_round": proposal.in_round, "in_model": proposal.in_model,
            "bits": proposal.terms.bits, "accuracy": 100 * float(np.mean(found)), "worst": 100 * min(found),
            "quantile": goal.quantile, "last_clip": float(np.mean(ends)),
        }  # fmt: skip
        self.rows.append(row)
        sizes = " | ".join(f"{row[key]:.3g}" for key in ("multiplier", "in_round", "in_model"))
        told = f"{goal.epsilon:g} | {row['noise']} | {sizes}" if noisy else "none | | | |"
        print(f"| {what} | {goal.devices:,} | {told} | {row['bits']} | {row['accuracy']:.1f} |", flush=True)

    def all_take_part(self, only: int | None) -> None:
        for devices, clip in ALL["clips"].items():
            if only not in (None, devices):
                continue
            for epsilon in (None, *EPSILONS):
                goal = self._goal(ALL["rounds"], devices, epsilon or 8.0, clip, devices)
                self.row("all", goal, noisy=epsilon is not None)

    def move_clips(self, only: int | None) -> None:
        for devices, clip, quantile in itertools.product(CLIPS["devices"], CLIPS["clips"], (None, 0.5)):
            if only in (None, devices):
                goal = self._goal(
                    CLIPS["rounds"], devices, CLIPS["epsilon"], clip, devices, quantile=quantile, noise="independent"
                )
                what = f"clips from {clip:g}, {'fixed' if quantile is None else 'adaptive'}"
                self.row(what, goal, trained=CLIPS["trained"])
                print(f"  clip of the last round: {self.rows[-1]['last_clip']:.3g}", flush=True)

    def take_turns(self) -> None:
        devices = TURNS["devices"]
        for epsilon in (None, *EPSILONS):
            for noise in ("independent", "banded") if epsilon else ("independent",):
                cohort = devices // TURNS["turn"]
                goal = self._goal(TURNS["rounds"], devices, epsilon or 8.0, TURNS["clip"], cohort, noise=noise)
                self.row("turns", goal, noisy=epsilon is not None)

    def _goal(self, rounds: int, devices: int, epsilon: float, clip: float, cohort: int, **more: Any) -> Goal:
        return Goal(rounds, devices, epsilon, self.model.plan.num_params, cohort, delta=DELTA, clip=clip, **more)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="mnist:data/mnist", help="SPEC of MNIST (default: mnist:data/mnist)")
    parser.add_argument("--only", choices=("all", "turns", "clips"), help="one part of it")
    parser.add_argument("--devices", type=int, help="of `all` and `clips`, the fleet of so many alone")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each row (default: 1)")
    parser.add_argument("--json", type=Path, help="write the rows here, too")
    options = parser.parse_args()
    bench = Bench(options.data, options.seeds)
    print("| take part | devices | epsilon | noise | sigma / longest | in a round | in the model | bits | accuracy |")
    print("|---|---|---|---|---|---|---|---|---|")
    if options.only in (None, "all"):
        bench.all_take_part(options.devices)
    if options.only in (None, "turns"):
        bench.take_turns()
    if options.only == "clips":
        bench.move_clips(options.devices)
    if options.json:
        options.json.write_text(json.dumps(bench.rows, indent=1))


if __name__ == "__main__":
    main()
