"""`edgefl status`: its options, and when it prints. What it prints is made in edgefl/viewer/."""

from __future__ import annotations

import argparse
import difflib
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..hosting.command import add_set_option, check_sets
from .text import say
from .values import at_least

if TYPE_CHECKING:
    from ..protocol.fleet import DeviceRow
    from ..viewer.config import ViewerConfig
    from ..viewer.picture import Picture
    from ..viewer.reader import Reader

EXAMPLE = """edgefl status --config viewer.toml
  edgefl status --broker mqtt://localhost --federation my-fleet --watch"""
REDRAW_S = 1.0
REFRESH_S = 5.0  # times that pass are shown anew
LINES = 24  # of a terminal that does not say


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the fleet is doing: every device, the open round, the last rounds.

    It reads what the aggregator keeps on the broker, and needs no access to the aggregator's machine. Where keys are
    on, `edgefl keys add DIR NAME --viewer` gives it a certificate and a viewer.toml.
    """
    add = parser.add_argument_group("the federation").add_argument
    add("--config", metavar="FILE", type=Path, help="a viewer.toml, or the agent.toml of an open federation")
    add("--broker", metavar="URL", help="in place of a file: mqtt://host:port")
    add("--federation", metavar="NAME", help="in place of a file: the federation's name")
    add_set_option(add, "mqtt.root=acme/fl")
    add = parser.add_argument_group("what is shown").add_argument
    add("devices", nargs="*", metavar="NAME", help="these devices only")
    add("--troubled", action="store_true", help="only devices that need an operator, twenty at most")
    add("--watch", action="store_true", help="go on until Ctrl-C, and show every change")
    add("--json", action="store_true", help="print JSON; with --watch, one line for each change")
    add("--wait", type=at_least(1), default=10, metavar="S", help="seconds to wait for the broker")
    parser.set_defaults(command=show)


def show(options: argparse.Namespace) -> int:
    """Print once, or until Ctrl-C; returns the exit code."""
    from ..viewer.reader import Reader

    config = _config(options)
    with Reader(config, rows=not options.troubled) as reader:
        picture = reader.load(options.wait)
        if not options.watch:
            _print(picture, options)
            return 0
        with suppress(KeyboardInterrupt):
            _watch(reader, options)
        return 0


def _config(options: argparse.Namespace) -> ViewerConfig:
    from ..settings import files
    from ..viewer.config import ViewerConfig, load

    check_sets(options.set)
    if options.config is not None:
        if options.broker or options.federation:
            raise UsageError("--config says where the federation is: leave --broker and --federation out")
        return load(options.config, options.set)
    if not (options.broker and options.federation):
        raise UsageError("which federation? Give --config viewer.toml, or --broker mqtt://host and --federation NAME")
    table = {"federation": options.federation, "mqtt": {"url": options.broker}}
    return files.build(ViewerConfig, table, options.set)


def _watch(reader: Reader, options: argparse.Namespace) -> None:
    shown, drawn_at = -1, 0.0
    while True:
        reader.turn(REDRAW_S / 4)
        now = time.monotonic()
        due = REDRAW_S if reader.picture.changed != shown else REFRESH_S
        if now < drawn_at + due or (options.json and reader.picture.changed == shown):
            continue
        shown, drawn_at = reader.picture.changed, now
        _print(reader.picture, options, lost=reader.lost)


def _print(picture: Picture, options: argparse.Namespace, lost: str = "") -> None:
    if options.json:
        _print_json(picture, options)
        return
    from ..viewer.table import in_order, render

    assert picture.summary is not None
    is_screen = sys.stdout.isatty()
    size = shutil.get_terminal_size((100, LINES))
    rows = _chosen(picture, options)
    lines = render(picture, time.time(), size.columns if is_screen else 120, in_order(rows, picture.summary.troubled))
    if lost:
        lines.insert(0, f"no connection to the broker ({lost}); this is what was known before")
    if options.watch and is_screen:
        room = size.lines - 2
        more = len(lines) - room
        lines = lines[:room] + ([f"... {more} more lines: edgefl status without --watch shows all"] if more > 0 else [])
        sys.stdout.write("\x1b[H\x1b[2J")
    say("\n".join(lines))


def _chosen(picture: Picture, options: argparse.Namespace) -> list[DeviceRow]:
    assert picture.summary is not None
    rows = picture.summary.troubled if options.troubled else picture.devices
    if not options.devices:
        return rows
    known = {row.id: row for row in rows}
    if missing := [name for name in options.devices if name not in known]:
        close = difflib.get_close_matches(missing[0], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "edgefl status without names lists all"
        raise UsageError(f"{missing[0]} is no device of this federation: {hint}")
    return [known[name] for name in options.devices]


def _print_json(picture: Picture, options: argparse.Namespace) -> None:
    import msgspec

    from ..viewer.remedy import problem, remedy

    rows = [
        {**msgspec.to_builtins(row), "problem": problem(row), "remedy": remedy(row)}
        for row in _chosen(picture, options)
    ]
    found = {
        "summary": msgspec.to_builtins(picture.summary), "devices": rows, "stale": picture.is_stale(time.time()),
        "verified": picture.verified,
    }  # fmt: skip
    raw = msgspec.json.encode(found)
    say((raw if options.watch else msgspec.json.format(raw, indent=2)).decode())
