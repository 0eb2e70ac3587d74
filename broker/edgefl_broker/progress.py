"""What an operator sees: one live line on a terminal (rich), plain log lines elsewhere."""

from __future__ import annotations

import logging
import time
from typing import Protocol

from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.history import RoundRecord, scores, times_smaller

log = logging.getLogger("edgefl.aggregator")


class Progress(Protocol):
    """Where progress goes."""

    def show(self, coordinator: RoundCoordinator) -> None: ...
    def close(self) -> None: ...


def summary(record: RoundRecord) -> str:
    """One line about a round that is over."""
    who = f" ({', '.join(record.devices)})" if len(record.devices) <= 12 else ""
    up = f"{record.bytes_up} bytes up{times_smaller(record.float32_bytes, record.bytes_up)}"
    down = f"{record.bytes_down} down{times_smaller(record.float32_bytes, record.bytes_down)}"
    late = f", {len(record.folded)} of them late" if record.folded else ""
    reported = f"{record.reported} reported{late}{who}"
    reported += f", {record.rejected} rejected" if record.rejected else ""
    reported += f", {record.deferred} had to wait" if record.deferred else ""
    return (
        f"round {record.round} {record.state}: {reported}{scores(record, ', ')}, {up}, {down}, {record.seconds:.1f} s"
    )


class Silent:
    """Log lines say all there is."""

    def show(self, coordinator: RoundCoordinator) -> None:
        pass

    def close(self) -> None:
        pass


class LiveLine:
    """A line that rewrites itself below the log."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.logging import RichHandler

        console = Console(stderr=True)
        logging.getLogger().handlers[:] = [RichHandler(console=console, show_path=False, markup=False)]
        self._status = console.status("connecting")
        self._status.start()

    def show(self, coordinator: RoundCoordinator) -> None:
        present = coordinator.presence.count
        text = f"round {coordinator.round} {coordinator.phase}, {present} devices present"
        if coordinator.phase == "open" and (tally := coordinator.tally) is not None:
            left = tally.opened_at + coordinator.config.deadline_s - time.monotonic()
            text += f", {len(tally.counted)} reported, {len(tally.waiting)} to come, {tally.bytes_up / 1e6:.1f} MB"
            text += f", {left:.0f} s left"
            if behind := tally.intake.waiting:
                text += f", {behind} updates wait for room"
        self._status.update(text)

    def close(self) -> None:
        self._status.stop()
