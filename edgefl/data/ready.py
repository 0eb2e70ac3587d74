"""Ready: the SPEC that a survey suggests. It guesses what an operator would choose, and says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .columns import ITSELF, told
from .labels import in_order
from .options import names
from .survey import Column, Survey
from .targets import LABELS_OF, targets_of

LIKELY_TARGETS = ("target", "label", "class", "y", "state", "activity", "species", "outcome", "status")
MOST_CLASSES = 20  # that whole numbers are taken for
NUMBERS = ("numbers", "whole numbers")
FAR_APART = 10.0  # standard deviations of two columns, one over the other


class Ready(NamedTuple):
    """`spec`, and what an operator should know about it."""

    spec: str
    notes: list[str]


def ready(kind: str, rest: str, found: Survey) -> Ready:
    """A SPEC for the table that was surveyed."""
    options, notes = dict(found.options), []
    columns = {column.name: column for column in found.columns}
    if "target" not in options:
        likely = _likely_target(found.columns)
        options["target"] = likely.replace(",", "%2C")
        notes.append(f"target={likely} is a guess: name the column that is to be learned, or * for all")
    targets = [(each.output, columns[each.column]) for each in targets_of(options) if each.column in columns]
    if kind != "ring" and "time" not in options:
        dates = [c.name for c in found.columns if c.kind == "dates" and c.name not in told(options)]
        options |= {"time": dates[0]} if dates else {}
    _choose_features(kind, found.columns, options, notes)
    if "kind" not in options and not any(name.startswith("labels") for name in options):
        for output, target in targets:
            if len(targets) == 1:
                _choose_labels(target, options, notes)
            elif target.kind == "text" and target.names:
                _choose_texts(target, LABELS_OF + output, options, notes)
    features = _features(found.columns, options)
    if "missing" not in options:
        if any(column.blanks for column in features):
            options["missing"] = "mean"
        elif any(target.blanks for _, target in targets):
            options["missing"] = "skip"
    _tell_scale(features, options, notes)
    return Ready(_spec(kind, rest, options), notes)


def scale(found: Survey, options: Mapping[str, str]) -> str:
    """`mean=...&std=...` of the features, for devices that are to scale by this table's numbers."""
    features = _features(found.columns, options)
    means = ",".join(f"{column.mean or 0.0:.6g}" for column in features)
    return f"mean={means}&std={','.join(f'{column.std or 1.0:.6g}' for column in features)}"


def _likely_target(columns: list[Column]) -> str:
    usable = [
        column
        for column in columns
        if column.kind in NUMBERS or (column.kind == "text" and len(column.names or ()) > 1)
    ]
    for likely in LIKELY_TARGETS:
        for column in usable:
            if column.name.lower() == likely:
                return column.name
    texts = [column.name for column in usable if column.kind == "text"]
    numbers = [column.name for column in usable if column.kind != "text"]
    return (texts or numbers or [ITSELF])[-1]


def _choose_features(kind: str, columns: list[Column], options: dict[str, str], notes: list[str]) -> None:
    if "features" in options:
        return
    own = told(options) | {"time" if kind == "ring" else ""}
    rest = [column for column in columns if column.name not in own]
    good = [column.name for column in rest if column.kind in NUMBERS and not _counts_rows(column)]
    if len(good) == len(rest) or not good:
        return
    options["features"] = ",".join(name.replace(",", "%2C") for name in good)
    kinds = {column.name: "counts the rows" if _counts_rows(column) else column.kind for column in rest}
    odd = ", ".join(f"{name} ({kinds[name]})" for name in kinds if name not in good)
    notes.append(f"features= leaves out what nothing can be learned from: {odd}")


def _counts_rows(column: Column) -> bool:
    """Whether the column numbers the rows, as exported tables often have one."""
    if column.kind != "whole numbers" or column.names is not None or column.most is None or column.least is None:
        return False
    n = column.rows - column.blanks
    return column.most - column.least == n - 1 and abs((column.std or 0) - n / 12**0.5) < 0.01 * n


def _choose_texts(target: Column, option: str, options: dict[str, str], notes: list[str]) -> None:
    options[option] = ",".join(name.replace(",", "%2C") for name in sorted(target.names or (), key=in_order))
    notes.append(f"{option}= must be the same list, in the same order, on every device: add those that occur elsewhere")


def _choose_labels(target: Column, options: dict[str, str], notes: list[str]) -> None:
    found = target.names
    if target.kind == "text" and found:
        _choose_texts(target, "labels", options, notes)
    elif target.kind == "whole numbers" and found and 1 < len(found) <= MOST_CLASSES:
        ordered = sorted(found, key=in_order)
        if ordered == [str(i) for i in range(len(ordered))]:
            options["kind"] = "classes"
        elif len(ordered) <= MOST_CLASSES // 2:
            options["labels"] = ",".join(ordered)
        else:
            return
        notes.append(f"{target.name} has few different whole numbers: for a quantity, leave out kind= and labels=")


def _features(columns: list[Column], options: Mapping[str, str]) -> list[Column]:
    if "features" in options:
        by_name = {column.name: column for column in columns}
        return [by_name[name] for name in names(options["features"]) if name in by_name]
    return [column for column in columns if column.name not in told(options)]


def _tell_scale(features: list[Column], options: Mapping[str, str], notes: list[str]) -> None:
    stds = [column.std for column in features if column.std]
    scaled = {"mean", "std", "standardize"} & set(options)
    if stds and not scaled and (max(stds) > FAR_APART * min(stds) or max(stds) > FAR_APART):
        notes.append("the features have very different scales: all devices must scale them alike (docs/data.md)")


def _spec(kind: str, rest: str, options: Mapping[str, str]) -> str:
    order = ("query", "target", "features", "labels", "kind", "missing", "device", "time")
    ordered = sorted(options, key=lambda name: order.index(name) if name in order else len(order))
    return f"{kind}:{rest}?" + "&".join(f"{name}={options[name].replace('&', '%26')}" for name in ordered)
