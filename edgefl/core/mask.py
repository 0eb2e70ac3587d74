"""Mask: which of a plan's params are shared by all devices, and which are personal: they never leave the device.

A mask is a list of indices of `Plan.params`. The shared coordinates, one after another in the plan's order, are a
vector (S,) of their own: updates, sums and strategies have that length. A model always has all P coordinates. Those
that are personal keep the values of the start model there, and a new device begins with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ..errors import ModelError
from .plan import Param, Plan


class Mask:
    """`personal`: indices of the plan's params, in ascending order. ModelError for a mask that the plan can't have."""

    def __init__(self, plan: Plan, personal: Sequence[int] = ()) -> None:
        self.personal = tuple(personal)
        if list(self.personal) != sorted(set(self.personal)) or any(i >= len(plan.params) for i in self.personal):
            raise ModelError(
                f"personal params {list(self.personal)[:8]} are not ascending indices of the plan's params"
            )
        inside = set(self.personal)
        self.tensors: list[Param] = [param for i, param in enumerate(plan.params) if i not in inside]
        self._runs = _runs([param.size for param in plan.params], inside)
        self._own_runs = _runs([param.size for param in plan.params], set(range(len(plan.params))) - inside)
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
        """P − S."""
        return self.num_params - self.num_shared

    def shared(self, vector: np.ndarray) -> np.ndarray:
        """(S,) of a vector (P,): itself if nothing is personal."""
        return _taken(vector, self._runs) if self.personal else vector

    def own(self, vector: np.ndarray) -> np.ndarray:
        """(P − S,) of a vector (P,): its personal coordinates."""
        return _taken(vector, self._own_runs)

    def with_shared(self, vector: np.ndarray, shared: np.ndarray) -> np.ndarray:
        """`vector` (P,) with these shared coordinates (S,); itself is left unchanged."""
        return _put(vector, self._runs, shared) if self.personal else shared

    def with_own(self, vector: np.ndarray, own: np.ndarray) -> np.ndarray:
        """`vector` (P,) with these personal coordinates (P − S,); itself is left unchanged."""
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
