"""`edgefl rollback`: its options."""

from __future__ import annotations

import argparse

from ..hosting.acting import as_owner_of
from ..hosting.orders import Rollback
from ..hosting.versions import opened
from . import orders

EXAMPLE = "edgefl rollback --to 41\n  edgefl rollback --to best"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Make an earlier version's model the newest again.

    The aggregator commits it as a new version; a round that is open ends with that. `edgefl versions` lists those that
    are kept: the last `keep_models`, and tagged ones.
    """
    group = parser.add_argument_group("the model")
    group.add_argument("--to", required=True, metavar="VERSION", help="the version, tag or best to go back to")
    orders.add_options(parser)
    parser.set_defaults(command=carry_out)


def carry_out(options: argparse.Namespace) -> int:
    """UsageError for a name that no tag may have."""
    if options.to.isdecimal():
        return orders.carry_out(options, Rollback(int(options.to)))
    with as_owner_of(options.state_dir), opened(options.state_dir) as versions:
        version = versions.find(options.to)
    return orders.carry_out(options, Rollback(version))
