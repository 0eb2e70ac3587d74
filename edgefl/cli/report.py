"""`edgefl report`: its options, and the file that it writes."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ..atomic import write_atomically
from ..errors import EdgeFLError, UsageError
from ..history import Run
from ..history_files import NEWEST, HistoryFiles
from ..hosting.acting import as_owner_of
from .text import say

EXAMPLE = "edgefl report /var/lib/edgefl-aggregator report.html"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Write a run as one HTML file: its curves, rounds, devices and models.

    The file is the dashboard's page. It needs no server and no network, and can be opened, sent and kept.
    """
    add = parser.add_argument_group("the run, and where the page goes").add_argument
    add("run", metavar="RUN", type=Path, help="an aggregator's state_dir, or the --out folder of a simulation")
    add("file", metavar="FILE", type=Path, nargs="?", help="the file to write; else report.html")
    parser.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> int:
    from ..board.page import whole
    from ..board.report import report

    folder, file = options.run, options.file or Path("report.html")
    if not folder.is_dir() or not any(folder.glob("history*.jsonl")):
        raise UsageError(
            f"{folder} has no {NEWEST}: give an aggregator's state_dir, or the --out folder of a simulation"
        )
    with as_owner_of(folder):
        run = Run.read(folder / "run.json")
        page = whole(report(_name_of(folder), HistoryFiles(folder).records(), run, time.time()))
    try:
        write_atomically(file, page.encode())
    except OSError as error:
        raise UsageError(f"can't write {file}: {error.strerror}: name a file in a folder that exists") from None
    say(f"{file}: open it in a browser")
    return 0


def _name_of(folder: Path) -> str:
    """The federation's name, which an aggregator's state has; else that of the folder."""
    from ..hosting.versions import opened

    try:
        with opened(folder) as versions:
            return versions.meta("federation") or folder.resolve().name
    except EdgeFLError:
        return folder.resolve().name
