"""`edgefl tune`: its options, and what it prints. The work is in edgefl/experiments/."""

from __future__ import annotations

import argparse

import msgspec

from ..atomic import write_atomically
from ..errors import UsageError
from ..hosting import command
from .compare import add_experiment, at_work, ended
from .text import say

EXAMPLE = "edgefl tune experiment.toml --out comparison"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Search learning rate, epochs, codec or any other setting for each strategy, with an equal number of trials.

    Trials are judged by examples that the devices hold out. They are the first part of edgefl compare, which takes the
    best of each strategy, and finds the trials below the same --out.
    """
    add_experiment(parser)
    add = parser.add_argument_group("the output").add_argument
    add("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(command=_tune)


def _tune(options: argparse.Namespace) -> int:
    from ..experiments import tables
    from ..experiments.comparison import Comparison
    from ..experiments.experiment import Experiment
    from ..experiments.tuning import is_wanted, tune

    if options.print_config:
        return command.print_config(options, Experiment)
    with at_work(options) as (grid, folder):
        if not is_wanted(grid):
            raise UsageError("nothing to tune: list values in [tune.grid], such as lr = [0.03, 0.1, 0.3]")
        if options.json:
            folder.say = lambda line: None
        found = Comparison(grid, tune(grid, folder), {}, dict(folder.failed))
        text = tables.tuning(found)
        write_atomically(folder.path / "tuning.md", text.encode())
    if options.json:
        rows = [
            {"strategy": variant, "partition": partition, "best": tuned.best, "at_edge": tuned.at_edge,
             "trials": [{"point": each.point, "held_out": each.score, "rounds": each.rounds} for each in tuned.trials]}
            for (variant, partition), tuned in found.tuned.items()
        ]  # fmt: skip
        say(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
    else:
        say(f"\n{text}\nwritten to {options.out}: tuning.md")
    return ended(found)
