"""`edgefl forget`: its options."""

from __future__ import annotations

import argparse

from ..hosting.orders import Forget
from ..protocol.topics import check_device_id
from . import orders

LARGE_FLEET_S = 60.0  # all records are written anew
EXAMPLE = "edgefl forget pi-07"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Remove what is left of a device that is gone for good.

    Its retained messages are cleared from the broker. In the aggregator's folder it is cut out of the records of all
    rounds, and its late updates and requests to be enrolled are deleted; sums and models stay as they are, and so does
    a journal. Stop the device's agent first, or revoke the device. Its name may be enrolled again.
    """
    group = parser.add_argument_group("the device")
    group.add_argument("device", metavar="NAME", help="its id")
    orders.add_options(parser)
    parser.set_defaults(command=carry_out)


def carry_out(options: argparse.Namespace) -> int:
    """Give the order; returns the exit code."""
    return orders.carry_out(options, Forget(check_device_id(options.device)), LARGE_FLEET_S)
