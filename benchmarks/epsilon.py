"""Accuracy against epsilon: McMahan's 2NN and CNN, and a smaller net, on MNIST in masked rounds with noise.

    python benchmarks/epsilon.py [--data SPEC] [--models 2nn cnn small] [--parts NAME ...] [--devices N ...]
                                 [--epsilons X ...] [--seeds N ...] [--runs FOLDER] [--kept] [--figure PNG]
                                 [--json FILE]

A hundred simulated devices of 600 examples, IID, one epoch in batches of 10 at a rate of 0.1. In a round ten of them
(of the CNN five) train, in turn, and stand for all that take part: 100, 1,000 or 10,000, by whose number the noise in
the sum is divided, as if the others had learned the same. An epsilon of 0 stands for the clip without noise.

    all            every device takes part in every round
    quarter        the same, and a round sends 1/4 of the coordinates
    sixteenth      the same with 1/16
    turns          a tenth of the devices in each round; independent noise, and correlated of the same epsilon
    whole, five    `all`, but all hundred train in each round, or five: what it costs that few stand for all

Clips and rounds were chosen on the test set, which epsilon leaves out. A run is kept as a JSON file in FOLDER, and not
repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
sys.path.insert(0, str(Path(__file__).parent / "lib"))

import epsilon_plot
import numpy as np

from edgefl import data
from edgefl.core.trainer import Diverged
from edgefl.onnx import zoo
from edgefl.onnx.load import load
from edgefl.simulation.privacy.rounds import Local, PrivateRounds
from edgefl.simulation.privacy.terms import Goal, Proposal, propose
from edgefl.simulation.split.shifts import spread

HEAD = (
    "| model | take part | devices | rounds | clip | epsilon | noise | sigma / longest | in a round | in the model | "
    "bits | update | accuracy, % |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)
DEVICES, DELTA = 100, 1e-5
EPSILONS = (0.0, 8.0, 4.0, 2.0, 1.0)


@dataclass(frozen=True)
class Net:
    """A model, its rounds and its clips by fleet; of the simulated devices so many train in a round."""

    spec: str
    rounds: int
    trained: int
    clips: dict[int, float]


NETS = {
    "2nn": Net("mcmahan:2nn", 40, 10, {100: 0.125, 1000: 1.0, 10_000: 1.0}),
    "cnn": Net("mcmahan:cnn", 12, 5, {100: 0.5, 1000: 0.5, 10_000: 2.0}),
    "small": Net("mlp:784-32-10", 40, 10, {100: 0.125, 1000: 1.0, 10_000: 1.0}),
}


@dataclass(frozen=True)
class Part:
    """A part of the table: fleets, and how they take part."""

    devices: tuple[int, ...] = (100, 10_000)
    separation: int = 1
    share: float = 1.0
    noises: tuple[str, ...] = ("independent",)
    trained: int | None = None  # None: as many as of the Net


PARTS = {
    "all": Part(),
    "quarter": Part(share=1 / 4),
    "sixteenth": Part(share=1 / 16),
    "turns": Part(devices=(1000, 10_000), separation=10, noises=("independent", "banded")),
    "whole": Part(trained=DEVICES),
    "five": Part(trained=5),
}


@dataclass(frozen=True)
class Case:
    """A line of the table; `noise` is "none" at an epsilon of 0."""

    model: str
    part: str
    devices: int
    epsilon: float
    noise: str
    clip: float | None = None

    def path(self, folder: Path, seed: int) -> Path:
        rounds, clip = NETS[self.model].rounds, self._clip
        return (
            folder
            / f"{self.model}-{self.part}-{self.devices}-{self.epsilon:g}-{self.noise}-{rounds}-{clip:g}-{seed}.json"
        )

    @property
    def _clip(self) -> float:
        return self.clip or NETS[self.model].clips[self.devices]

    def goal(self, params: int) -> Goal:
        part = PARTS[self.part]
        return Goal(
            NETS[self.model].rounds, self.devices, self.epsilon or 8.0, params, self.devices // part.separation,
            delta=DELTA, clip=self._clip, share=part.share, noise="banded" if self.noise == "banded" else "independent",
        )  # fmt: skip


def cases(options: argparse.Namespace) -> Iterator[Case]:
    for model in options.models:
        for name in options.parts:
            part = PARTS[name]
            for devices in part.devices:
                if options.devices and devices not in options.devices:
                    continue
                for epsilon in options.epsilons:
                    for noise in part.noises if epsilon else ("none",):
                        yield Case(model, name, devices, epsilon, noise, options.clip)


class Bench:
    """A model and the devices' examples, and what came of their rounds."""

    def __init__(self, model: str, spec: str) -> None:
        self.plan = load(zoo.from_spec(NETS[model].spec, 0)).plan
        self.model, self.data = model, data.fit_plan(data.load(spec), self.plan)

    def row(self, case: Case, seeds: list[int], folder: Path) -> dict[str, Any]:
        """The case's line: means over the seeds of the accuracy after the last round."""
        proposal = propose(case.goal(self.plan.num_params))
        kept = [self._kept(case, proposal, seed, folder) for seed in seeds]
        found = [math.nan if each is None else each for each in kept]
        goal, terms = proposal.goal, proposal.terms
        return {
            "model": case.model, "part": case.part, "devices": case.devices, "epsilon": case.epsilon,
            "noise": f"band {terms.noise.band}" if terms.noise.band else case.noise, "rounds": goal.rounds,
            "clip": goal.clip, "multiplier": proposal.multiplier, "in_round": proposal.in_round,
            "in_model": proposal.in_model, "bits": terms.bits, "update_bytes": terms.packed_bytes, "seeds": len(seeds),
            "accuracy": 100 * float(np.mean(found)), "worst": 100 * min(found), "best": 100 * max(found),
        }  # fmt: skip

    def _kept(self, case: Case, proposal: Proposal, seed: int, folder: Path) -> float | None:
        path = case.path(folder, seed)
        if not path.exists():
            accuracy = self._run(case, proposal, seed)
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"accuracy": accuracy}))
        kept: float | None = json.loads(path.read_text())["accuracy"]
        return kept

    def _run(self, case: Case, proposal: Proposal, seed: int) -> float | None:
        """The accuracy after the last round; None where a device's training diverged."""
        params = load(zoo.from_spec(NETS[self.model].spec, seed)).params
        dataset, parts = spread(self.data, "iid", DEVICES, seed)
        rounds = PrivateRounds(
            self.plan, params, dataset, parts, proposal, local=Local(), seed=seed, noisy=case.noise != "none",
            trained=PARTS[case.part].trained or NETS[self.model].trained,
        )  # fmt: skip
        try:
            return list(rounds.run(every=proposal.goal.rounds))[-1]
        except Diverged:
            return None


