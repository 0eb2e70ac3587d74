"""The folder of an experiment: a file for each run that is finished. What is there is not run again."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..atomic import remove_partials
from ..errors import UsageError
from ..plural import plural
from .cases import Case, file_name
from .pool import run_all
from .results import Result, read
from .worker import Task

RUNS = "runs"
LOCK = ".lock"


@dataclass(frozen=True)
class Wanted:
    """A run that is wanted, and its label: words by what they say."""

    label: Mapping[str, object]
    case: Case

    @property
    def text(self) -> str:
        return " · ".join(str(word) for word in self.label.values() if word != "")


@dataclass
class Folder:
    """`jobs` runs are under way at once; `say` is told each run that ends. Use it in a `with` block of `opened`."""

    path: Path
    jobs: int
    say: Callable[[str], None] = lambda line: None
    failed: dict[str, str] = field(default_factory=dict)  # label -> why

    def results(self, wanted: list[Wanted]) -> list[Result | None]:
        """The result of each run, from its file or by running it; None for one that failed."""
        paths = [self.path / RUNS / file_name(one.label, one.case) for one in wanted]
        missing = {path: one for path, one in zip(paths, wanted, strict=True) if read(path) is None}
        if missing:
            kept = len(set(paths)) - len(missing)
            there = f"; {kept} there already" if kept else ""
            self.say(f"{plural(len(missing), 'run')}, {self.jobs} at once{there}")
        self._run(missing)
        return [read(path) for path in paths]

    def _run(self, missing: dict[Path, Wanted]) -> None:
        started, tasks = time.monotonic(), [Task(one.case, str(path)) for path, one in missing.items()]
        for number, (task, error) in enumerate(run_all(tasks, self.jobs), start=1):
            one = missing[Path(task.path)]
            if error:
                self.failed[one.text] = error
            left_s = (time.monotonic() - started) / number * (len(tasks) - number)
            ending = f", {_duration(left_s)} left" if number < len(tasks) else ""
            self.say(f"[{number}/{len(tasks)}] {one.text}: {error or _brief(read(Path(task.path)))}{ending}")


@contextmanager
def opened(path: Path, jobs: int, say: Callable[[str], None]) -> Iterator[Folder]:
    """The folder, made if it is not there, for one command at a time. UsageError."""
    try:
        (path / RUNS).mkdir(parents=True, exist_ok=True)
        lock = open(path / LOCK, "w")  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"can't write to {path}: {error.strerror}: choose another folder with --out") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"another command is at work in {path}: wait for it, or choose another --out") from None
        remove_partials(path / RUNS)
        yield Folder(path, jobs, say)


def _brief(result: Result | None) -> str:
    if result is None:
        return "no result"
    curve = result.curve
    for name, text in (("accuracy", "accuracy"), ("held_accuracy", "held-out accuracy"), ("loss", "loss")):
        values = [value for value in getattr(curve, name) if value is not None]
        if values:
            return f"{text} {values[-1]:.3f} after {plural(len(curve.rounds), 'round')}, {_duration(result.took_s)}"
    return f"{plural(len(curve.rounds), 'round')}, {_duration(result.took_s)}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
