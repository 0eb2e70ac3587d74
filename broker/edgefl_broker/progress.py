"""What an operator sees: one live line on a terminal (rich), plain log lines elsewhere."""

from __future__ import annotations

import logging
import time
from typing import Protocol

from edgefl.coordinator.snapshot import Snapshot
from edgefl.history_record import RoundRecord
from edgefl.history_text import named, scores, times_smaller
from edgefl.hosting.log_lines import TextLines
from edgefl.hosting.repeats import count_repeats
from edgefl.plural import plural

log = logging.getLogger("edgefl.aggregator")


class Progress(Protocol):
    """Shows an operator what the aggregator does."""

    def show(self, state: Snapshot) -> None: ...
    def close(self) -> None: ...


def summary(record: RoundRecord) -> str:
    """One line about a round that is over."""
    names = f" ({', '.join(record.devices)})" if len(record.devices) <= 12 else ""
    up = f"{record.bytes_up} bytes up{times_smaller(record.float32_bytes, record.bytes_up)}"
    down = f"{record.bytes_down} down{times_smaller(record.float32_bytes, record.bytes_down)}"
    late = f", {len(record.folded)} of them late" if record.folded else ""
    reported = f"{record.reported} reported{late}{names}"
    reported += f", {record.rejected} rejected" if record.rejected else ""
    reported += f", {record.deferred} had to wait" if record.deferred else ""
    sat_out = [device for device, allowed in record.budgets.items() if not (allowed or device in record.devices)]
    why = record.missed | dict.fromkeys(sat_out, "its owner's byte budget")
    missed = f", without {named(why)}" if why else ""
    missed += f"; barred: {named(record.barred)}" if record.barred else ""
    took = f"{record.seconds:.1f} s" + (f", {record.deadlines} deadlines" if record.deadlines > 1 else "")
    what = "profile " if record.profile else ""
    return f"round {record.round} {what}{record.state}: {reported}{scores(record, ', ')}, {up}, {down}, {took}{missed}"


class Silent:
    """No live line: log lines are enough."""

    def show(self, state: Snapshot) -> None:
        pass

    def close(self) -> None:
        pass


class LiveLine:
    """A line that rewrites itself below the log."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.logging import RichHandler

        console = Console(stderr=True)
        handler = RichHandler(console=console, show_time=False, show_level=False, show_path=False)
        handler.setFormatter(TextLines())
        count_repeats(handler)
        logging.getLogger().handlers[:] = [handler]
        self._status = console.status("connecting")
        self._status.start()

    def show(self, state: Snapshot) -> None:
        text = f"round {state.round} {state.phase}, {plural(state.present, 'device')} present"
        if state.closes_at is not None:
            text += f", {state.counted} reported, {state.waiting} to come, {state.bytes_up / 1e6:.1f} MB"
            text += f", {state.closes_at - time.monotonic():.0f} s left"
            if state.skipped:
                text += f", not waiting for {len(state.skipped)}"
            if state.barred:
                text += f", {len(state.barred)} in quarantine or muted"
            if state.queued:
                text += f", {state.queued} updates wait for room"
        elif state.opens_at is not None:
            text += f", the next round opens in {max(0.0, state.opens_at - time.monotonic()):.0f} s"
        self._status.update(text)

    def close(self) -> None:
        self._status.stop()
