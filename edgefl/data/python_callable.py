"""`python:MODULE:CALLABLE`: examples from the operator's own code, found from the working directory."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

from ..errors import DataError, EdgeFLError, UsageError
from ..registry import working_directory_importable
from .dataset import Dataset, from_arrays
from .options import refuse_unknown

TUPLES = {2: ("x", "y"), 4: ("x_train", "y_train", "x_test", "y_test")}


def read(rest: str, options: Mapping[str, str]) -> Dataset:
    """Call it without arguments. It returns a Dataset, (x, y), (x_train, y_train, x_test, y_test), or a dict
    with the names that npz: knows. Whatever it raises becomes a DataError with the cause's text."""
    refuse_unknown(options, "python")
    module, _, function = rest.partition(":")
    if not module or not function:
        raise UsageError(f"python data is python:MODULE:CALLABLE, not 'python:{rest}': name both")
    try:
        with working_directory_importable():
            value = getattr(importlib.import_module(module), function)()
    except EdgeFLError:
        raise
    except Exception as error:
        text = f"python:{rest} failed: {type(error).__name__}"
        raise DataError(f"{text}: {error}: make it run in {os.getcwd()}, or set PYTHONPATH", text) from error
    return as_dataset(value, f"python:{rest}")


def as_dataset(value: Any, name: str) -> Dataset:
    """A Dataset from what the callable returned."""
    if isinstance(value, Dataset):
        return value
    if isinstance(value, tuple) and len(value) in TUPLES:
        value = dict(zip(TUPLES[len(value)], value, strict=True))
    if not isinstance(value, Mapping):
        raise DataError(
            f"{name} returned {type(value).__name__}: return a Dataset, a dict, (x, y) "
            "or (x_train, y_train, x_test, y_test)",
            f"{name} returned {type(value).__name__}",
        )
    return from_arrays(value, name)
