"""`edgefl release`: its options."""

from __future__ import annotations

import argparse

from ..hosting.orders import Release
from . import orders

EXAMPLE = "edgefl release pi-07"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let a device in again that is in quarantine or muted.

    It is asked again from the next round on, and judged anew: what was refused before does not count.
    """
    group = parser.add_argument_group("the device")
    group.add_argument("device", metavar="NAME", help="its id")
    orders.add_options(parser)
    parser.set_defaults(command=lambda options: orders.carry_out(options, Release(options.device)))
