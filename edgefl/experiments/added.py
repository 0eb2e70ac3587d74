"""Added runs: runs from elsewhere in the folder of an experiment, which stand in its tables and figures as rows.

A run is a folder of `edgefl simulate` or of an aggregator, a history as JSON or JSON lines, or a CSV of any other
system's. What is read becomes a file of its own below added/, so that the source may change or go. Adding a run again
renews it.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..atomic import write_atomically
from ..errors import UsageError, nearest
from ..history_files import NEWEST, HistoryFiles, iter_records
from ..history_record import RoundRecord
from .grid import Cell, Grid
from .results import Curve

FOLDER = "added"
UNPAIRED = -1  # stands for the seed of a run that has none: no run of the experiment has the same
NAME = re.compile(r"[^\s|](?:[^|\n]{0,62}[^\s|])?")
SUMMED = ("bytes_up", "bytes_down")
MOST = 1e300
COLUMNS = ("round", "accuracy", "loss", *SUMMED, "elapsed_s")


class Added(msgspec.Struct, frozen=True):
    """A run that was added as the row `name`. None: it is not known which split of the data it had, which faults, or
    which seed; then it stands with the first of the experiment, and is paired with no run."""

    name: str
    curve: Curve
    source: str
    partition: str | None = None
    faults: str | None = None
    seed: int | None = None
    model_sha256: str = ""

    @property
    def file(self) -> str:
        """The name of its file."""
        said = msgspec.json.encode([self.name, self.partition, self.faults, self.seed])
        words = re.sub(r"[^A-Za-z0-9.]+", "_", self.name).strip("_")
        return f"{words}-{hashlib.sha256(said).hexdigest()[:12]}.json"

    def cell(self, grid: Grid) -> Cell | None:
        """Where it stands among the rows of an experiment; None if that has no such partition or faults. UsageError if
        a row of the experiment has its name."""
        if self.name in grid.variants:
            raise UsageError(
                f"{self.name} is a row of the experiment and an added run: remove {FOLDER}/{self.file}, and add it "
                "--as another name"
            )
        partition = grid.partitions[0] if self.partition is None else self.partition
        faults = grid.faults[0] if self.faults is None else self.faults
        known = partition in grid.partitions and faults in grid.faults
        return Cell(self.name, "", partition, faults) if known else None


class _Run(msgspec.Struct):
    """What is wanted of a run's record, of whatever version: the seed, and the fleet if it was simulated."""

    seed: int = 0
    fleet: dict[str, Any] = {}


class _History(msgspec.Struct):
    """A history as `--json` writes it."""

    rounds: list[RoundRecord]
    run: _Run | None = None
    final: dict[str, Any] = {}


def read_run(path: Path, name: str) -> Added:
    """The run at this path, as the row `name`; UsageError."""
    if not NAME.fullmatch(name):
        raise UsageError(f"a row can't be called {name!r}: give 1 to 64 characters in one line, without |")
    try:
        if path.suffix == ".csv":
            return Added(name, _curve_of_csv(path), str(path))
        return _of_history(path, name)
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}: {HOW}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is no history ({error}): {HOW}") from None


HOW = "name a folder of edgefl simulate or of an aggregator, its history.jsonl or --json, or a CSV file"


def _of_history(path: Path, name: str) -> Added:
    folder = path.parent if path.name == NEWEST else path
    final: dict[str, Any] = {}
    if folder.is_dir():
        records = list(HistoryFiles(folder).records())
        run = msgspec.json.decode(file.read_bytes(), type=_Run) if (file := folder / "run.json").exists() else None
    elif path.suffix == ".jsonl":
        path.stat()
        records, run = list(iter_records(path)), None
    else:
        history = msgspec.json.decode(path.read_bytes(), type=_History)
        records, run, final = history.rounds, history.run, history.final
    if not records:
        raise UsageError(f"{path} has no record of a round: {HOW}")
    added = Added(name, Curve.of(records, {}), str(path), model_sha256=str(final.get("model_sha256", "")))
    if run is None or not run.fleet:
        return added
    fleet = {key: str(run.fleet[key]) for key in ("partition", "faults") if key in run.fleet}
    return msgspec.structs.replace(added, seed=run.seed, **fleet)


