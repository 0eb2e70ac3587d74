"""`edgefl rollback`: its options."""

from __future__ import annotations

import argparse

from ..hosting.orders import Rollback
from . import orders
from .values import at_least

EXAMPLE = "edgefl rollback --to 41"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Make an earlier version's model the newest again.

    The aggregator commits it as a new version; a round that is open ends with that. Of the last `keep_models` versions
    history.jsonl tells what each was worth.
    """
    group = parser.add_argument_group("the model")
    group.add_argument("--to", type=at_least(0), required=True, metavar="VERSION", help="the version to go back to")
    orders.add_options(parser)
    parser.set_defaults(command=lambda options: orders.carry_out(options, Rollback(options.to)))
