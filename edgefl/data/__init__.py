"""Data: one SPEC string names examples to train on, on a laptop and on a device alike.

    digits                                       8x8 digits of scikit-learn, x (n, 64) in [0, 1]
    mnist:DIR[?natural=writers][&shape=1x28x28]  the four official IDX files, x (n, 784) in [0, 1]
    csv:FILE?target=COL[&features=A,B][&device=COL][&kind=values|classes][&delimiter=;]
    sqlite:FILE?query=SELECT ...&target=COL[&features=A,B][&device=COL][&kind=values|classes]
    npz:FILE                                     x_train, y_train[, x_test, y_test][, device_train], or x, y
    python:MODULE:CALLABLE                       what your own code returns, in the same terms as npz

Options that every SPEC takes:

    test=0.2                    part of the examples held out for evaluation, 0 for none; only where the data
                                has no test part of its own
    standardize=1               z-score the features, and float targets, by statistics of the training part
    mean=1,2&std=3,4            the same for features by fixed numbers, one a feature or one for all
    target_mean=1&target_std=2  likewise for float targets

Give devices the fixed numbers: by standardize=1 each would scale to its own data, and no two would
train the same model. A value that holds an ampersand writes it as %26.

Readers are imported on use, so that a device pays for its own only. A new reader is one file with
`read(rest, options) -> Dataset` and a line in `READERS`.

Not here: which device gets which example (simulation/partitions.py).
"""

from __future__ import annotations

import importlib

from ..errors import UsageError, nearest
from .dataset import Dataset, fit_shape
from .finish import finish
from .options import COMMON

__all__ = ["READERS", "Dataset", "fit_shape", "load"]

READERS = {
    "csv": "edgefl.data.csv_file:read",
    "digits": "edgefl.data.digits:read",
    "mnist": "edgefl.data.mnist:read",
    "npz": "edgefl.data.npz_file:read",
    "python": "edgefl.data.python_callable:read",
    "sqlite": "edgefl.data.sqlite_query:read",
}


def load(spec: str, *, test_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """Read the examples that `spec` names (grammar: this module's docstring).

    `test_fraction` of them are held out, drawn with `seed`, unless the data has a test part of its own or
    the SPEC says test=. Raises UsageError for a SPEC that can't be right and DataError for data that can't
    be read or trained on.
    """
    kind, rest, options = _parse(spec)
    if kind not in READERS:
        raise UsageError(f"unknown kind of data {kind!r} in {spec!r}: {nearest(kind, READERS)}")
    common = {name: options.pop(name) for name in COMMON if name in options}
    module, function = READERS[kind].split(":")
    dataset = getattr(importlib.import_module(module), function)(rest, options)
    return finish(dataset, common, test_fraction, seed)


def _parse(spec: str) -> tuple[str, str, dict[str, str]]:
    """`kind:rest?key=value&key=value` in its three parts."""
    head, _, tail = spec.partition("?")
    kind, _, rest = head.partition(":")
    options: dict[str, str] = {}
    for item in tail.split("&") if tail else []:
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"data option {item!r} is not KEY=VALUE: write & inside a value as %26")
        if key in options:
            raise UsageError(f"data option {key!r} is given twice: keep one")
        options[key] = value.replace("%26", "&")
    return kind, rest, options
