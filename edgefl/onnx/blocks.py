"""Blocks: any list of params as few blocks of a skeleton (core/skeleton.py). Only the aggregator's side needs that."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ..core.skeleton import MOST_AXES, Axis, Block


def blocks_of(indices: np.ndarray) -> list[Block]:
    """(n,) `indices` as blocks, in their order: as few as a greedy search from the innermost axis finds."""
    found = _runs(indices)
    while len(merged := _merged(found)) < len(found):
        found = merged
    return [Block(start, [Axis(*axis) for axis in axes]) for start, axes in found]


_Draft = tuple[int, tuple[tuple[int, int], ...]]


def _runs(indices: np.ndarray) -> list[_Draft]:
    """Runs of one stride. The first one's length is the longest of all: the end of one row of a tensor often continues
    in the next one."""
    steps = np.diff(indices)
    edges = [0, *(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(steps)]  # where another stride begins
    out: list[_Draft] = []
    at, most = 0, 0
    for begin, end in pairwise(edges):
        begin = max(begin, at)
        while begin < end:  # else it was the jump behind a run
            most = most or end - begin + 1
            count = min(most, end - begin + 1)
            out.append((int(indices[begin]), ((count, int(steps[begin])),)))
            at = begin = begin + count
    if at < len(indices):
        out.append((int(indices[at]), ()))
    return out


def _merged(blocks: Sequence[_Draft]) -> list[_Draft]:
    """Neighbours of one shape at a constant distance become one block with another outer axis."""
    out: list[_Draft] = []
    at, most = 0, len(blocks)
    while at < len(blocks):
        (start, axes), end = blocks[at], at + 1
        if len(axes) < MOST_AXES and end < len(blocks) and blocks[end][1] == axes:
            stride = blocks[end][0] - start
            while end < min(len(blocks), at + most) and blocks[end] == (start + stride * (end - at), axes):
                end += 1
            if most == len(blocks):
                most = end - at
            axes = ((end - at, stride), *axes)
        out.append((start, axes))
        at = end
    return out
