"""Mask: which of a plan's params are shared by all devices, and which are personal: they never leave the device.

A mask is a list of indices of `Plan.params`. The *base* is another one: params that no training changes, which devices
have from a payload of their own (protocol/manifest.py); they are not shared either, and nobody's own. The shared
coordinates, one after another in the plan's order, are a vector (S,) of their own: updates, sums and strategies have
that length. A model always has all P coordinates. Those that are personal keep the values of the start model there, and
a new device begins with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ..errors import ModelError
from .columns import MEAN, SCALE
from .plan import Param, Plan

STATISTICS = {"batch_norm": (2, 3)}  # which params of an op training changes, although no gradient does
LEAST_BASE = 4096  # numbers: fewer are not worth a payload of their own


def unchanging(plan: Plan, personal: Sequence[int] = ()) -> list[int]:
    """The indices of what may be the base, in ascending order: what no gradient changes, no running statistics and no
    profile of the columns, and is not `personal`. None if these are few numbers."""
    moved = {node.params[at] for node in plan.nodes for at in STATISTICS.get(node.op, ()) if at < len(node.params)}
    moved |= {at for at, param in enumerate(plan.params) if param.trainable or param.name in (MEAN, SCALE)}
    found = [at for at in range(len(plan.params)) if at not in moved and at not in personal]
    return found if sum(plan.params[at].size for at in found) >= LEAST_BASE else []


class Mask:
    """`personal` and `base`: indices of the plan's params, in ascending order. ModelError for a mask that the plan
    can't have."""

    def __init__(self, plan: Plan, personal: Sequence[int] = (), base: Sequence[int] = ()) -> None:
        self.personal, self.base = tuple(personal), tuple(base)
        for what, given in (("personal", self.personal), ("frozen", self.base)):
            if list(given) != sorted(set(given)) or any(i >= len(plan.params) for i in given):
                raise ModelError(f"{what} params {list(given)[:8]} are not ascending indices of the plan's params")
        own, left_out = set(self.personal), {*self.personal, *self.base}
        if len(left_out) < len(self.personal) + len(self.base) or any(plan.params[i].trainable for i in self.base):
            raise ModelError("params that are trained, or personal, can't be frozen for all devices")
        sizes = [param.size for param in plan.params]
        self.tensors: list[Param] = [param for i, param in enumerate(plan.params) if i not in left_out]
        self.shares_all = not left_out
        self._runs = _runs(sizes, left_out)
        self._own_runs = _runs(sizes, set(range(len(plan.params))) - own)
        self._num_own = sum(sizes[index] for index in own)
        self.num_params = plan.num_params
        if personal and not self.num_trained:
            raise ModelError("all trained params are personal: devices would have nothing to share")

    @cached_property
    def num_shared(self) -> int:
        """S, the number of shared coordinates."""
        return sum(param.size for param in self.tensors)

    @cached_property
    def num_trained(self) -> int:
        """How many leading shared coordinates are trained."""
        return sum(param.size for param in self.tensors if param.trainable)

    @property
    def num_personal(self) -> int:
        """How many coordinates are personal."""
        return self._num_own

    def shared(self, vector: np.ndarray) -> np.ndarray:
        """(S,) of a vector (P,): itself if all is shared."""
        return vector if self.shares_all else _taken(vector, self._runs)

    def own(self, vector: np.ndarray) -> np.ndarray:
        """(num_personal,) of a vector (P,): its personal coordinates."""
        return _taken(vector, self._own_runs)

    def with_shared(self, vector: np.ndarray, shared: np.ndarray) -> np.ndarray:
        """`vector` (P,) with these shared coordinates (S,); itself is left unchanged."""
        return shared if self.shares_all else _put(vector, self._runs, shared)

    def with_own(self, vector: np.ndarray, own: np.ndarray) -> np.ndarray:
        """`vector` (P,) with these personal coordinates (num_personal,); itself is left unchanged."""
        return _put(vector, self._own_runs, own)


def _runs(sizes: Sequence[int], left_out: set[int]) -> list[slice]:
    """Where the tensors lie that are not left out; neighbours are one run."""
    runs: list[slice] = []
    start = 0
    for index, size in enumerate(sizes):
        if index not in left_out:
            if runs and runs[-1].stop == start:
                runs[-1] = slice(runs[-1].start, start + size)
            else:
                runs.append(slice(start, start + size))
        start += size
    return runs


def _taken(vector: np.ndarray, runs: Sequence[slice]) -> np.ndarray:
    return np.concatenate([vector[run] for run in runs]) if runs else vector[:0]


def _put(vector: np.ndarray, runs: Sequence[slice], part: np.ndarray) -> np.ndarray:
    whole: np.ndarray = vector.copy()
    at = 0
    for run in runs:
        whole[run] = part[at : at + run.stop - run.start]
        at += run.stop - run.start
    return whole
