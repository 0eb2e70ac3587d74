"""What a device does for a round: fetch the model, train (or evaluate), report. Part of DeviceSession; no I/O."""

from __future__ import annotations

from dataclasses import dataclass

from ..protocol.messages import Round
from .events import Action, CancelTraining, TrainJob
from .model_fetch import ModelFetch
from .saved_update import SavedUpdate, is_late
from .update_report import UpdateReport


@dataclass
class Training:
    """A job that the host has; its answer is awaited."""

    round: Round
    job: TrainJob


Work = ModelFetch | Training | UpdateReport


def goes_on(work: Work, saved: SavedUpdate, round: Round, asked: bool) -> bool:
    """Whether `round`, announced again or the next one, wants what is being done."""
    if isinstance(work, UpdateReport):
        return saved.late(round) or (asked and saved.serves(round))
    if isinstance(work, Training) and work.round.mode == "train" and is_late(work.round.round, round):
        return True
    same = asked and work.round.same_work(round)
    return same and (isinstance(work, Training) or work.round.frames == round.frames)


def cancel(work: Work | None) -> list[Action]:
    """What ends it: a report needs nothing."""
    if isinstance(work, Training):
        return [CancelTraining()]
    return work.cancel() if isinstance(work, ModelFetch) else []
