"""`shakespeare:FILE`: the next character of what the roles of a play say, as in McMahan et al. 2017 (arXiv:1602.05629).

FILE is JSON Lines, plain or .gz, one role of one play a line: `{"play": ..., "role": ..., "speeches": ["...", ...]}`.
A role with two lines of text or more is a device. The first 80 % of its lines are for training, the rest for the test.

Each part of a role's text becomes windows of `window` characters. The last window ends where the text ends, so it may
share characters with the window before it. A text that is too short for one window is repeated until it has one, in the
training part; in the test part it is left out, where it would make the task easier.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from ..errors import DataError, UsageError
from .characters import LINE_END, tokens
from .dataset import Dataset
from .options import choice, existing_path, refuse_unknown, whole_number

TRAIN = 0.8  # of a role's lines
MOST_BYTES = 2**30  # of x, as int64


class Role(msgspec.Struct):
    """A line of the file."""

    play: str
    role: str
    speeches: list[str]


class Window(NamedTuple):
    """How text is cut: `last`: only the character after the window is a target, else each character's next one."""

    size: int
    step: int
    last: bool


def read(rest: str, options: Mapping[str, str]) -> Dataset:
    """x (n, window) int64 tokens of ALPHABET; y (n, window) int64, the next characters, or (n,) with targets=last.

    device_train numbers the roles as the file does. window=80, step=window; roles=N takes the first N roles, and
    test_windows=N keeps N windows of the test part, evenly spaced: an evaluation costs as much as training does.
    Raises DataError, UsageError.
    """
    refuse_unknown(options, "shakespeare", ("window", "step", "targets", "roles", "test_windows"))
    size = whole_number(options, "window", 1) if "window" in options else 80
    step = whole_number(options, "step", 1) if "step" in options else size
    if step > size:
        raise UsageError(f"data option step={step} skips characters: give at most window={size}")
    cut = Window(size, step, choice(options, "targets", ("each", "last")) == "last")
    path = existing_path(rest)
    parts = [_split(role) for role in _roles(path)]
    kept = [part for part in parts if part is not None]
    if "roles" in options:
        kept = kept[: whole_number(options, "roles", 1)]
    if not kept:
        text = "no role has two lines"
        raise DataError(f"{path.name}: {text}: give one role of one play a line of JSON, with its speeches", text)
    _check_size(path.name, sum(len(text) for part in kept for text in part), cut)
    train = [_windows(_at_least(tokens(text), size + 1), cut) for text, _ in kept]
    test = [_windows(tokens(text), cut) for _, text in kept if len(text) > size]
    if not test:
        text = f"no role has more than {size} characters in its last lines, which are for the test"
        raise DataError(f"{path.name}: {text}: lower window=", text)
    devices = np.repeat(np.arange(len(kept)), [len(x) for x, _ in train])
    (x, y), (x_test, y_test) = ([np.concatenate(side) for side in zip(*pairs, strict=True)] for pairs in (train, test))
    if "test_windows" in options:
        wanted = min(whole_number(options, "test_windows", 1), len(x_test))
        some = np.arange(wanted) * len(x_test) // wanted
        x_test, y_test = x_test[some], y_test[some]
    return Dataset(x, y, x_test, y_test, devices, name="shakespeare")


def _roles(path: Path) -> Iterator[Role]:
    decoder = msgspec.json.Decoder(Role)
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _role(decoder, path, number, line)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"can't read {path}: {error}: fetch it again", f"can't read {path.name}") from None


def _role(decoder: msgspec.json.Decoder[Role], path: Path, number: int, line: bytes) -> Role:
    try:
        return decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text = f"line {number} is not a role in JSON"
        raise DataError(f"{path}, {text} with play, role and speeches: {error}", text) from None


def _split(role: Role) -> tuple[str, str] | None:
    """The text to train on and that of the test; None for a role with fewer than two lines."""
    lines = "\n".join(role.speeches).split("\n")
    if len(lines) < 2:
        return None
    held = max(1, len(lines) - int(TRAIN * len(lines)))
    return "\n".join(lines[:-held]), "\n".join(lines[-held:])


def _at_least(text: np.ndarray, length: int) -> np.ndarray:
    """The text, repeated with a line end between, if it is shorter than that."""
    if len(text) >= length:
        return text
    line = np.append(text, LINE_END)
    return np.tile(line, -(-length // len(line)))[:length]


def _windows(text: np.ndarray, cut: Window) -> tuple[np.ndarray, np.ndarray]:
    """x (k, window), and y (k, window) or (k,), of a text that has one window or more."""
    end = len(text) - cut.size - 1  # where the last window starts
    starts = np.unique(np.append(np.arange(0, end, cut.step), end))
    both = np.lib.stride_tricks.sliding_window_view(text, cut.size + 1)[starts]
    return both[:, :-1], both[:, -1] if cut.last else both[:, 1:]


def _check_size(name: str, characters: int, cut: Window) -> None:
    size = characters // cut.step * cut.size * 8
    if size > MOST_BYTES:
        text = f"windows of {cut.size} every {cut.step} characters take {size / 1e9:.1f} GB"
        raise UsageError(f"{name}: {text}: raise step=, or take fewer roles with roles=N")
