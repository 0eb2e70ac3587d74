"""Watching: what viewers are shown of the federation. No I/O. Part of RoundCoordinator.

Nothing here changes a round. A coordinator that nobody watches, such as that of a simulation, skips all of this.
"""

from __future__ import annotations

from ... import __version__
from ...machine import Flow, Sent, Tick, WallTime
from ...protocol.fleet import MAX_WAITS, DeviceRow, OpenRound, Summary
from ..devices.ordered import Ordered
from ..events import Event
from ..model.candidates import Candidates
from . import advice
from .roll import Roll

QUIET = (Tick, WallTime, Flow, Sent)  # events that change nothing by themselves


class Watching(Candidates, Ordered):
    """`rows` and `summary` are for the host, on its own thread. What they return is never changed."""

    _seen_phase = ""

    def rows(self) -> list[DeviceRow]:
        """All devices, by name; none if nobody watches."""
        return [] if self.roll is None else self.roll.rows()

    def summary(self, now: float) -> Summary:
        """The federation as it is now."""
        assert self.roll is not None
        return self._summary(self.roll, self.phase, now)

    def _summary(self, roll: Roll, phase: str, now: float) -> Summary:
        opens_at = self.readiness.opens_at if self.phase == "waiting" else None
        states, manifest = roll.states(), self.announcer.manifest
        return Summary(
            manifest.federation, manifest.run, self._unix(now), phase, self.round, self.version, self.fence.attempt,
            total=sum(states.values()), present=self.presence.count, states=dict(sorted(states.items())),
            barred=len(self.admission.barred), paused=len(self.presence.paused), open=self._open_round(),
            opens_at=self._unix(opens_at), advice=self._advice(roll), troubled=roll.troubled(), last=list(roll.past),
            pages=roll.pages, edgefl=__version__, privacy=None if self.masked is None else self.masked.spent,
            adaptive=None if self.masked is None else self.masked.adaptive,
        )  # fmt: skip

    def _open_round(self) -> OpenRound | None:
        tally = self.tally
        if tally is None or self.phase not in ("open", "unmasking", "evaluating", "judging"):
            return None
        return OpenRound(
            tally.round, tally.version, tally.mode, self._unix(tally.opened_at),
            self._unix(tally.closes_at if self.phase == "open" else None), tally.num_counted, tally.num_waiting,
            sorted(tally.waiting)[:MAX_WAITS], len(tally.opening.skipped), tally.bytes_up,
        )  # fmt: skip

    def _advice(self, roll: Roll) -> list[str]:
        """What the operator can do. A round that waits for its time lacks no devices."""
        is_short = self.phase == "waiting" and self.fence.held and self.readiness.opens_at is None
        needed = self.readiness.needed(first=self.version == 0 and self.tally is None) if is_short else 0
        mismatch = self.readiness.absence.mismatch.advice(self.presence.statuses.values())
        others = advice.of(self.presence, self.admission.barred, roll, needed=needed, topic=self.topics.any_status)
        waits = [text for text in (self._ended, self._asks_operator) if text]
        return [*waits, *self._in_vain.advice, *self._silence(), *mismatch, *self.unlisted.advice(), *others]

    def _silence(self) -> list[str]:
        """Which helpers a sum, or the first round with noise, waits for. That takes a moment, unless one is away."""
        if self._inquiry is not None and self.phase == "waiting":
            return [self._inquiry.silence]
        unmasking = self._unmasking if self.phase == "unmasking" else None
        if unmasking is None or not unmasking.silent:
            return []
        return [
            f"no answer yet of helper {', '.join(unmasking.silent)}: is it running, and connected? Without one in "
            f"{unmasking.patience_s:g} s the round is abandoned"
        ]

    def _unix(self, at: float | None) -> int:
        """Seconds after the start of 1970; 0 if that is not known."""
        unix_s = None if at is None else self.clock.shown(at)
        return 0 if unix_s is None else max(0, round(unix_s))

    def _watch(self, event: Event, now: float) -> None:
        """The event has been processed: publish what is due."""
        if self.roll is None or self.bulletin is None:
            return
        if not isinstance(event, QUIET) or self.phase != self._seen_phase:
            self._seen_phase = self.phase
            self.bulletin.touch(now)
        if self.fence.held and self.bulletin.due_at is not None and now >= self.bulletin.due_at:
            self._out += self.bulletin.publish(lambda: self.summary(now), now)

    def _show_last(self, phase: str, now: float) -> None:
        """The aggregator is about to end."""
        if self.roll is not None and self.bulletin is not None and (self.fence.held or phase == "done"):
            self._out += self.bulletin.end(self._summary(self.roll, phase, now))
