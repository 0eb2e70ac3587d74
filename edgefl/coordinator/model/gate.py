"""Gate: whether a new model may be committed. No I/O. Part of RoundCoordinator.

A new model may lose at most so much against the model that it would replace, on the same examples:

    accuracy < accuracy before − max_accuracy_drop        refused
    loss > loss before · (1 + max_loss_rise)              refused, where the loss has no accuracy

A round whose model is refused is recorded as refused. The model, its version and the strategy's state stay as they
are, bit for bit. The updates that made it are spent: none of them goes into a later round, or one bad late update would
spoil round after round. A model that the operator goes back to is not judged.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

from ...settings import GateSettings


class Scores(Protocol):
    """What a model is worth on some examples."""

    @property
    def loss(self) -> float | None: ...
    @property
    def accuracy(self) -> float | None: ...


class Gate:
    """`base`: the scores of the newest model on the test set; None: not known since the start of this process."""

    def __init__(self, settings: GateSettings) -> None:
        self.settings = settings
        self.base: Scores | None = None

    @property
    def wants_base(self) -> bool:
        """Whether the newest model has to be evaluated before a new one can be judged."""
        return self.settings.judge == "test" and self.base is None

    def refuses(self, scores: Scores) -> str:
        """Why a model with these scores on the test set may not be committed; "" if it may."""
        if self.settings.judge != "test" or self.base is None:
            return ""
        return verdict(self.settings, self.base, scores)


class _Fall(NamedTuple):
    what: str
    before: float
    now: float
    too_far: bool


def drop(base: Scores, scores: Scores) -> float:
    """The accuracy that is lost; both have one."""
    assert base.accuracy is not None and scores.accuracy is not None
    return base.accuracy - scores.accuracy


def rise(base: Scores, scores: Scores) -> float:
    """By which share of itself the loss has risen; infinite if it is not finite any more."""
    assert base.loss is not None
    if scores.loss is None:
        return math.inf
    risen = scores.loss - base.loss
    return risen / abs(base.loss) if base.loss else math.copysign(math.inf, risen) if risen else 0.0


def verdict(settings: GateSettings, base: Scores, scores: Scores) -> str:
    """Why `scores` are worse than `base` by more than the settings allow; "" if they are not."""
    if base.loss is None:
        return ""  # nothing is worse than a model whose loss is not finite
    if scores.loss is None:
        return "its loss on the test set is not finite"
    if base.accuracy is not None and scores.accuracy is not None:
        fall = _Fall("accuracy", base.accuracy, scores.accuracy, drop(base, scores) > settings.max_accuracy_drop)
    else:
        fall = _Fall("loss", base.loss, scores.loss, rise(base, scores) > settings.max_loss_rise)
    return f"its {fall.what} is {fall.now:.4g}, that of the model before it {fall.before:.4g}" if fall.too_far else ""
