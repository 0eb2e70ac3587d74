"""A run of `edgefl simulate`, and what it writes to --out DIR: run.json at the start, a line of history.jsonl for each
round, model.onnx at the end. Ctrl-C ends a run too: the files then have the rounds until then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..atomic import remove_partials
from ..errors import UsageError
from ..history import History, Run
from ..history_record import RoundRecord
from ..onnx.model import Model

if TYPE_CHECKING:
    import argparse

    from ..data import Dataset
    from ..settings import Settings
    from ..simulation.resume.journal import Journal

FILES = ("history.jsonl", "run.json", "model.onnx")
JOURNAL = "resume.db"
OF_DAEMONS = "aggregator.toml"  # in the folder of a run over MQTT, where devices keep their state too


class RunFolder:
    """The folder `path`, or None to write nothing. Raises UsageError if it holds a run, unless `force` says that it is
    replaced, or `resume` that it goes on, for which the run must have been stopped."""

    def __init__(self, path: Path | None, force: bool, resume: bool = False) -> None:
        self.path, self._resume = path, resume
        self._known = self._added = 0  # rounds that the folder has from before, and that were told since
        if resume and (path is None or not (path / JOURNAL).exists()):
            where = "no --out folder is named" if path is None else f"{path} has no {JOURNAL}"
            raise UsageError(f"there is no run to resume: {where}; it is there while a run is not at its end")
        if path is None:
            return
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"can't make {path}: {error.strerror}: choose another folder with --out") from None
        if (path / OF_DAEMONS).exists():
            raise UsageError(f"{path} already holds a run over MQTT: choose another --out folder or remove it")
        there = [name for name in FILES if (path / name).exists()]
        if there and not force and not resume:
            what = f"{path} already holds a run ({', '.join(there)})"
            go_on = "go on with it with --resume, " if (path / JOURNAL).exists() else ""
            raise UsageError(f"{what}: {go_on}choose another --out folder, or replace it with --force")

    def journal(self, max_mb: float) -> Journal | None:
        """The file that a run in memory can go on from; None: there is no folder, or no room for one."""
        from ..simulation.resume.journal import Journal

        self.drop_journal()
        if self.path is None or not (max_mb or self._resume):
            return None
        return Journal(self.path / JOURNAL, max_mb * 1e6)

    def drop_journal(self) -> None:
        """Remove the file of a run that is not resumed; UsageError if that is still under way."""
        from ..simulation.resume import journal_file

        if self.path is not None and not self._resume:
            journal_file.remove(self.path / JOURNAL)

    def begin(self, run: Run | None, played: int = 0) -> None:
        """Before the first round: removes the files of a former run, but for the first `played` rounds, which a run
        that is resumed has told before, and tells again."""
        if self.path is None:
            return
        remove_partials(self.path)
        if played and _cut(self.path / "history.jsonl", played):
            self._known = played
            return
        for name in FILES:
            (self.path / name).unlink(missing_ok=True)
        (self.path / "run.json").write_bytes(msgspec.json.format(msgspec.json.encode(run)) + b"\n")

    def add(self, record: RoundRecord) -> None:
        """After each round."""
        self._added += 1
        if self.path and self._added > self._known:
            with open(self.path / "history.jsonl", "ab") as file:
                file.write(msgspec.json.encode(record) + b"\n")

    def end(self, model: Model, history: History) -> None:
        """Write the model as it is now, however the run has ended; not one that is older than what was there."""
        if self.path and self._added >= self._known:
            model.save(self.path / "model.onnx", history.params)


def _cut(file: Path, lines: int) -> bool:
    """Leave so many lines of the file; False, with nothing done, if it has less."""
    if not file.exists():
        return False
    with open(file, "r+b") as opened:
        found = sum(line.endswith(b"\n") for line in islice(opened, lines))
        if found == lines:
            opened.truncate(opened.tell())
        return found == lines


@dataclass(frozen=True)
class Job:
    """A run that has been checked: what is trained on what, where its results go, and how a line is shown."""

    options: argparse.Namespace
    settings: Settings
    model: Model
    dataset: Dataset
    folder: RunFolder
    show: Callable[[str], None]

    def show_auto(self, text: str) -> None:
        """What "auto" has chosen, if anything."""
        if text:
            self.show(f"auto: {text}")
