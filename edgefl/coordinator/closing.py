"""Closing: the model that a round gives when it ends, or no model. No I/O. Part of RoundCoordinator.

RoundCoordinator decides when a round ends, commits the model and announces it.
"""

from __future__ import annotations

import msgspec
import numpy as np

from ..history import RoundRecord
from ..machine import Note
from ..strategies import Strategy
from .tally import Tally


def conclude(
    tally: Tally, strategy: Strategy, record: RoundRecord
) -> tuple[np.ndarray | None, RoundRecord, list[Note]]:
    """The next params, (P,) float32, or None; `record`, abandoned if the strategy's params are not finite; what to log.

    A strategy that gave such params goes back to its state before them.
    """
    if record.state == "abandoned":
        return None, record, [Note("warning", f"round {tally.round} abandoned: {record.why}")]
    if record.state == "evaluated":
        return None, record, []
    before = strategy.state()
    params = strategy.finish()
    if np.isfinite(params).all():
        return params, record, []
    strategy.restore(before)
    tally.spoil_folded()
    why = "the averaged model is not finite: lower lr or server_lr"
    record = msgspec.structs.replace(record, state="abandoned", version=tally.version, why=why)
    return None, record, [Note("error", f"round {tally.round}: {why}")]