def told(row: dict[str, Any]) -> str:
    """The row as a line of a table."""
    noise = " | ".join(f"{row[key]:.3g}" if row["epsilon"] else "" for key in ("multiplier", "in_round", "in_model"))
    spread = f" ({row['worst']:.1f} to {row['best']:.1f})" if row["seeds"] > 1 else ""
    accuracy = "diverges" if math.isnan(row["accuracy"]) else f"{row['accuracy']:.1f}{spread}"
    return (
        f"| {row['model']} | {row['part']} | {row['devices']:,} | {row['rounds']} | {row['clip']:g} | "
        f"{row['epsilon']:g} | {row['noise']} | {noise} | {row['bits']} | {row['update_bytes'] / 1e6:.3g} MB | "
        f"{accuracy} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", default=f"mnist:{os.environ.get('EDGEFL_SHARED', '.')}/data/mnist", metavar="SPEC")
    parser.add_argument("--models", nargs="+", choices=NETS, default=["2nn"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["all", "turns"])
    parser.add_argument("--devices", nargs="+", type=int, metavar="N", help="of the parts' fleets, these alone")
    parser.add_argument("--epsilons", nargs="+", type=float, default=list(EPSILONS), metavar="X")
    parser.add_argument("--clip", type=float, metavar="X", help="instead of the clips chosen here")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], metavar="N", help="one number, or one a model")
    parser.add_argument("--runs", type=Path, default=Path("build/epsilon"), metavar="FOLDER")
    parser.add_argument("--kept", action="store_true", help="run nothing: tell what FOLDER has")
    parser.add_argument("--figure", type=Path, metavar="PNG")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here, too")
    options = parser.parse_args()
    folder = options.data.removeprefix("mnist:")
    if options.data.startswith("mnist:") and not Path(folder).is_dir():
        print(f"epsilon: skipped, no MNIST in {folder}: give --data mnist:DIR")
        return 0
    print(HEAD)
    benches, rows = {model: Bench(model, options.data) for model in options.models}, []
    for case in cases(options):
        seeds = range(options.seeds[min(options.models.index(case.model), len(options.seeds) - 1)])
        chosen = [seed for seed in seeds if not options.kept or case.path(options.runs, seed).exists()]
        if not chosen:
            continue
        rows.append(benches[case.model].row(case, chosen, options.runs))
        print(told(rows[-1]), flush=True)
    if options.figure:
        epsilon_plot.draw(rows, options.figure)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
