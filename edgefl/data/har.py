"""`har:DIR`: Human Activity Recognition Using Smartphones (Anguita et al. 2013, UCI), a device for each of 30 subjects.

DIR is the folder "UCI HAR Dataset", with train/ and test/. Each window of 2.56 s, of which the next one shares half, is
561 computed features or, with signals=1, nine signals of 128 steps.

The official test part is nine subjects, none of whom is in the training part: a model is tested on strangers. With
subjects=all, the training part is all 30 subjects, and `test=` holds out windows at random; since windows overlap, what
is held out is not independent of the rest then.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import DataError
from .dataset import Dataset
from .options import choice, existing_path, refuse_unknown

LABELS = ("walking", "walking upstairs", "walking downstairs", "sitting", "standing", "laying")
SIGNALS = [f"{kind}_{axis}" for kind in ("body_acc", "body_gyro", "total_acc") for axis in "xyz"]
FEATURES, STEPS = 561, 128
FOLDER = "UCI HAR Dataset"


def read(rest: str, options: Mapping[str, str]) -> Dataset:
    """x (n, 561), or (n, 9, 128) with signals=1, float32; y (n,) labels 0 to 5; device_train is the subject, 1 to 30.

    Raises DataError, UsageError.
    """
    refuse_unknown(options, "har", ("signals", "subjects"))
    signals = choice(options, "signals", ("0", "1")) == "1"
    everyone = choice(options, "subjects", ("official", "all")) == "all"
    folder = existing_path(rest)
    folder = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    (x, y, subjects), (x_test, y_test, others) = (_part(folder, part, signals) for part in ("train", "test"))
    if everyone:
        x, y, subjects = (np.concatenate(pair) for pair in ((x, x_test), (y, y_test), (subjects, others)))
        return Dataset(x, y, device_train=subjects, name="har", labels=LABELS)
    return Dataset(x, y, x_test, y_test, subjects, name="har", labels=LABELS)


def _part(folder: Path, part: str, signals: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and subjects of one part."""
    home = folder / part
    y, subjects = (_column(home / f"{name}_{part}.txt") for name in ("y", "subject"))
    if y.min() < 1 or y.max() > len(LABELS):
        text = f"y_{part}.txt has a label that is not 1 to {len(LABELS)}"
        raise DataError(f"{home}: {text}: fetch it again", text)
    if signals:
        tables = [_table(home / "Inertial Signals" / f"{name}_{part}.txt", STEPS) for name in SIGNALS]
        if len({len(table) for table in tables}) > 1:
            text = f"the signals of {part} have different numbers of rows"
            raise DataError(f"{home}: {text}: fetch them again", text)
        x = np.stack(tables, axis=1)
    else:
        x = _table(home / f"X_{part}.txt", FEATURES)
    if not len(x) == len(y) == len(subjects):
        text = f"{part} has {len(x)} windows, {len(y)} labels and {len(subjects)} subjects"
        raise DataError(f"{home}: {text}: fetch it again", text)
    return x, y - 1, subjects


def _column(path: Path) -> np.ndarray:
    """(n,) int64."""
    column: np.ndarray = _table(path, 1, np.int64)[:, 0]
    return column


def _table(path: Path, columns: int, dtype: type[np.generic] = np.float32) -> np.ndarray:
    """(n, columns) numbers that blanks separate."""
    if not path.is_file():
        raise DataError(f"no {path}: give the folder {FOLDER!r} with train/ and test/", f"no {path.name}")
    try:
        table = np.loadtxt(path, dtype, ndmin=2)
    except (OSError, ValueError) as error:
        raise DataError(f"can't read {path}: {error}: fetch it again", f"can't read {path.name}") from None
    if table.shape[1:] != (columns,) or not len(table):
        text = f"{path.name} has {table.shape} numbers and should have {columns} a row"
        raise DataError(f"{path}: {text}: fetch it again", text)
    return table
