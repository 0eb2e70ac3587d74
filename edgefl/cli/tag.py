"""`edgefl tag`: its options."""

from __future__ import annotations

import argparse

from ..errors import UsageError
from ..hosting.orders import Name
from ..hosting.versions import check_name
from . import orders
from .values import at_least

EXAMPLE = "edgefl tag 41 before-summer\n  edgefl tag --remove before-summer"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a version of the model a name, which keeps it from being dropped.

    `edgefl rollback` and `edgefl download` take the name in place of the version. The tag `best` is the aggregator's:
    it follows the version with the best score.
    """
    add = parser.add_argument_group("the version").add_argument
    add("version", nargs="?", type=at_least(0), metavar="VERSION", help="the version: see edgefl versions")
    add("name", nargs="?", metavar="NAME", help="its name; a version that has it already loses it")
    add("--remove", metavar="NAME", help="take a name away instead")
    orders.add_options(parser)
    parser.set_defaults(command=carry_out)


def carry_out(options: argparse.Namespace) -> int:
    """UsageError for a name that no tag may have."""
    given = (options.version is not None, options.name is not None)
    if options.remove is not None and not any(given):
        return orders.carry_out(options, Name(check_name(options.remove)))
    if options.remove is not None or not all(given):
        raise UsageError("give a VERSION and a NAME, or --remove NAME")
    return orders.carry_out(options, Name(check_name(options.name), options.version))
