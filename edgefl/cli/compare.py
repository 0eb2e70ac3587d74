"""`edgefl compare`: its options, and the files that it writes. The work is in edgefl/experiments/."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..atomic import write_atomically
from ..errors import EdgeFLError, UsageError
from ..hosting import command, daemon
from ..plural import plural
from .text import say
from .values import at_least

if TYPE_CHECKING:
    from ..experiments.comparison import Comparison
    from ..experiments.folder import Folder
    from ..experiments.grid import Grid

EXAMPLE = "edgefl compare experiment.toml --out comparison\n  edgefl compare --print-config > experiment.toml"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Compare strategies, codecs and partitions over several seeds, with intervals.

    Each finished run is a file below --out, so that what was interrupted goes on, and strategies can be added later. It
    writes table.md, runs.csv and a figure for each cost there.
    """
    add_experiment(parser)
    add = parser.add_argument_group("a run from elsewhere").add_argument
    help = "add this run to the folder: a folder of edgefl simulate or an aggregator, a history, or a CSV file"
    add("--add", type=Path, metavar="RUN", help=help)
    add("--as", dest="name", metavar="NAME", help="the name of its row")
    add("--partition", metavar="P", help="the partition with which it stands (default: its own, else the first)")
    add("--faults", metavar="F", help="the faults with which it stands (default: its own, else the first)")
    add("--seed", type=at_least(0), metavar="N", help="runs with this seed are its pairs (default: its own, else none)")
    add = parser.add_argument_group("the output").add_argument
    add("--no-figures", action="store_true", help="draw nothing; else matplotlib is needed")
    add("--json", action="store_true", help="print JSON: of each row, [mean, half of interval, seeds]")
    parser.set_defaults(command=_compare)


def add_experiment(parser: argparse.ArgumentParser) -> None:
    """The options of a command that runs an experiment."""
    add = parser.add_argument_group("the experiment").add_argument
    add("file", metavar="FILE", nargs="?", help="what is compared, in TOML; --print-config writes a sample")
    command.add_set_option(add)
    add("--out", type=Path, metavar="DIR", help="the folder of all runs and of what comes of them")
    add("--jobs", type=at_least(1), metavar="N", help="runs at once, each a process (default: one for each core)")
    add("--print-config", action="store_true", help="print a sample of FILE with every setting, and end")


def _compare(options: argparse.Namespace) -> int:
    from ..experiments import figures, tables
    from ..experiments.comparison import compare
    from ..experiments.experiment import Experiment

    if options.print_config:
        return command.print_config(options, Experiment)
    _check_add(options)
    if options.add is not None and options.file is None:
        with in_folder(options) as folder:
            _add(options, folder, None)
        return 0
    with at_work(options) as (grid, folder):
        if options.json:
            folder.say = lambda line: None
        if options.add is not None:
            _add(options, folder, grid)
        found = compare(grid, folder)
        write_atomically(folder.path / "table.md", (text := tables.text(found)).encode())
        write_atomically(folder.path / "runs.csv", tables.csv_text(found).encode())
        drawn = [] if options.no_figures else figures.draw(found, folder.path)
    if options.json:
        say(msgspec.json.format(msgspec.json.encode(tables.rows_of(found)), indent=2).decode())
        return ended(found)
    say(f"\n{text}")
    say(f"written to {options.out}: table.md, runs.csv" + "".join(f", {path.name}" for path in drawn))
    return ended(found)


def _check_add(options: argparse.Namespace) -> None:
    if (options.add is None) != (options.name is None):
        raise UsageError("give --add RUN and --as NAME together: the run, and the name of its row")
    given = [name for name in ("partition", "faults", "seed") if getattr(options, name) is not None]
    if given and options.add is None:
        raise UsageError(f"--{given[0]} says where a run that is added stands: give --add RUN and --as NAME too")


def _add(options: argparse.Namespace, folder: Folder, grid: Grid | None) -> None:
    """Take the run of --add into the folder; UsageError if a row of the experiment, if there is one, has its name."""
    from ..experiments.added import keep, read_run

    said = {name: getattr(options, name) for name in ("partition", "faults", "seed")}
    said = {name: value for name, value in said.items() if value is not None}
    run = msgspec.structs.replace(read_run(options.add, options.name), **said)
    if grid is not None and run.name in grid.variants:
        raise UsageError(f"{run.name} is a row of the experiment: add the run --as another name")
    was_there = keep(folder.path, run)
    rounds = f"{len(run.curve.rounds)} round{'s' * (len(run.curve.rounds) > 1)}"
    folder.say(f"{'renewed' if was_there else 'added'}: {run.name}, {rounds} of {run.source}")


@contextmanager
def at_work(options: argparse.Namespace) -> Iterator[tuple[Grid, Folder]]:
    """The experiment of the options, and its folder."""
    from ..experiments.experiment import Experiment
    from ..experiments.grid import Grid
    from ..settings import files

    if options.file is None or options.out is None:
        raise UsageError("give FILE and --out DIR; --print-config prints a sample of FILE")
    grid = Grid(files.load(options.file, Experiment, options.set))
    with in_folder(options) as folder:
        yield grid, folder


@contextmanager
def in_folder(options: argparse.Namespace) -> Iterator[Folder]:
    """The folder of the options."""
    from ..experiments.folder import opened

    if options.out is None:
        raise UsageError("give --out DIR, the folder of the experiment")
    jobs = options.jobs or os.cpu_count() or 1
    with daemon.unwind_on_termination(), opened(options.out, jobs, say) as folder:
        yield folder


def ended(found: Comparison) -> int:
    """The exit code; EdgeFLError if runs are missing."""
    if found.failed:
        failed = plural(len(found.failed), "run")
        raise EdgeFLError(f"{failed} failed: the table says why; the next call tries them again")
    return 0
