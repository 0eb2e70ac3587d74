"""What the commands that give an aggregator an order have in common: its state folder, and its answer."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from ..hosting.config import AggregatorConfig
from ..hosting.log_lines import print_error
from ..hosting.orders import WAIT_S, Order, give
from .text import say

STATE_DIR = next(field.default for field in msgspec.structs.fields(AggregatorConfig) if field.name == "state_dir")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where the aggregator is."""
    add = parser.add_argument_group("the aggregator").add_argument
    add("--state-dir", metavar="DIR", type=Path, default=Path(STATE_DIR), help="the aggregator's state_dir")


def carry_out(options: argparse.Namespace, order: Order, wait_s: float = WAIT_S) -> int:
    """Give the order, and print what became of it; returns the exit code."""
    answer = give(options.state_dir, order, wait_s)
    if answer is None:
        say(
            f"no answer within {wait_s:g} s: the order waits in {options.state_dir}/orders; the aggregator carries it "
            "out when it starts, or is connected again"
        )
    elif answer.done:
        say(answer.text)
    else:
        print_error(answer.text)
        return 1
    return 0
