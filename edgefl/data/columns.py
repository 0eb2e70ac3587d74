"""Which columns of a table are features, target, device and time. Chosen by the SPEC, or by what is left over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import DataError, UsageError, nearest
from .options import choice, names
from .targets import targets_of

ITSELF = "*"  # target=*: the features are the targets, as an autoencoder wants them
UNLABELLED = "unlabelled"  # the option for examples that are to be predicted


class Columns(NamedTuple):
    """Positions of features, targets, device and time in a row; and the names that the SPEC has for some of them."""

    features: list[int]
    targets: list[int]
    device: int | None
    time: int | None
    told: frozenset[str]


def choose(source: str, header: Sequence[str], options: Mapping[str, str], hint: str = "") -> Columns:
    """Positions of the columns that the options name; DataError for one that is missing.

    `hint` says what may be wrong with the whole table, as a wrong delimiter. It holds no value.
    """
    twice = [name for i, name in enumerate(header) if name in header[:i]]
    if twice:
        text = f"{source} has two columns named {twice[0]!r}: give each its own name"
        raise DataError(text, f"{source} has two columns of one name")
    unlabelled = is_unlabelled(options)
    if "target" not in options and not unlabelled:
        shown = ", ".join(header) + (f" ({hint})" if hint else "")
        raise UsageError(f"{source}: add target=COL, the column to learn; columns: {shown}")
    wanted = [target.column for target in targets_of(options)]
    own = set(wanted) if unlabelled else set()  # columns that need not be there
    itself = wanted == [ITSELF] and ITSELF not in header
    targets = [] if unlabelled or itself else [_position(source, header, name, hint) for name in wanted]
    device, time = (_optional(source, header, options, key, hint) for key in ("device", "time"))
    if "features" not in options:
        features = [i for i, name in enumerate(header) if i not in (*targets, device, time) and name not in own]
    else:
        features = [_position(source, header, name, hint) for name in names(options["features"])]
    if not features:
        text = f"{source} has no column left to learn from" + (f"; {hint}" if hint else "")
        raise DataError(f"{text}: add one", text)
    if set(targets) & set(features) or len(set(features)) < len(features):
        raise UsageError(f"features={options['features']} has a column twice, or the target: name each once")
    if len(set(targets)) < len(targets):
        raise UsageError(f"target={options['target']} has a column twice: name each once")
    told_too = names(options["features"]) if "features" in options else []
    return Columns(features, targets, device, time, told(options).union(told_too))


def told(options: Mapping[str, str]) -> frozenset[str]:
    """The names of targets, device and time in the SPEC."""
    others = [options[key] for key in ("device", "time") if key in options]
    return frozenset([*(target.column for target in targets_of(options)), *others])


def is_unlabelled(options: Mapping[str, str]) -> bool:
    """unlabelled=1: the target is not looked at, and need not be there. UsageError."""
    return choice(options, UNLABELLED, ("0", "1")) == "1"


def _optional(source: str, header: Sequence[str], options: Mapping[str, str], key: str, hint: str) -> int | None:
    if key not in options:
        return None
    return _position(source, header, options[key], hint)


def _position(source: str, header: Sequence[str], name: str, hint: str) -> int:
    if name not in header:
        text = f"{source} has no column {name!r}" + (f"; {hint}" if hint else "")
        raise DataError(f"{text}: {nearest(name, header)}", text)
    return header.index(name)
