"""Deals the rows of one table to several devices, so that a newcomer can try a federation with the table at hand."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from ..data.sniff import dialect
from ..errors import DataError
from .sample import NAME

FOLDER = "data"


def split_table(spec: str, devices: Sequence[str], to: Path) -> str:
    """Write `to`/NAME.csv for each device, and return the SPEC of them all.

    Rows are dealt in turn; rows of a time series, whose SPEC has window=, in pieces that follow each other.
    """
    head, mark, options = spec.partition("?")
    source = Path(head.partition(":")[2])
    given = dict(item.partition("=")[::2] for item in options.split("&"))
    given = {**dialect(source, given), **given}
    delimiter = {"tab": "\t"}.get(given.get("delimiter", ","), given.get("delimiter", ","))
    try:
        with open(source, newline="", encoding=given.get("encoding", "utf-8-sig")) as file:
            header, *rows = [cells for cells in csv.reader(file, delimiter=delimiter) if cells]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"can't read {source}: {error}: check the file, delimiter= and encoding=") from None
    if len(rows) < 2 * len(devices):
        raise DataError(f"{source} has {len(rows)} rows, too few for {len(devices)} devices: name fewer devices")
    to.mkdir()
    each = -(-len(rows) // len(devices))
    for number, device in enumerate(devices):
        own = rows[number * each : (number + 1) * each] if "window" in given else rows[number :: len(devices)]
        with open(to / f"{device}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows([header, *own])
    kept = "&".join(item for item in options.split("&") if not item.startswith("encoding="))
    return f"csv:{to / NAME}.csv{mark}{kept}"
