"""EarlierRounds: what the rounds that are over mean for the open one. No I/O. Part of RoundCoordinator.

    standing    which devices have earned that rounds wait for them
    closed      of which rounds late updates still count
    credits     of which rounds a late update only earns waiting again

An aggregator that starts again learns all of this from the records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ...codecs import Codec
from ...history_record import RoundRecord
from ...settings import RoundSettings
from ..devices.standing import Standing
from .closed_rounds import ClosedRounds
from .credits import Credits, Past
from .intake import RoundIntake
from .tally import Tally


class EarlierRounds:
    """`make_intake` is given a round and the version that its devices trained from. `masked`: rounds that train are."""

    def __init__(
        self, config: RoundSettings, codec: Codec, num_params: int, make_intake: Callable[[int, int], RoundIntake], *,
        masked: bool = False,
    ) -> None:  # fmt: skip
        self.standing = Standing()
        self.closed = ClosedRounds(config.late_window)
        self.credits = Credits(codec, num_params, make_intake, masked=masked)
        self.config, self._make_intake = config, make_intake

    def restore(self, recent: Iterable[RoundRecord]) -> None:
        """Learn from the last rounds, oldest first. Each record is read once, and not kept."""
        for record in recent:
            self.standing.restore(record)
            self.skip(record)

    def skip(self, record: RoundRecord) -> None:
        """The round was never opened by this process: devices may hold updates of it all the same."""
        if record.profile:
            return
        mode = self.config.mode_of(record.round)
        self.credits.close(record.round, Past(record.base, mode, None))
        if mode == "train" and self.config.late_window:
            self.closed.reload([record], self._make_intake)

    def cut(self, tally: Tally) -> None:
        """The operator has ended the round: it shows nothing of its devices, and none has counted in it."""
        for device in tally.counted:
            self.standing.count(device, tally.round, counted=False)
        self._close(tally, abandoned=True)

    def refuse(self, tally: Tally) -> None:
        """The model of the round, which is closed, is refused: its updates are spent, and in no model."""
        for device in tally.counted:
            self.standing.count(device, tally.round, counted=False)
        if (closed := self.closed.get(tally.round)) is not None:
            closed.refused = True

    def close(self, tally: Tally, *, abandoned: bool) -> dict[str, str]:
        """The round is over. Returns why devices that it asked did not report, or were not waited for."""
        missed = self.standing.close(tally.outcome())
        for device in tally.counted if abandoned else ():
            self.standing.count(device, tally.round, counted=False)
        self._close(tally, abandoned=abandoned)
        return missed

    def _close(self, tally: Tally, *, abandoned: bool) -> None:
        if tally.mode != "profile":
            self.credits.close(tally.round, Past(tally.version, tally.mode, tally.opened_at))
        self.closed.close(tally, abandoned=abandoned)
