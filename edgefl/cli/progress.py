"""A bar below the lines of a simulation: rounds that are over, and when the others will be. Only on a terminal."""

from __future__ import annotations

import statistics
import sys
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..history_costs import duration
from ..plural import plural

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

RECENT = 20  # rounds whose times say how long the next ones take


class Eta:
    """How long `total` rounds will take yet, by the median of the recent ones; None before the first is over."""

    def __init__(self, total: int, now: float) -> None:
        self.total, self.over = total, 0
        self._since = now
        self._took: deque[float] = deque(maxlen=RECENT)

    def round_over(self, now: float, was_computed: bool = True) -> None:
        """A round is over; one that was read from a journal does not say how long others take."""
        self.over += 1
        if was_computed:
            self._took.append(now - self._since)
        self._since = now

    def seconds(self, now: float) -> float | None:
        """From now on. A round that takes longer than the others is not late before it has."""
        if not self._took:
            return None
        each = statistics.median(self._took)
        left = max(0, self.total - self.over)
        return max(0.0, left * each - min(each, now - self._since)) if left else 0.0


class Progress:
    """A context in which `round_over` moves the bar. Without a terminal nothing is shown."""

    def __init__(self, rounds: int) -> None:
        self._eta = Eta(rounds, time.monotonic())
        self._bar: Bar | None = None

    def __enter__(self) -> Progress:
        if sys.stdout.isatty():
            self._bar = _bar(self._eta)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def round_over(self, was_computed: bool = True) -> None:
        """A round is over."""
        self._eta.round_over(time.monotonic(), was_computed)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._eta.over)


def told(eta: Eta, now: float) -> str:
    """What stands beside the bar."""
    seconds = eta.seconds(now)
    left = "" if seconds is None else f", {duration(round(seconds))} left"
    return f"{eta.over} of {plural(eta.total, 'round')}{left}"


def _bar(eta: Eta) -> Bar:
    from rich.progress import BarColumn, ProgressColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Left(ProgressColumn):
        """The text, made anew whenever the bar is drawn."""

        def render(self, task: Any) -> Text:
            return Text(told(eta, time.monotonic()))

    bar = Bar(BarColumn(), Left(), transient=True, refresh_per_second=2)
    bar.add_task("", total=eta.total)
    return bar
