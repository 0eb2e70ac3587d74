"""`edgefl demo`: its options, and the run."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..hosting import daemon
from .text import say
from .values import at_least

EXAMPLE = "edgefl demo --devices 6 --rounds 12 --out /tmp/demo"


def add_options(parser: argparse.ArgumentParser) -> None:
    """A broker, an aggregator and ten agents on this machine, two of which lose power half way."""
    add = parser.add_argument_group("the run").add_argument
    add("--devices", type=at_least(1), default=10, metavar="N", help="agents that are started, at least 4")
    add("--rounds", type=at_least(1), default=30, metavar="R", help="rounds that are run, at least 8")
    add("--seed", type=at_least(0), default=0, metavar="S", help="seed of the model and of the split of the data")
    add("--out", type=Path, default=Path("edgefl-run"), metavar="DIR", help="folder for the results and all logs")
    parser.set_defaults(command=_demo)


def _demo(options: argparse.Namespace) -> int:
    from ..simulation.demo import run_demo

    with daemon.unwind_on_termination():
        run_demo(options.out, options.devices, options.rounds, options.seed, say)
    return 0
