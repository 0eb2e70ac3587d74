"""`edgefl data`: its command `stats`, and what it prints. The work is in edgefl/data/."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EdgeFLError
from ..hosting.command import add_common_options
from ..plural import plural
from .text import say

if TYPE_CHECKING:
    from ..data import Dataset

EXAMPLE = "edgefl data stats 'csv:table.csv?target=state'"
HEAD = f"{'column':24}  {'kind':13}  {'blanks':>8}  {'least':>11}  {'most':>11}  {'mean':>11}  {'std':>11}"
MOST_SHOWN = 12  # different cells of a column
NAMES_ANYWAY = ("text", "whole numbers")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Look at data: what a table holds, and the SPEC to train on it."""
    commands = parser.add_subparsers(title="commands of data", metavar="COMMAND", required=True)
    text = cleandoc(_stats_options.__doc__ or "")
    command = commands.add_parser("stats", help=text.partition("\n")[0].rstrip("."), description=text, example=EXAMPLE)
    _stats_options(command)
    add_common_options(command, level="warning")  # type: ignore[arg-type]
    command.set_defaults(command=_stats)


def _stats_options(parser: argparse.ArgumentParser) -> None:
    """Print columns, kinds, ranges, blanks and label counts, and a SPEC that is ready to use.

    It shows values of the data, on this machine alone. Options that SPEC lacks are suggested: encoding, delimiter,
    target, labels, blanks. The SPEC that is printed was tried.
    """
    add = parser.add_argument_group("the data").add_argument
    add("spec", metavar="SPEC", help="such as csv:FILE, sqlite:FILE?query=..., npz:FILE, folder:DIR, ring:FILE")
    add("--json", action="store_true", help="print JSON instead of text")


def _stats(options: argparse.Namespace) -> int:
    import msgspec

    from ..data import parse
    from ..data.survey import TABLES

    kind, rest, given = parse(options.spec)
    report = _of_table(kind, rest, given) if kind in TABLES else _of_arrays(kind, rest, given)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        _print(report)
    return 0 if "examples" in report else 1


def _of_table(kind: str, rest: str, given: dict[str, str]) -> dict[str, Any]:
    """What is known of a table with named columns; DataError, UsageError."""
    from ..data.ready import ready, scale
    from ..data.survey import survey

    common = {name: given.pop(name) for name in _common() if name in given}
    found = survey(kind, rest, given)
    suggested = ready(kind, rest, found)
    spec = suggested.spec + "".join(f"&{name}={value}" for name, value in common.items())
    report: dict[str, Any] = {
        "source": found.source, "unit": found.unit, "rows": found.rows, "malformed": found.malformed,
        "columns": [dataclasses.asdict(column) for column in found.columns], "spec": spec, "notes": suggested.notes,
    }  # fmt: skip
    return _tried(report, spec) | {"scale": scale(found, _options_of(spec))}


def _of_arrays(kind: str, rest: str, given: dict[str, str]) -> dict[str, Any]:
    """What is known of arrays; DataError, UsageError."""
    from ..data import load

    if kind == "npz":
        given = _needed(rest, given)
    spec = f"{kind}:{rest}" + (
        "?" + "&".join(f"{k}={v.replace('&', '%26')}" for k, v in given.items()) if given else ""
    )
    return {"source": spec.partition("?")[0], "spec": spec, "notes": []} | _examples(load(spec, test_fraction=0))


def _needed(rest: str, given: dict[str, str]) -> dict[str, str]:
    """The options of an .npz file that has text labels or blanks."""
    from ..data.npz_file import open_npz
    from ..data.options import existing_path

    with open_npz(existing_path(rest)) as arrays:
        xs, ys = ([arrays[key] for key in (name, f"{name}_train") if key in arrays] for name in "xy")
        if ys and ys[0].dtype.kind in "US" and "labels" not in given:
            given = {**given, "labels": "*"}
        if xs and xs[0].dtype.kind == "f" and "missing" not in given and bool(np.isnan(xs[0]).any()):
            given = {**given, "missing": "mean"}
    return given


def _tried(report: dict[str, Any], spec: str) -> dict[str, Any]:
    """The report, with what the SPEC gives when it is read as a device reads it."""
    from ..data import load

    try:
        return report | _examples(load(spec, test_fraction=0), report["unit"])
    except EdgeFLError as error:
        return report | {"error": str(error)}


def _examples(data: Dataset, unit: str = "example") -> dict[str, Any]:
    return {
        "examples": len(data.x_train), "shape": list(data.x_train.shape[1:]), "features": list(data.columns),
        "labels": _label_counts(data), "left_out": data.tally.text(unit), "filled": data.tally.filled,
        "first_bad": data.tally.first,
    }  # fmt: skip


def _label_counts(data: Dataset) -> dict[str, int]:
    """How many examples each class has; {} where the targets are no classes."""
    if data.y_train.dtype != np.int64 or data.y_train.ndim != 1:
        return {}
    numbers, counts = np.unique(data.y_train, return_counts=True)
    found = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    if data.labels:
        return {name: found.get(code, 0) for code, name in enumerate(data.labels)}
    return {str(number): count for number, count in found.items()}


def _print(report: dict[str, Any]) -> None:
    if "columns" in report:
        malformed = f", {report['malformed']} of another width" if report["malformed"] else ""
        count = f"{report['rows']} {report['unit']}s{malformed}, {len(report['columns'])} columns"
        say(f"{report['source']}: {count}\n\n{HEAD}")
        for column in report["columns"]:
            say(_line(column))
        say("")
    for note in report["notes"]:
        say(f"note: {note}")
    if "error" in report:
        say(f"this SPEC can't be used yet: {report['error']}")
    else:
        _print_examples(report)
    say(f"\ndata SPEC:\n  {shlex.quote(report['spec'])}")


def _print_examples(report: dict[str, Any]) -> None:
    shape = "x".join(map(str, report["shape"])) or "1"
    classes = ", ".join(f"{name} {count}" for name, count in list(report["labels"].items())[:MOST_SHOWN])
    labels = f"; {plural(len(report['labels']), 'label')}: {classes}" if classes else ""
    say(f"examples: {report['examples']} of {shape} numbers{labels}")
    if report["filled"]:
        say(f"filled: {plural(report['filled'], 'blank')}")
    if report["left_out"]:
        say(f"left out: {report['left_out']}" + (f"; the first: {report['first_bad']}" if report["first_bad"] else ""))


def _line(column: dict[str, Any]) -> str:
    name = column["name"] if len(column["name"]) <= 24 else column["name"][:23] + "…"
    text = f"{name:24}  {column['kind']:13}  {column['blanks']:8}"
    numbers = [column[key] for key in ("least", "most", "mean", "std")]
    if column["kind"] not in ("text", "dates") and numbers[0] is not None:
        text += "".join(f"  {number:11.5g}" for number in numbers)
    names = column["names"]
    if column["kind"] in NAMES_ANYWAY and names and len(names) <= MOST_SHOWN:
        text += "  " + ", ".join(f"{name} {count}" for name, count in sorted(names.items(), key=lambda item: -item[1]))
    elif column["kind"] == "text" and names is None:
        text += "  many different texts"
    return text + (f"  ({column['odd']} cells are something else)" if column["odd"] else "")


def _common() -> tuple[str, ...]:
    from ..data.options import COMMON

    return COMMON


def _options_of(spec: str) -> dict[str, str]:
    from ..data import parse

    return parse(spec)[2]
