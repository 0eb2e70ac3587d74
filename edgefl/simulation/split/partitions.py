"""Partitions: which device of a simulated fleet holds which training examples.

All give every example to exactly one device, except `natural`, which goes by the device ids that the data brings along
and may leave some devices out, and `windows`, in which devices share examples, so that there may be more devices than
examples. What else a device's examples have of their own is in shifts.py. A new partition is a
function and a line in `PARTITIONS`. One from outside is a function as ours: named by its entry point in the group
edgefl.partitions, as "module:function", or given as it is.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

import numpy as np

from ...data import Dataset
from ...errors import EdgeFLError, UsageError
from ...registry import Found, Seam
from .arguments import BOUNDS, number, whole
from .windows import Windows

Parts = Sequence[np.ndarray]
Partition = Callable[[Dataset, str, int, np.random.Generator], Parts]
MIN_EXAMPLES = 2  # that dirichlet leaves a device with


def split(dataset: Dataset, spec: str | Partition, devices: int, seed: int) -> Parts:
    """One (n_k,) int64 array of indices into the training part for each of `devices` devices.

    The same dataset, spec, devices and seed give the same parts. Raises UsageError.
    """
    n = len(dataset.x_train)
    if devices < 1 or (devices > n and not is_shared(spec)):
        advice = "or windows:N, in which each device has N examples that others have too"
        raise UsageError(f"{devices} devices can't share {n} examples: choose 1 to {n} devices, {advice}")
    rng = np.random.default_rng(seed)
    found, argument = find(spec)
    if found.whose:
        return _split_outside(found, argument, (dataset, devices, rng))
    parts: Parts = found.value(dataset, argument, devices, rng)
    return parts


def find(spec: str | Partition) -> tuple[Found, str]:
    """The function that a partition names, and its argument; UsageError if it names none, or the argument
    is out of its bounds. No data are needed for that."""
    if not isinstance(spec, str):
        return Found(spec, "the caller"), ""
    name, colon, argument = spec.partition(":")
    if name in PARTITIONS:
        if bool(colon) != bool(wanted := PARTITIONS[name][1]):
            raise UsageError(f"partition {spec!r}: write {name}{wanted}")
        if name in BOUNDS:
            number(name, argument)
    elif colon and not SEAM.has(name):
        attribute, _, argument = argument.partition(":")
        name = f"{name}:{attribute}"
    return SEAM.find(name), argument


def is_shared(spec: str | Partition) -> bool:
    """Whether it is a partition of ours in which many devices may have one example."""
    return isinstance(spec, str) and spec.partition(":")[0] in SHARING


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
    per_device = whole("shards", argument)
    labels = labels_of(dataset, "shards")
    if devices * per_device > len(labels):
        raise UsageError(
            f"{devices} devices of {per_device} shards need more than {len(labels)} examples: choose fewer"
        )
    pieces = np.array_split(np.argsort(labels, kind="stable"), devices * per_device)
    deal = rng.permutation(len(pieces)).reshape(devices, per_device)
    return [np.concatenate([pieces[shard] for shard in hand]) for hand in deal]


def pathological(dataset: Dataset, argument: str, devices: int, rng: np.random.Generator) -> Parts:
    """The split of McMahan et al. 2017 by its name: two shards a device."""
    return shards(dataset, "2", devices, rng)


def labels(dataset: Dataset, argument: str, devices: int, rng: np.random.Generator) -> Parts:
    """Exactly K labels a device, "#C=K" of Li et al. 2021 (NIID-Bench, arXiv:2102.02079): the examples of a label are
    dealt equally to the devices that have it. Each device takes the K labels that the fewest have so far."""
    each = whole("labels", argument)
    classes, codes = np.unique(labels_of(dataset, "labels"), return_inverse=True)
    if each > len(classes) or each * devices < len(classes):
        raise UsageError(
            f"partition labels:{each}: {devices} devices of {each} labels don't fit {len(classes)} labels: "
            f"choose at most {len(classes)} labels a device, and as many devices as give each label a place"
        )
    holders: list[list[int]] = [[] for _ in classes]
    for device in range(devices):
        fewest = sorted(zip(map(len, holders), rng.random(len(classes)), range(len(classes)), strict=True))[:each]
        for _, _, label in fewest:
            holders[label].append(device)
    dealt: list[list[np.ndarray]] = [[] for _ in range(devices)]
    for label, having in enumerate(holders):
        members = rng.permutation(np.flatnonzero(codes == label))
        if len(members) < len(having):
            raise UsageError(
                f"partition labels:{each}: label {classes[label]} has {len(members)} examples for {len(having)} "
                "devices: choose fewer devices, or fewer labels a device"
            )
        for device, piece in zip(having, np.array_split(members, len(having)), strict=True):
            dealt[device].append(piece)
    return [np.concatenate(part) for part in dealt]


def similarity(dataset: Dataset, argument: str, devices: int, rng: np.random.Generator) -> Parts:
    """Karimireddy et al. 2020 (arXiv:1910.06378), section 7: S percent of the examples are dealt at random; the others,
    sorted by label, in consecutive pieces. 0 is as skewed as shards:1, 100 is iid."""
    percent = number("similarity", argument)
    order = rng.permutation(len(dataset.x_train))
    drawn = round(len(order) * percent / 100)
    others = order[drawn:]
    others = others[np.argsort(labels_of(dataset, "similarity")[others], kind="stable")]
    # From both ends, since of each the first pieces may have one example more: with that, no device has none.
    pieces = zip(np.array_split(order[:drawn], devices), np.array_split(others, devices)[::-1], strict=True)
    return [np.concatenate(pair) for pair in pieces]


def dirichlet(dataset: Dataset, argument: str, devices: int, rng: np.random.Generator) -> Parts:
    """Label skew after Hsu et al. 2019 (arXiv:1909.06335), drawn class by class: each class is dealt by
    proportions ~ Dir(A, ..., A) over the devices, so sizes differ too. Small A is skewed, large A is iid.

    A device with fewer than two examples is given some by whichever device has most at the time.
    """
    alpha = number("dirichlet", argument)
    labels = labels_of(dataset, "dirichlet")
    if MIN_EXAMPLES * devices > len(labels):
        raise UsageError(f"{len(labels)} examples don't give {devices} devices two each: choose fewer devices")
    dealt: list[list[np.ndarray]] = [[] for _ in range(devices)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        bounds = np.cumsum(rng.dirichlet(np.full(devices, alpha)))[:-1] * len(members)
        for part, piece in zip(dealt, np.split(members, np.rint(bounds).astype(np.int64)), strict=True):
            part.append(piece)
    return _fill_up([np.concatenate(part) for part in dealt])


def label_shift(dataset: Dataset, argument: str, devices: int, rng: np.random.Generator) -> Parts:
    """Label skew in equal sizes, Hsu et al. 2019 (arXiv:1909.06335) as published: each device draws its own proportions
    of the labels ~ Dir(A p), where p are those of the data, and then examples by them, without replacement. A is the
    concentration in total: of ten equal labels, A = 3 draws Dir(0.3, ..., 0.3).

    Labels that have run out are left out of the proportions, so the last devices differ less: their order is random.
    """
    alpha = number("label-shift", argument)
    classes, codes = np.unique(labels_of(dataset, "label-shift"), return_inverse=True)
    left = np.bincount(codes, minlength=len(classes))
    members = [rng.permutation(np.flatnonzero(codes == label)) for label in range(len(classes))]
    sizes = [len(part) for part in np.array_split(codes, devices)]
    prior = alpha * left / left.sum()
    parts: list[np.ndarray] = [np.empty(0, np.int64)] * devices
    for device in rng.permutation(devices):
        taken = _draw_labels(rng.dirichlet(prior), left, sizes[device], rng)
        pieces = [members[label][left[label] - count : left[label]] for label, count in enumerate(taken)]
        parts[device] = np.concatenate(pieces)
        left -= taken
    return parts


def _draw_labels(share: np.ndarray, left: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """(classes,) how many examples of each label, `size` in all and of each at most those that are `left`."""
    taken = np.zeros_like(left)
    while (missing := size - int(taken.sum())) > 0:
        open_share = np.where(taken < left, share, 0.0)
        if not open_share.sum() > 0:  # proportions that have run out, or that are too small for a float
            open_share = np.where(taken < left, left - taken, 0).astype(float)
        taken = np.minimum(taken + rng.multinomial(missing, open_share / open_share.sum()), left)
    return taken


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
    sigma = number("unbalanced", argument)
    n = len(dataset.x_train)
    # Scaled by the largest, as a large S alone would overflow.
    normal = rng.normal(0.0, sigma, devices)
    weights = np.exp(normal - normal.max())
    bounds = np.rint(np.cumsum(weights / weights.sum())[:-1] * (n - devices)).astype(np.int64)
    return np.split(rng.permutation(n), bounds + np.arange(1, devices))


def quantity(dataset: Dataset, argument: str, devices: int, rng: np.random.Generator) -> Parts:
    """iid content in sizes ~ Dir(A, ..., A), quantity skew of Li et al. 2021 (arXiv:2102.02079), at least one each."""
    alpha = number("quantity", argument)
    n = len(dataset.x_train)
    bounds = np.rint(np.cumsum(rng.dirichlet(np.full(devices, alpha)))[:-1] * (n - devices)).astype(np.int64)
    return np.split(rng.permutation(n), bounds + np.arange(1, devices))


def windows(dataset: Dataset, argument: str, devices: int, rng: np.random.Generator) -> Parts:
    """N examples each, neighbours in a shuffled order of all: iid content, and any number of devices."""
    size, n = whole("windows", argument), len(dataset.x_train)
    if size > n:
        raise UsageError(f"windows of {size} examples are more than the {n} that there are: choose fewer")
    return Windows(rng.permutation(n), size, devices, int(rng.integers(2**62)))


# Name -> the function, and how its argument is written.
PARTITIONS: dict[str, tuple[Partition, str]] = {
    "iid": (iid, ""),
    "shards": (shards, ":K, as in shards:2"),
    "pathological": (pathological, ""),
    "labels": (labels, ":K, as in labels:2"),
    "similarity": (similarity, ":S, as in similarity:10"),
    "dirichlet": (dirichlet, ":A, as in dirichlet:0.3"),
    "label-shift": (label_shift, ":A, as in label-shift:0.3"),
    "natural": (natural, ""),
    "unbalanced": (unbalanced, ":S, as in unbalanced:1.0"),
    "quantity": (quantity, ":A, as in quantity:0.5"),
    "windows": (windows, ":N, as in windows:600"),
}
SHARING = frozenset({"windows"})  # those in which one example may be with many devices
SEAM = Seam("partition", "edgefl.partitions", {name: f"{__name__}:{name.replace('-', '_')}" for name in PARTITIONS})


def labels_of(dataset: Dataset, name: str) -> np.ndarray:
    """(n,) int64 labels; UsageError where targets are anything else."""
    labels = dataset.y_train
    if labels.dtype != np.int64 or labels.ndim != 1:
        raise UsageError(
            f"{name} needs labels; targets of {dataset.name} are {labels.dtype} {labels.shape}: "
            "choose iid, unbalanced or natural; csv and sqlite take kind=classes"
        )
    return labels


def _fill_up(parts: list[np.ndarray]) -> Parts:
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
