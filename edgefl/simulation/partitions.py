"""Partitions: which device of a simulated fleet holds which training examples.

`iid`, `shards:K`, `dirichlet:A`, `unbalanced:S` give every example to exactly one device; `natural` goes by
the device ids that the data brings along. A new partition is a function and a line in `PARTITIONS`. One from outside is
a function as ours: named by its entry point in the group edgefl.partitions, as "module:function", or given as it is.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import numpy as np

from ..data import Dataset
from ..errors import EdgeFLError, UsageError
from ..registry import Found, Seam

Parts = list[np.ndarray]
Partition = Callable[[Dataset, str, int, np.random.Generator], Parts]
N = TypeVar("N", int, float)
MIN_EXAMPLES = 2  # that dirichlet leaves a device with


def split(dataset: Dataset, spec: str | Partition, devices: int, seed: int) -> Parts:
    """One (n_k,) int64 array of indices into the training part for each of `devices` devices.

    The same dataset, spec, devices and seed give the same parts. Raises UsageError.
    """
    n = len(dataset.x_train)
    if not 1 <= devices <= n:
        raise UsageError(f"{devices} devices can't share {n} examples: choose 1 to {n} devices")
    rng = np.random.default_rng(seed)
    if not isinstance(spec, str):
        return _split_outside(Found(spec, "the caller"), "", (dataset, devices, rng))
    name, colon, argument = spec.partition(":")
    if name in PARTITIONS:
        SEAM.find(name)  # or another package has the name too
        function, wanted = PARTITIONS[name]
        if bool(colon) != bool(wanted):
            raise UsageError(f"partition {spec!r}: write {name}{wanted}")
        return function(dataset, argument, devices, rng)
    if colon and not SEAM.has(name):
        attribute, _, argument = argument.partition(":")
        name = f"{name}:{attribute}"
    return _split_outside(SEAM.find(name), argument, (dataset, devices, rng))


def _split_outside(found: Found, argument: str, task: tuple[Dataset, int, np.random.Generator]) -> Parts:
    """The parts that an outsider's function makes, checked."""
    dataset, devices, rng = task
    what = f"partition {getattr(found.value, '__name__', found.value)!r} of {found.whose}"
    if not callable(found.value):
        raise UsageError(f"{what} is {type(found.value).__name__}: give a name, 'module:function' or a function")
    try:
        parts = [np.asarray(part) for part in found.value(dataset, argument, devices, rng)]
    except EdgeFLError:
        raise
    except Exception as error:
        raise UsageError(f"{what} failed: {type(error).__name__}: {error}") from error
    if len(parts) != devices:
        raise UsageError(f"{what} made {len(parts)} parts for {devices} devices")
    for device, part in enumerate(parts):
        if part.ndim != 1 or part.dtype.kind not in "iu" or not len(part):
            raise UsageError(f"{what}: the part of device {device} must be a list of one index or more")
        if part.min() < 0 or part.max() >= len(dataset.x_train):
            raise UsageError(f"{what}: the part of device {device} names an example that is not there")
    return [part.astype(np.int64) for part in parts]


def iid(dataset: Dataset, argument: str, devices: int, rng: np.random.Generator) -> Parts:
    """Shuffled, then dealt in equal parts (sizes differ by one at most)."""
    return np.array_split(rng.permutation(len(dataset.x_train)), devices)


def shards(dataset: Dataset, argument: str, devices: int, rng: np.random.Generator) -> Parts:
    """McMahan et al. 2017 (arXiv:1602.05629), section 3, the pathological split: sorted by label, cut into
    devices*K shards of equal size, K of them a device: at K=2 most devices see two labels."""
    per_device = _number("shards", argument, int, minimum=1)
    labels = _labels(dataset, "shards")
    if devices * per_device > len(labels):
        raise UsageError(
            f"{devices} devices of {per_device} shards need more than {len(labels)} examples: choose fewer"
        )
    pieces = np.array_split(np.argsort(labels, kind="stable"), devices * per_device)
    deal = rng.permutation(len(pieces)).reshape(devices, per_device)
    return [np.concatenate([pieces[shard] for shard in hand]) for hand in deal]