def _curve_of_csv(path: Path) -> Curve:
    """A line for each round, in order; bytes are those of the round, `elapsed_s` runs from the start."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True, restkey="")
        names = [name.strip() for name in reader.fieldnames or ()]
        if strange := [name for name in names if name not in COLUMNS]:
            raise UsageError(f"{path} has a column {strange[0]!r}: {nearest(strange[0], COLUMNS)}")
        if twice := [name for name in COLUMNS if names.count(name) > 1]:
            raise UsageError(f"{path} has two columns {twice[0]!r}: leave one out")
        if "round" not in names or not {"accuracy", "loss"} & set(names):
            raise UsageError(
                f"{path} lacks columns: round, and accuracy or loss are needed; {', '.join(COLUMNS)} are read"
            )
        reader.fieldnames = names
        rows = [_numbers(row, f"{path}, line {reader.line_num}") for row in reader]
    if not rows:
        raise UsageError(f"{path} has no line of numbers below its first: write one for each round")
    rounds = [row["round"] or 0.0 for row in rows]
    if any(after <= before for before, after in zip([0.0, *rounds], rounds, strict=False)):
        raise UsageError(f"{path}: rounds must rise from 1, a line for each")
    curve = Curve(rounds=[*rounds])
    spent, is_known = 0.0, any(name in names for name in SUMMED)
    for row in rows:
        spent += sum(row.get(name) or 0.0 for name in SUMMED)
        elapsed_s = row.get("elapsed_s")
        values = {
            "megabytes": spent / 1e6 if is_known else None, "accuracy": row.get("accuracy"), "loss": row.get("loss"),
            "hours": None if elapsed_s is None else elapsed_s / 3600,
        }  # fmt: skip
        for name in Curve.__struct_fields__[1:]:
            getattr(curve, name).append(values.get(name))
    return curve


def _numbers(row: dict[str, str | None], where: str) -> dict[str, float | None]:
    if "" in row:
        raise UsageError(f"{where} has more numbers than the first line has names")
    return {name: _number(name, text or "", where) for name, text in row.items()}


def _number(name: str, text: str, where: str) -> float | None:
    """The number, or None where there is nothing."""
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= (1.0 if name == "accuracy" else MOST):
        raise UsageError(
            f"{where}: {name} is {text!r}: give a number from 0{' to 1' * (name == 'accuracy')}, or nothing"
        )
    return value


def keep(folder: Path, added: Added) -> bool:
    """Write a run into the folder of an experiment; whether one of that name, place and seed was there."""
    path = folder / FOLDER / added.file
    path.parent.mkdir(exist_ok=True)
    was_there = path.exists()
    write_atomically(path, msgspec.json.encode(added) + b"\n")
    return was_there


def all_in(folder: Path) -> list[Added]:
    """The runs that were added to this folder, by name and seed; UsageError if a file is damaged."""
    found = []
    for path in sorted((folder / FOLDER).glob("*.json")):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=Added))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} is damaged ({error}): remove it, and add the run again") from None
    return sorted(found, key=lambda added: (added.name, added.seed or 0))


def not_shown(grid: Grid, added: Sequence[Added]) -> list[str]:
    """Why an added run is in no table, a line for each."""
    return [
        f"{one.name} of {one.source}: the experiment has no {' and no '.join(_unknown(grid, one))}; add it again with "
        "--partition and --faults of the experiment"
        for one in added
        if one.cell(grid) is None
    ]


def _unknown(grid: Grid, added: Added) -> list[str]:
    """Which of its partition and faults the experiment lacks."""
    found = []
    if added.partition is not None and added.partition not in grid.partitions:
        found.append(f"partition {added.partition}")
    if added.faults is not None and added.faults not in grid.faults:
        found.append(f"faults {added.faults or 'none'}")
    return found
