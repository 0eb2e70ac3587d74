"""What `loss` may be: one loss, or one for each output that is trained, as a dict or as a text.

"mse"                                             the loss of the output that depends on all weights
{"digit": "cross_entropy", "age": ("mse", 0.1)}   of these outputs; the sum of the first mean and a tenth of the other
"digit=cross_entropy, age=mse:0.1"                the same in a file or on a command line
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..core.plan import LOSSES
from ..errors import UsageError, nearest

MOST = 8  # outputs that are trained at once
HEAVIEST = 1e6
Given: TypeAlias = str | Mapping[str, str | tuple[str, float]] | None
Wanted: TypeAlias = str | dict[str, tuple[str, float]] | None  # what `read` makes of it


@dataclass(frozen=True)
class Ending:
    """A trained output: value numbers of the trace, its `shape` a sample, and the axis of the ONNX output that the
    classes lie along, samples included; -1 if the loss takes numbers."""

    name: str
    tensor: str
    shape: tuple[int, ...]
    loss: str
    weight: float
    loss_input: int
    output: int
    class_axis: int
    tail: str  # "softmax", "log_softmax" or "sigmoid" that the file ends in and the loss has taken over; else ""
    why: str  # this loss
    axis: int | None = 0  # of the samples in the file's output; None: it has none


def read(loss: Any) -> Wanted:
    """One loss, a loss and a weight for each output, or None to infer it. UsageError."""
    if loss is None:
        return None
    if isinstance(loss, str):
        return _known(loss, "") if "=" not in loss else _pairs(_parsed(loss))
    if not isinstance(loss, Mapping):
        raise UsageError(f"loss is {loss!r}: give its name, or a dict of names by output")
    return _pairs(loss)


def _parsed(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in text.split(","):
        output, equals, rest = item.strip().rpartition("=")
        kind, colon, weight = rest.partition(":")
        if not equals or output in found:
            raise UsageError(
                f"loss {text!r}: write OUTPUT=LOSS or OUTPUT=LOSS:WEIGHT once for each output, with commas"
            )
        try:
            found[output] = (kind, float(weight)) if colon else kind
        except ValueError:
            raise UsageError(
                f"loss {text!r}: {weight!r} is no number: write OUTPUT=LOSS:WEIGHT, as age=mse:0.1"
            ) from None
    return found


def _pairs(given: Mapping[Any, Any]) -> dict[str, tuple[str, float]]:
    if not 1 <= len(given) <= MOST:
        raise UsageError(f"loss names {len(given)} outputs: give a loss for 1 to {MOST} that are to be trained")
    return {str(name): _pair(name, value) for name, value in given.items()}


def _pair(name: Any, given: Any) -> tuple[str, float]:
    kind, weight = given if isinstance(given, list | tuple) and len(given) == 2 else (given, 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= HEAVIEST:
        raise UsageError(f"the loss of output {name!r} has the weight {weight!r}: give a number above 0")
    return _known(kind, f" of output {name!r}"), float(weight)


def _known(kind: Any, where: str) -> str:
    if not isinstance(kind, str) or kind not in LOSSES:
        raise UsageError(f"unknown loss {kind!r}{where}: {nearest(str(kind), LOSSES)}")
    return kind


def of(endings: Sequence[Ending]) -> dict[str, tuple[str, float]]:
    """The same outputs with the same losses, as a dict."""
    return {ending.name: (ending.loss, ending.weight) for ending in endings}
