"""Targets: the columns of a table that are learned. One gives y (n,), several y (n, columns) with a name for each.

target=state                     one column
target=state,wear                two, for the outputs state and wear of a model
target=kind=state,age=wear       the same columns, for outputs that have other names than the columns
target=box=left,box=top,kind     two numbers for one output

Not here: reading a cell (table.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from ..errors import UsageError, nearest
from .blocks import Block, Blocks
from .labels import Labels
from .options import names

LABELS_OF = "labels."  # labels.OUTPUT=A,B: the texts of one of several targets


class Target(NamedTuple):
    """A column, and the model's output that it is for."""

    output: str
    column: str


def targets_of(options: Mapping[str, str]) -> list[Target]:
    """What target= names; empty without it."""
    if "target" not in options:
        return []
    found = names(options["target"])
    if len(found) == 1:
        return [Target(found[0], found[0])]
    pairs = [(item, *item.partition("=")) for item in found]
    return [Target(output if mark else item, column if mark else item) for item, output, mark, column in pairs]


def blocks_of(targets: Sequence[Target]) -> Blocks:
    """The outputs and how many columns each has; empty for one target, which needs no name. UsageError."""
    if len(targets) < 2:
        return ()
    blocks = tuple(Block(name, len(list(group))) for name, group in groupby(target.output for target in targets))
    if len({block.name for block in blocks}) < len(blocks):
        raise UsageError("target= names an output in two places: put its columns one after the other")
    return blocks


def labels_of(options: Mapping[str, str], targets: Sequence[Target]) -> list[Labels | None]:
    """The labels of each target; None for one that is a number, or a class that is one. UsageError."""
    own = {key.removeprefix(LABELS_OF): text for key, text in options.items() if key.startswith(LABELS_OF)}
    if len(targets) < 2:
        if own:
            raise UsageError(f"data option {LABELS_OF}{next(iter(own))}= is for several targets: write labels=")
        return [Labels.parse(options)]
    outputs = [target.output for target in targets]
    if "labels" in options:
        raise UsageError(f"there are several targets: write {LABELS_OF}{outputs[0]}= for those that are classes")
    for name, text in own.items():
        if name not in outputs:
            raise UsageError(f"data option {LABELS_OF}{name}= names no target: {nearest(name, outputs)}")
        if text.strip() == "*":
            raise UsageError(f"data option {LABELS_OF}{name}=*: of several targets, write the list of all labels")
    return [Labels(names(own[output])) if output in own else None for output in outputs]
