"""`edgefl versions`: its options, and its table."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime

import msgspec

from ..hosting.acting import as_owner_of
from ..hosting.versions import Kept, opened
from . import orders
from .text import say

EXAMPLE = "edgefl versions\n  edgefl versions --json"
HEAD = f"{'version':>7}  {'round':>6}  {'committed':19}  {'accuracy':>8}  {'loss':>9}  {'MB':>7}  tags"


def add_options(parser: argparse.ArgumentParser) -> None:
    """List the versions of the model that an aggregator keeps, with their scores and tags.

    It reads the state folder, whether the aggregator runs or not.
    """
    parser.add_argument_group("how to print").add_argument("--json", action="store_true", help="print a JSON array")
    orders.add_options(parser)
    parser.set_defaults(command=show)


def show(options: argparse.Namespace) -> int:
    """Print the table; StoreError, UsageError."""
    with as_owner_of(options.state_dir), opened(options.state_dir) as versions:
        found = versions.kept()
    if options.json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return 0
    say(HEAD)
    for kept in found:
        say(_line(kept))
    return 0


def _line(kept: Kept) -> str:
    when = datetime.fromtimestamp(kept.closed_at).isoformat(" ") if kept.closed_at else ""
    accuracy = "" if kept.accuracy is None else f"{kept.accuracy:.4f}"
    loss = "" if kept.loss is None else f"{kept.loss:.4g}"
    back = "" if kept.restored is None else f" (version {kept.restored} again)"
    return (
        f"{kept.version:>7}  {'' if kept.round is None else kept.round:>6}  {when:19}  {accuracy:>8}  {loss:>9}  "
        f"{kept.bytes / 1e6:>7.2f}  {', '.join(kept.tags)}{back}"
    ).rstrip()
