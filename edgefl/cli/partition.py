"""`edgefl partition`: how a data set would be dealt out to a simulated fleet."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..plural import plural
from ..settings import Settings, schema
from ..simulation.options import FleetOptions
from .text import say
from .values import add_settings, at_least, given

if TYPE_CHECKING:
    from ..simulation.split.report import SplitReport, Spread

EXAMPLE = (
    "edgefl partition --data digits --devices 10 --partition dirichlet:0.3\n"
    "  edgefl partition --data mnist:DIR --devices 100 --partition pathological --out split.png"
)
SETTINGS = [setting for setting in schema.settings_of(FleetOptions) if setting.key in ("devices", "partition")]
MOST_COLUMNS = 12  # labels that have a column of their own
WIDTH = 20  # of a bar


def add_options(parser: argparse.ArgumentParser) -> None:
    """Show who would have which examples, before anyone trains on them.

    With the same data, devices, partition and seed, it is the very split of `edgefl simulate`.
    """
    group = parser.add_argument_group("the split")
    group.add_argument("--data", required=True, metavar="SPEC", help="as in edgefl simulate (docs/data.md)")
    add_settings(group, SETTINGS)
    default = Settings().train.seed
    group.add_argument("--seed", type=at_least(0), default=default, metavar="N", help=f"seed (default: {default})")
    group = parser.add_argument_group("what is shown")
    group.add_argument("--rows", type=at_least(0), default=20, metavar="N", help="devices in the table (default: 20)")
    group.add_argument("--out", type=Path, metavar="FILE", help="draw the split: a .png, .svg or .pdf file")
    group.add_argument("--json", action="store_true", help="print JSON, with all devices, instead of text")
    parser.set_defaults(command=_partition)


def _partition(options: argparse.Namespace) -> int:
    from .. import data
    from ..settings.schema import checked
    from ..simulation.split.report import report
    from ..simulation.split.shifts import check, spread

    wanted = checked(FleetOptions(**given(options, SETTINGS)))
    check(wanted.partition)
    dataset, parts = spread(data.load(options.data, seed=options.seed), wanted.partition, wanted.devices, options.seed)
    found = report(dataset, parts, partition=wanted.partition, seed=options.seed)
    if options.out is not None:
        from ..simulation.split.picture import draw

        draw(found, options.out)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        _print(found, options.rows)
    return 0


def _print(found: SplitReport, rows: int) -> None:
    for line in _table(found)[: rows + 1 if rows else 0]:
        say(line)
    if 0 < rows < found.devices:
        say(f"... and {found.devices - rows} more: --rows {found.devices} shows them all")
    unused = f", {found.unused} unused" if found.unused else ""
    what = f"{plural(found.devices, 'device')}, {plural(found.examples, 'example')}"
    say(f"{what}{unused}; partition {found.partition}, seed {found.seed}")
    say(f"examples a device: {_range(found.size)}; the largest tenth of the devices has {found.tenth:.0%} of them")
    if found.labels_each is not None:
        say(f"labels a device: {_range(found.labels_each)} of {len(found.labels)}")
    _print_distance("labels", found.label_distance, found.label_distance_by_chance, percent=True)
    _print_distance("features", found.feature_distance, found.feature_distance_by_chance)


def _table(found: SplitReport) -> list[str]:
    """A heading, and a line for each device."""
    narrow = 0 < len(found.labels) <= MOST_COLUMNS
    width = len(f"dev-{found.devices - 1}")
    digits = len(str(found.devices - 1))
    cells = [name[:8] for name in found.labels] if narrow else ["labels"] if found.labels else []
    wide = [max(len(cell), 5) for cell in cells]
    lines = [f"{'device':{width}}  {'examples':>8}  {'':{WIDTH}}" + _row(cells, wide)]
    most = max(found.sizes)
    for number, size in enumerate(found.sizes):
        counts = found.counts[number] if found.counts else []
        cells = [str(count or ".") for count in counts] if narrow else [str(sum(map(bool, counts)))] if counts else []
        bar = "█" * max(1, round(WIDTH * size / most))
        lines.append(f"{f'dev-{number:0{digits}}':{width}}  {size:>8}  {bar:{WIDTH}}" + _row(cells, wide))
    return lines


def _row(cells: list[str], widths: list[int]) -> str:
    return "".join(f" {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def _range(spread: Spread) -> str:
    return f"{spread.least:g} to {spread.most:g}, half of them at most {spread.median:g}"


def _print_distance(what: str, found: Spread | None, chance: Spread | None, percent: bool = False) -> None:
    if found is None or chance is None:
        return
    one, other = ((f"{value:.0%}" if percent else f"{value:.2f}") for value in (found.median, chance.median))
    most = f"{found.most:.0%}" if percent else f"{found.most:.2f}"
    units = "of its examples" if percent else "standard deviations"
    say(f"{what}, distance of a device from the whole: median {one} {units}, most {most}; by chance alone {other}")
