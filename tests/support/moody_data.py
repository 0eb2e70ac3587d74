"""Data callables of devices that a test slows down or hangs: `python:moody_data:dev_01` reads MOODY_FOLDER/dev-01.

The file `mood` in a device's folder has a number: how many seconds a read of its data takes, as if training took as
long; "inf" hangs until another number stands there. A device whose folder has no such file reads at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LOOK_S = 0.05


def set_mood(folder: Path, seconds: float) -> None:
    """From now on a read by the device of this folder takes so long, also one that is under way."""
    draft = folder / "mood.new"
    draft.write_text(str(seconds))
    draft.rename(folder / "mood")


def _mood(folder: Path) -> float:
    file = folder / "mood"
    return float(file.read_text()) if file.exists() else 0.0


def _reader(folder: Path) -> Callable[[], dict[str, Any]]:
    def read() -> dict[str, Any]:
        began = time.monotonic()
        while (left_s := began + _mood(folder) - time.monotonic()) > 0:
            time.sleep(min(LOOK_S, left_s))
        with np.load(folder / "data.npz") as data:
            return {"x": data["x"], "y": data["y"]}

    return read


def __getattr__(name: str) -> Callable[[], dict[str, Any]]:
    """`dev_01` is the callable of the device in the folder dev-01."""
    if not name.startswith("dev_"):
        raise AttributeError(name)
    return _reader(Path(os.environ["MOODY_FOLDER"]) / name.replace("_", "-"))
