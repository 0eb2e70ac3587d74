"""Sample: what the operator's own copy of the data says of the model: shapes, classes, and a SPEC for every device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .. import data
from ..data import Dataset
from ..data.labels import in_order
from ..errors import DataError
from ..onnx.templates import Examples
from .complete import completed

OF_FILES = tuple(kind for kind in data.READERS if kind not in ("digits", "python"))  # kinds whose SPEC names a path
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
    notes: tuple[str, ...] = ()  # what was guessed of the data


def read_sample(spec: str, devices: Sequence[str]) -> Sample:
    """Read the data that are on this machine; UsageError, DataError."""
    spec, notes = completed(spec, _here(spec, devices)[0])
    return replace(_read(spec, devices), notes=tuple(notes))


def _here(spec: str, devices: Sequence[str]) -> list[str]:
    """The SPECs of the devices whose data are on this machine; DataError if there are none."""
    if NAME not in spec:
        return [spec]
    own = [spec.replace(NAME, device) for device in devices]
    if not (here := [one for one in own if _is_here(one)]):
        raise DataError(f"none of the devices' data are on this machine ({own[0]}, ...): copy one device's data here")
    return here


def _read(spec: str, devices: Sequence[str]) -> Sample:
    here = _here(spec, devices)
    parts = [data.load(one, test_fraction=0) for one in here]
    dataset, labels = parts[0], _labels(parts)
    if labels and any(part.labels != labels for part in parts):
        return _read(_with_labels(spec, labels), devices)
    for one, part in zip(here, parts, strict=True):
        if part.x_train.shape[1:] != dataset.x_train.shape[1:]:
            shapes = f"{part.x_train.shape[1:]} and {dataset.x_train.shape[1:]}"
            raise DataError(f"{one}: examples have shapes {shapes}: name the same features for all devices")
    if labels and "labels" in data.parse(spec)[2]:  # else the reader knows them, as that of a published set does
        spec, here = _with_labels(spec, labels), [_with_labels(one, labels) for one in here]
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
    kept = [item for item in options.split("&") if not item.startswith(("labels=", "kind="))]
    escaped = ",".join(label.replace("&", "%26").replace(",", "%2C") for label in labels)
    return f"{head}?{'&'.join([*kept, f'labels={escaped}'])}"


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