def dirichlet(dataset: Dataset, argument: str, devices: int, rng: np.random.Generator) -> Parts:
    """Label skew after Hsu et al. 2019 (arXiv:1909.06335), drawn class by class: each class is dealt by
    proportions ~ Dir(A, ..., A) over the devices, so sizes differ too. Small A is skewed, large A is iid.

    A device with fewer than two examples is given some by whichever device has most at the time.
    """
    alpha = _number("dirichlet", argument, float, minimum=1e-6)
    labels = _labels(dataset, "dirichlet")
    if MIN_EXAMPLES * devices > len(labels):
        raise UsageError(f"{len(labels)} examples don't give {devices} devices two each: choose fewer devices")
    dealt: list[Parts] = [[] for _ in range(devices)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        bounds = np.cumsum(rng.dirichlet(np.full(devices, alpha)))[:-1] * len(members)
        for part, piece in zip(dealt, np.split(members, np.rint(bounds).astype(np.int64)), strict=True):
            part.append(piece)
    return _fill_up([np.concatenate(part) for part in dealt])


def natural(dataset: Dataset, argument: str, devices: int, rng: np.random.Generator) -> Parts:
    """The data's own devices; of more than asked for, the first in the order of their ids."""
    if dataset.device_train is None:
        raise UsageError(
            f"{dataset.name} does not say whose an example is: add device=COL (csv, sqlite), natural=writers "
            "(mnist) or device_train (npz, python), or choose another partition"
        )
    order = np.argsort(dataset.device_train, kind="stable")
    ids, starts = np.unique(dataset.device_train[order], return_index=True)
    if devices > len(ids):
        raise UsageError(f"{dataset.name} has {len(ids)} devices, not {devices}: choose {len(ids)} or fewer")
    return np.split(order, starts[1:])[:devices]


def unbalanced(dataset: Dataset, argument: str, devices: int, rng: np.random.Generator) -> Parts:
    """iid content in sizes ~ LogNormal(0, S), at least one: S=0 is equal, S=1 spreads over two decades."""
    sigma = _number("unbalanced", argument, float, minimum=0)
    n = len(dataset.x_train)
    # Scaled by the largest, as a large S alone would overflow.
    normal = rng.normal(0.0, sigma, devices)
    weights = np.exp(normal - normal.max())
    bounds = np.rint(np.cumsum(weights / weights.sum())[:-1] * (n - devices)).astype(np.int64)
    return np.split(rng.permutation(n), bounds + np.arange(1, devices))


# Name -> the function, and how its argument is written.
PARTITIONS: dict[str, tuple[Partition, str]] = {
    "iid": (iid, ""),
    "shards": (shards, ":K, as in shards:2"),
    "dirichlet": (dirichlet, ":A, as in dirichlet:0.3"),
    "natural": (natural, ""),
    "unbalanced": (unbalanced, ":S, as in unbalanced:1.0"),
}
SEAM = Seam("partition", "edgefl.partitions", {name: f"{__name__}:{name}" for name in PARTITIONS})


def _number(name: str, text: str, kind: Callable[[str], N], minimum: float) -> N:
    """The argument of a partition as an int or a finite float."""
    with suppress(ValueError):
        value = kind(text)
        if minimum <= value < math.inf:
            return value
    noun = "a whole number" if kind is int else "a number"
    raise UsageError(f"partition '{name}:{text}': give {noun} of at least {minimum} after the colon")


def _labels(dataset: Dataset, name: str) -> np.ndarray:
    """(n,) int64 labels; UsageError where targets are anything else."""
    labels = dataset.y_train
    if labels.dtype != np.int64 or labels.ndim != 1:
        raise UsageError(
            f"partition {name} needs labels; targets of {dataset.name} are {labels.dtype} {labels.shape}: "
            "choose iid, unbalanced or natural; csv and sqlite take kind=classes"
        )
    return labels


def _fill_up(parts: Parts) -> Parts:
    """Move examples, one at a time, from the largest part (of equals the first) to those under two.

    While one is short and there are two examples a device, the largest has more than two to give from.
    """
    largest = [(-len(part), device) for device, part in enumerate(parts)]
    heapq.heapify(largest)
    for device in range(len(parts)):
        while len(parts[device]) < MIN_EXAMPLES:
            size, donor = largest[0]
            parts[device] = np.append(parts[device], parts[donor][-1])
            parts[donor] = parts[donor][:-1]
            heapq.heapreplace(largest, (size + 1, donor))
    return parts
