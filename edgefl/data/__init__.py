"""Data: one SPEC string names examples to train on, on a laptop and on a device alike.

    digits                                       8x8 digits of scikit-learn, x (n, 64) in [0, 1]
    mnist:DIR[?natural=writers][&shape=1x28x28]  the four official IDX files, x (n, 784) in [0, 1]
    fashion-mnist:DIR[?shape=1x28x28]            the same for Fashion-MNIST
    cifar10:DIR                                  the binary version, x (n, 3, 32, 32) in [0, 1]
    har:DIR[?signals=1][&subjects=all]           activities by 30 subjects: 561 features, or 9x128 signals
    shakespeare:FILE[?targets=last][&roles=N]    the next character by role, x (n, 80) tokens
    leaf:DIR                                     JSON of LEAF: FEMNIST, Shakespeare, Synthetic, by user
    csv:FILE?target=COL[&features=A,B][&device=COL][&delimiter=;][&encoding=latin-1]
    sqlite:FILE?query=SELECT ...&target=COL[&features=A,B][&device=COL]
    npz:FILE                                     x_train, y_train[, x_test, y_test][, device_train], or x, y;
                                                 x.IMAGE and x.WORDS for a model with several inputs, y.AGE
    folder:DIR?...                               the csv or npz files of a folder that grows, with their options
    ring:FILE?target=COL[&rows=N]                what edgefl-agent record keeps of sensors' messages
    python:MODULE:CALLABLE                       what your own code returns, in the same terms as npz
    MODULE:CALLABLE                              the same
    KIND:REST                                    a reader that another package brings: entry points edgefl.data

Options of csv, sqlite and, as far as they have a meaning there, npz (all of them: docs/data.md):

    kind=classes                the target is 0, 1, 2, ...; else it is a number to be predicted
    labels=ok,worn,fault        the target is one of these texts, numbered in this order; labels=*: all that occur
    target=state,wear           several targets, named after a model's outputs; target=kind=state,age=wear names others
    labels.state=ok,worn        the texts of one of several targets
    target=*                    the features are the targets: an autoencoder
    missing=mean                what becomes of blanks: mean, value:NUMBER or skip (the row); else the row is a bad one
    unlabelled=1                the target is not looked at, and need not be there: for predictions
    bad=0.25                    the part of the rows that may be bad, which are left out and counted
    decimal=,&thousands=.       how numbers are written
    window=128&step=64          examples are windows over time; time=COL finds gaps; channels=first for Conv1d

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

Not here: which device gets which example (simulation/split/partitions.py).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError, EdgeFLError, UsageError
from ..registry import Seam, is_reference, working_directory_importable
from . import python_callable
from .dataset import Dataset, fit_plan, fit_shape
from .finish import finish
from .options import COMMON

if TYPE_CHECKING:
    from ..core.plan import Plan

__all__ = ["READERS", "Dataset", "fit_plan", "fit_shape", "load", "load_test_set"]

READERS = {
    "cifar10": "edgefl.data.cifar10:read",
    "csv": "edgefl.data.csv_file:read",
    "digits": "edgefl.data.digits:read",
    "fashion-mnist": "edgefl.data.mnist:read_fashion",
    "folder": "edgefl.data.folder:read",
    "har": "edgefl.data.har:read",
    "leaf": "edgefl.data.leaf:read",
    "mnist": "edgefl.data.mnist:read",
    "npz": "edgefl.data.npz_file:read",
    "python": "edgefl.data.python_callable:read",
    "ring": "edgefl.data.ring:read",
    "shakespeare": "edgefl.data.shakespeare:read",
    "sqlite": "edgefl.data.sqlite_query:read",
}
SEAM = Seam("kind of data", "edgefl.data", READERS)


def load(
    spec: str, *, test_fraction: float = 0.2, seed: int = 0, means: np.ndarray | None = None, gaps: bool = False
) -> Dataset:
    """Read the examples that `spec` names (grammar: this module's docstring).

    `test_fraction` of them are held out, drawn with `seed`, unless the data has a test part of its own or
    the SPEC says test=. `means`, (features,), is what missing=mean puts into blanks, instead of the means of the
    training part; with `gaps`, nothing is put there, and x has NaN. Raises UsageError for a SPEC that can't be
    right and DataError for data that can't be read or trained on.
    """
    _check_arguments(spec, test_fraction, seed)
    kind, rest, options = parse(spec)
    common = {name: options.pop(name) for name in COMMON if name in options}
    return finish(_read(kind, rest, options), common, test_fraction, seed, means=means, gaps=gaps)


def _check_arguments(spec: object, test_fraction: object, seed: object) -> None:
    if not isinstance(spec, str):
        raise UsageError(f'data is {spec!r}: give a spec such as "digits" or "npz:FILE"')
    if isinstance(test_fraction, bool) or not isinstance(test_fraction, int | float):
        raise UsageError(f"test_fraction is {test_fraction!r}: give a number from 0 to below 1")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UsageError(f"seed is {seed!r}: give a whole number of at least 0")


def _read(kind: str, rest: str, options: dict[str, str]) -> Dataset:
    """The examples, read by the reader of that kind."""
    reference = f"{kind}:{rest}"
    if not SEAM.has(kind) and is_reference(reference) and _can_be_imported(kind):
        return python_callable.read(reference, options)
    found = SEAM.find(kind)
    if not found.whose:
        return found.value(rest, options)  # type: ignore[no-any-return]
    what = f"data {kind!r} of {found.whose}"
    try:
        value = found.value(rest, options)
    except EdgeFLError:
        raise
    except Exception as error:
        text = f"{what} failed: {type(error).__name__}"
        raise DataError(f"{text}: {error}", text) from error
    return python_callable.as_dataset(value, what)


def _can_be_imported(module: str) -> bool:
    with working_directory_importable():
        return find_spec(module.split(".")[0]) is not None


def load_test_set(spec: str, plan: Plan | None = None) -> Dataset:
    """The dataset that `spec` names, shaped for a model's input if that is known; UsageError if it has no test part."""
    dataset = load(spec)
    if plan is not None:
        dataset = fit_plan(dataset, plan)
    if dataset.x_test is None:
        raise UsageError(f"test_data {spec!r} has no test part: give npz with x_test, y_test, or add test=0.2")
    return dataset


def parse(spec: str) -> tuple[str, str, dict[str, str]]:
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
