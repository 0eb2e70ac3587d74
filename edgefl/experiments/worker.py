"""A process that runs cases: a line of JSON for each on standard input, and on standard output a line when it is done.

Results are files, written whole before the line. pool.py starts it as `python -m edgefl.experiments.worker`.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import BinaryIO

import msgspec

from ..atomic import write_atomically
from ..errors import EdgeFLError
from .cases import Case

LOOK_S = 0.5  # between two looks whether another process has ended a run
JOURNAL = ".journal"  # ending of a file beside the result that is to come: what a run that was stopped goes on from


class Task(msgspec.Struct, frozen=True):
    """A case, and the file for its result."""

    case: Case
    path: str


class Answer(msgspec.Struct, frozen=True):
    """What became of a task: "" if its result is in the file, else why not."""

    error: str = ""


def serve(tasks: BinaryIO, answers: BinaryIO) -> None:
    """Until there is no further task."""
    for line in tasks:
        answers.write(msgspec.json.encode(run(msgspec.json.decode(line, type=Task))) + b"\n")
        answers.flush()


def run(task: Task) -> Answer:
    """Run a task's case; an error of ours is an answer, any other ends the process. A process that has outlived a
    command that was killed may be at the same run: its result serves as well."""
    from ..simulation.resume.journal_file import Busy
    from .measure import measure

    path = Path(task.path)
    while not path.exists():
        try:
            write_atomically(path, measure(task.case, path.with_suffix(JOURNAL)).to_json())
        except Busy:
            time.sleep(LOOK_S)
        except EdgeFLError as error:
            return Answer(str(error))
    return Answer()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the pool ends its workers
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr  # a plug-in may print
    serve(sys.stdin.buffer, answers)
