"""Parsing of a SPEC's options for all readers: text in, checked values out, or UsageError."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import DataError, UsageError, nearest

# Handled by finish.py for every reader.
COMMON = ("test", "standardize", "mean", "std", "target_mean", "target_std")


def refuse_unknown(options: Mapping[str, str], reader: str, known: Sequence[str] = ()) -> None:
    """Raise UsageError for the first of `options` that `reader` does not know. What ends in a dot in `known` is the
    beginning of a name."""
    begins = tuple(name for name in known if name.endswith("."))
    for name in options:
        if name not in known and not name.startswith(begins):
            raise UsageError(f"{reader} data has no option {name!r}: {nearest(name, (*known, *COMMON))}")


def choice(options: Mapping[str, str], name: str, allowed: Sequence[str]) -> str:
    """The value of an option that must be one of `allowed`; the first of these if it is absent."""
    value = options.get(name, allowed[0])
    if value not in allowed:
        raise UsageError(f"data option {name}={value}: use one of {', '.join(allowed)}")
    return value


def numbers(options: Mapping[str, str], name: str) -> list[float]:
    """The finite, comma-separated numbers of an option."""
    try:
        values = [float(text) for text in options[name].split(",")]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        raise UsageError(f"data option {name}={options[name]}: give finite numbers, separated by commas")
    return values


def names(text: str) -> list[str]:
    """Names out of a comma-separated list; a comma inside a name is written %2C."""
    return [name.strip().replace("%2C", ",") for name in text.split(",")]


def whole_number(options: Mapping[str, str], name: str, least: int) -> int:
    """The whole number of an option, at least `least`."""
    text = options[name].strip()
    if not (text.isascii() and text.isdecimal() and len(text) <= 12) or int(text) < least:
        raise UsageError(f"data option {name}={options[name]}: give a whole number of at least {least}")
    return int(text)


def existing_path(rest: str) -> Path:
    """The path a SPEC names; DataError when nothing is there."""
    path = Path(rest).expanduser()
    if not rest or not path.exists():
        text = f"no data at {rest!r}"
        raise DataError(f"{text}: check the path; a relative one starts at {os.getcwd()}", text)
    return path
