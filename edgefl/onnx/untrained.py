"""What of a model is not trained, and why; and which tensors are read in several places.

Not here: who decides it. A function of an op gives its weight a reason (`Weight.why`), sharing.py ties tensors, and
report.py collects both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FROZEN = "frozen"
LEADING = "scales the input, before the first weight"
NUMBER = "a single number"
GRAPH = "a constant in the graph"
COMPUTED = "computed from other constants"
MASK = "a mask of very large numbers"
REPEATED = "stored once for each sample of a run"
MEASURED = "running statistics, measured and not trained"
UNREAD = "an option of an op, or of a computation with constants, or read by no output that is trained"
TRAINABLE = (LEADING, NUMBER, GRAPH)  # by `train`; a frozen tensor is trained once it is not named in `freeze`


@dataclass(frozen=True)
class Untrained:
    """A tensor that training leaves as it is, but for running statistics."""

    name: str  # as `train` and `freeze` take it
    shape: tuple[int, ...]  # in the file
    reason: str

    @property
    def can_train(self) -> bool:
        """Whether `train=[name]` makes it train."""
        return self.reason in TRAINABLE


@dataclass(frozen=True)
class Shared:
    """A tensor of the file that several nodes read."""

    name: str  # of the param
    nodes: tuple[str, ...]  # that read this param
    kind: Literal["tied", "copy", "fresh"]  # one param; or a param of its own: of equal layers, of equal numbers
