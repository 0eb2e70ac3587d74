"""Cells of a table: when one is blank, and which number its text stands for. Pure functions of one cell."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

import numpy as np

from ..errors import UsageError

FLOAT32_MAX = float(np.finfo(np.float32).max)
BLANKS = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-"})
SPACES = " \u00a0\u2009\u202f"  # thousands=space
BAD_BYTES = re.compile("[\udc80-\udcff\ufffd]")  # what csv_file.py reads where bytes are not text of the encoding
COMMA_NUMBER = re.compile(r"\s*[+-]?\d+,\d+\s*")


def is_blank(cell: Any) -> bool:
    """Whether the cell says that there is no value: nothing, NULL, NaN, or a word such as NA."""
    if cell is None:
        return True
    if isinstance(cell, float):
        return cell != cell
    return isinstance(cell, str) and cell.strip().lower() in BLANKS


def plain_number(cell: Any) -> float:
    """The finite float32 number of a cell; NaN if it holds no such number."""
    try:
        value = float(cell)
    except (TypeError, ValueError, OverflowError):  # None, text, an int beyond float64
        return math.nan
    # NaN fails the comparison; Python alone would read 12_5 as 125.
    return value if abs(value) <= FLOAT32_MAX and not (isinstance(cell, str) and "_" in cell) else math.nan


def number_reader(options: Mapping[str, str]) -> Callable[[Any], float]:
    """`plain_number`, or the same for numbers that are written with decimal= and thousands=; UsageError."""
    decimal, thousands = options.get("decimal", "."), options.get("thousands", "")
    if decimal not in (".", ","):
        raise UsageError(f"data option decimal={decimal}: use one of ., ,")
    if thousands not in ("", ".", ",", "'", "space") or thousands == decimal:
        raise UsageError(f"data option thousands={thousands}: use ., , ' or space, and not the sign of decimal=")
    if decimal == "." and not thousands:
        return plain_number
    marks = {"": "", "space": SPACES, "'": "'\u2019"}.get(thousands, thousands)
    groups = rf"\d{{1,3}}(?:[{re.escape(marks)}]\d{{3}})+|" if marks else ""
    form = re.compile(rf"[+-]?(?:{groups}\d+)?(?:{re.escape(decimal)}\d*)?(?:[eE][+-]?\d+)?", re.ASCII)
    to_python = {**{ord(mark): None for mark in marks}, ord(decimal): "."}

    def number(cell: Any) -> float:
        if not isinstance(cell, str):
            return plain_number(cell)
        text = cell.strip()
        return plain_number(text.translate(to_python)) if form.fullmatch(text) else math.nan

    return number


def seconds(cell: Any) -> float:
    """Seconds of a point in time: a number, or a date and time as ISO 8601 writes it; NaN if it is neither."""
    if isinstance(cell, str) and not _looks_like_a_number(cell):
        try:
            moment = datetime.fromisoformat(cell.strip().replace("Z", "+00:00"))
        except ValueError:
            return math.nan
        moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        return moment.timestamp()
    return plain_number(cell)


def _looks_like_a_number(text: str) -> bool:
    return math.isfinite(plain_number(text))


class Missing(NamedTuple):
    """What becomes of a blank cell. `how` is "" (it is a bad one), "skip" its row, "mean" or "value"."""

    how: str = ""
    value: float = math.nan

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> Missing:
        """missing=skip, mean or value:NUMBER; UsageError."""
        text = options.get("missing", "")
        how, colon, number = text.partition(":")
        value = plain_number(number) if colon else math.nan
        if how in ("", "skip", "mean") and not colon and (how or "missing" not in options):
            return cls(how)
        if how == "value" and math.isfinite(value):
            return cls(how, value)
        raise UsageError(f"data option missing={text}: use skip, mean or value:NUMBER")
