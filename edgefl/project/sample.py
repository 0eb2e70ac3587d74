"""Sample: what the operator's own copy of the data says of the model: shapes, classes, and a SPEC for every device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import data
from ..data import Dataset
from ..data.labels import in_order
from ..errors import DataError, UsageError
from ..onnx.templates import Examples

OF_FILES = ("csv", "npz", "sqlite", "mnist", "folder")  # kinds of data whose SPEC names a path
OF_TABLES = ("csv", "sqlite", "folder")  # kinds whose targets may be texts
FEW = 10
NAME = "{name}"  # stands for the device


@dataclass(frozen=True)
class Sample:
    """`spec`: the devices' data, with absolute paths and every label by its name. `own`: the SPECs that can be read on
    this machine, one for each device whose data are here. `restores`: the targets are the examples themselves."""

    spec: str
    own: tuple[str, ...]
    dataset: Dataset
    examples: Examples
    restores: bool
    labels: tuple[str, ...] = ()

    @property
    def looks_like_classes(self) -> bool:
        """Whether the targets are numbers, and yet few different whole ones."""
        y = self.dataset.y_train
        if y.dtype != np.float32 or y.ndim > 1:
            return False
        found = np.unique(y)
        return bool(len(found) <= FEW and (found == np.round(found)).all() and len(y) > 10 * FEW)


def read_sample(spec: str, devices: Sequence[str]) -> Sample:
    """Read the data that are on this machine; UsageError, DataError."""
    spec = absolute(spec)
    own = [spec] if NAME not in spec else [spec.replace(NAME, device) for device in devices]
    here = [one for one in own if NAME not in spec or _is_here(one)]
    if not here:
        raise DataError(f"none of the devices' data are on this machine ({own[0]}, ...): copy one device's data here")
    try:
        parts = [data.load(one, test_fraction=0) for one in here]
    except DataError:
        if (texts := _as_texts(spec)) is None or not _can_be_read(texts.replace(NAME, devices[0])):
            raise
        return read_sample(texts, devices)
    dataset, labels = parts[0], _labels(parts)
    if labels and any(part.labels != labels for part in parts):
        spec, here = _with_labels(spec, labels), [_with_labels(one, labels) for one in here]
        return read_sample(spec, devices)
    for one, part in zip(here, parts, strict=True):
        if part.x_train.shape[1:] != dataset.x_train.shape[1:]:
            shapes = f"{part.x_train.shape[1:]} and {dataset.x_train.shape[1:]}"
            raise DataError(f"{one}: examples have shapes {shapes}: name the same features for all devices")
    spec = _with_labels(spec, labels) if labels else spec
    return Sample(spec, tuple(here), dataset, _examples(parts, labels), _restores(dataset), labels)


def with_options(spec: str, options: str) -> str:
    """The SPEC with these options behind its own."""
    return f"{spec}{'&' if '?' in spec else '?'}{options}"


def absolute(spec: str) -> str:
    """The SPEC with its path from the root, so that it means the same in every folder."""
    head, mark, options = spec.partition("?")
    kind, colon, rest = head.partition(":")
    if kind not in OF_FILES or not rest:
        return spec
    return f"{kind}{colon}{Path(rest).expanduser().absolute()}{mark}{options}"


def _as_texts(spec: str) -> str | None:
    """The SPEC of a table whose targets are texts; None if it says already what they are."""
    kind, _, _ = spec.partition(":")
    told = any(f"{mark}{key}=" in spec for mark in "?&" for key in ("labels", "kind"))
    return None if kind not in OF_TABLES or told or "target=*" in spec else with_options(spec, "labels=*")


def _can_be_read(spec: str) -> bool:
    try:
        return len(data.load(spec, test_fraction=0).labels) > 1
    except (DataError, UsageError):
        return False


def _is_here(spec: str) -> bool:
    kind, _, rest = spec.partition("?")[0].partition(":")
    return kind not in OF_FILES or Path(rest).exists()


def _labels(parts: Sequence[Dataset]) -> tuple[str, ...]:
    """The names of the classes on all devices, in the order of their names."""
    found = dict.fromkeys(name for part in parts for name in part.labels)
    return tuple(found) if len(parts) == 1 else tuple(sorted(found, key=in_order))


def _with_labels(spec: str, labels: Sequence[str]) -> str:
    """The SPEC with all labels by name, since devices that each numbered their own would number them differently."""
    head, _, options = spec.partition("?")
    if any("," in label or "&" in label for label in labels):
        raise UsageError(f"a label has a comma or an ampersand: rename it; labels are {', '.join(labels)}")
    kept = [item for item in options.split("&") if not item.startswith(("labels=", "kind="))]
    return f"{head}?{'&'.join([*kept, 'labels=' + ','.join(labels)])}"


def _examples(parts: Sequence[Dataset], labels: Sequence[str]) -> Examples:
    x, y = parts[0].x_train, parts[0].y_train
    tokens = 1 + max(int(part.x_train.max()) for part in parts) if x.dtype == np.int64 else 0
    if y.dtype != np.int64:
        return Examples(x.shape[1:], int(np.prod(y.shape[1:])), tokens)
    classes = len(labels) or 1 + max(int(part.y_train.max()) for part in parts)
    if classes < 2:
        raise DataError("all targets are one class: a model needs at least two to tell apart; name them with labels=")
    return Examples(x.shape[1:], max(classes, tokens if y.ndim > 1 else 0), tokens, steps=y.ndim > 1)


def _restores(dataset: Dataset) -> bool:
    x, y = dataset.x_train, dataset.y_train
    return y.dtype == np.float32 and x.shape == y.shape and bool((x == y).all())
