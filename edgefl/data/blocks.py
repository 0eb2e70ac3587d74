"""Blocks: several arrays as columns of one, for models with several inputs or several trained outputs.

x is one array everywhere: a flat row an example. Arrays called x.IMAGE and x.WORDS, or a dict, become its columns, and
their names say which input each belongs to, so that a model gets them in its own order. y likewise.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError


class Block(NamedTuple):
    name: str
    width: int


Blocks = tuple[Block, ...]


def joined(what: str, arrays: Mapping[str, Any]) -> tuple[np.ndarray, Blocks]:
    """(n, columns) of arrays (n, ...), and the blocks. Raises DataError."""
    parts = {name: np.asarray(values) for name, values in arrays.items()}
    lengths = {part.shape[:1] for part in parts.values()}
    if len(lengths) != 1 or () in lengths:
        told = ", ".join(f"{name} {part.shape}" for name, part in parts.items())
        text = f"the arrays of {what} differ in length: {told}"
        raise DataError(f"{text}: give every example one of each", text)
    if any(part.dtype.kind not in "biuf" for part in parts.values()):
        text = f"an array of {what} does not hold numbers"
        raise DataError(f"{text}: convert it", text)
    flat = {name: part.reshape(len(part), -1) for name, part in parts.items()}
    blocks = tuple(Block(name, part.shape[1]) for name, part in flat.items())
    return np.concatenate(list(flat.values()), axis=1), blocks


def join_named(arrays: MutableMapping[str, Any]) -> dict[str, Blocks]:
    """Joins x_train.NAME, y.NAME and the like to x_train, y, ... in place; returns the blocks of x and y, if any."""
    found: dict[str, Blocks] = {}
    for axis in "xy":
        for part in ("", "_train", "_test"):
            start = f"{axis}{part}."
            own = {key.removeprefix(start): arrays[key] for key in arrays if key.startswith(start)}
            if not own or f"{axis}{part}" in arrays:
                continue
            if axis in found and [block.name for block in found[axis]] != list(own):
                own = {block.name: own[block.name] for block in found[axis] if block.name in own} | own
            arrays[f"{axis}{part}"], blocks = joined(f"{axis}{part}", own)
            if found.setdefault(axis, blocks) != blocks:
                text = f"{axis}_train and {axis}_test do not have the same arrays"
                raise DataError(f"{text}: give both the same names and shapes", text)
    return found


def ordered(what: str, values: np.ndarray, blocks: Blocks, names: Sequence[str], widths: Sequence[int]) -> np.ndarray:
    """The columns of `values` in the order of `names`, which have these `widths`. Raises DataError."""
    if not blocks or not names:
        return values
    starts = np.cumsum([0, *(block.width for block in blocks)])
    where = {block.name: np.arange(starts[at], starts[at + 1]) for at, block in enumerate(blocks)}
    if set(where) != set(names):
        text = f"{what} has the arrays {', '.join(where)}, and the model takes {', '.join(names)}"
        columns = f"; of a table, target={','.join(f'{name}=COLUMN' for name in names)}" if what == "y" else ""
        raise DataError(f"{text}: name the arrays after these{columns}", text)
    for name, width in zip(names, widths, strict=True):
        if len(where[name]) != width:
            text = f"{what}.{name} has {len(where[name])} values an example, and the model takes {width}"
            raise DataError(f"{text}: give it the model's shape", text)
    order = np.concatenate([where[name] for name in names])
    return values if (np.diff(order) == 1).all() else np.ascontiguousarray(values[:, order])
