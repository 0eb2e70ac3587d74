"""`edgefl pause`: its options."""

from __future__ import annotations

import argparse

from ..hosting.orders import Pause
from ..protocol.topics import check_device_id
from . import orders

EXAMPLE = "edgefl pause pi-07 --why repair"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Ask a device no more, until `edgefl resume`.

    Rounds neither ask the device nor wait for it, and an update of it that is under way does not count. The aggregator
    remembers that over restarts. The device itself is told nothing, and stays connected.
    """
    group = parser.add_argument_group("the device")
    group.add_argument("device", metavar="NAME", help="its id")
    group.add_argument("--why", metavar="TEXT", default="", help="what viewers are shown, at most 160 characters")
    orders.add_options(parser)
    parser.set_defaults(command=carry_out)


def carry_out(options: argparse.Namespace) -> int:
    """Give the order; returns the exit code."""
    return orders.carry_out(options, Pause(check_device_id(options.device), options.why[:160]))
