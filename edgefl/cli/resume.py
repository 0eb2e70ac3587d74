"""`edgefl resume`: its options."""

from __future__ import annotations

import argparse

from ..hosting.orders import Resume
from ..protocol.topics import check_device_id
from . import orders

EXAMPLE = "edgefl resume pi-07"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Ask a device again that `edgefl pause` has paused, from the next round on."""
    group = parser.add_argument_group("the device")
    group.add_argument("device", metavar="NAME", help="its id")
    orders.add_options(parser)
    parser.set_defaults(command=carry_out)


def carry_out(options: argparse.Namespace) -> int:
    """Give the order; returns the exit code."""
    return orders.carry_out(options, Resume(check_device_id(options.device)))
