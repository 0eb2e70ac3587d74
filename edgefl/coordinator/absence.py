"""Absence: what an operator reads about devices that are missing. No I/O. Part of RoundCoordinator.

While too few devices are there to open a round, a line at once and then one a minute says how many, and what is known
about the others. A round that is abandoned says what became of the devices that it asked. A device that gets into
trouble is named at once, since rounds may go on without it.
"""

from __future__ import annotations

from collections.abc import Callable

from ..machine import Note
from ..plural import plural
from ..protocol.fleet import clip
from ..protocol.messages import Status
from ..protocol.trouble import OF_TARGETS, REMEDIES
from .devices.mismatch import Mismatch
from .devices.presence import Presence
from .updates.tally import Tally

LINE_S = 60.0  # between two lines
NAMED = 12  # devices in a line
AGAIN_S = 3600.0  # until the same trouble of a device is told again
NOT_TOLD = ("budget", "hours", "rests", "rejected")  # codes: what its owner wants, and what has a line of its own
REASON = 160  # characters of what a device says about itself

# The most helpful come first: what a device can't mend itself, then what may pass, then what its owner wants.
_ORDER = {"trouble": 0, "lost": 1, "paused": 2, "disconnected": 3}
_UNITS = (("days", 86400.0, 2), ("h", 3600.0, 2), ("min", 60.0, 2), ("s", 1.0, 0))


class Absence:
    """`topic` is where devices announce themselves, `loss` what they train with. `heard` follows every status that
    `presence` has stored."""

    def __init__(self, presence: Presence, topic: str, loss: str) -> None:
        self._presence, self._topic, self.mismatch = presence, topic, Mismatch(loss)
        self._since: dict[str, tuple[float, bool]] = {}  # devices that are not present; whether we saw them go
        self._told: dict[str, tuple[str, float]] = {}  # the trouble of a device that was told last, and when
        self._minute, self._in_minute = 0.0, 0  # when it began, and the lines about trouble since then
        self._line_at: float | None = None
        self._lines = 0  # since the last round

    @property
    def wake_at(self) -> float | None:
        """When the next line is due; None while no line was wanted yet."""
        return self._line_at if self._lines else None

    def heard(self, device: str, known: bool, now: float) -> list[Note]:
        """The device's status has changed; `known`: it had one before. A line, if the device is in trouble now."""
        status = self._presence.statuses.get(device)
        if status is None:
            self._told.pop(device, None)
        if status is None or status.present:
            self._since.pop(device, None)
            return []
        self._since[device] = (now, known)
        if status.state != "trouble" or status.code in NOT_TOLD:
            return []
        if status.code in OF_TARGETS:
            return self.mismatch.heard(device, status.code)
        text = self._what(device, now)
        before, at = self._told.get(device, ("", 0.0))
        if text == before and now < at + AGAIN_S:
            return []
        self._told[device] = text, now
        todo = f"; {REMEDIES[status.code]}" if status.code in REMEDIES else ""
        return [Note("warning", f"{device} is in trouble: {text}{todo}", self._kind(device, now), device=device)]

    def _kind(self, device: str, now: float) -> str:
        """The kind of a line about a device in trouble. In each minute the first `NAMED` devices have a line each. All
        others share a kind, of which hosting/repeats.py makes one line with a count."""
        if now >= self._minute + LINE_S:
            self._minute, self._in_minute = now, 0
        self._in_minute += 1
        return f"trouble of {device}" if self._in_minute <= NAMED else "trouble"

    def over(self) -> None:
        """Enough devices are there."""
        self._lines = 0

    def line(self, needed: int, now: float, *, until: float | None = None) -> list[Note]:
        """The line, if one is due while fewer than `needed` devices are present. At `until` the round opens anyway."""
        if self._line_at is not None and now < self._line_at:
            self._lines = max(self._lines, 1)
            return []
        self._line_at, self._lines = now + LINE_S, self._lines + 1
        anyway = "" if until is None else f"; the round opens without them in {duration(max(0.0, until - now))}"
        return [Note("info" if self._lines == 1 else "warning", self._text(needed, now) + anyway)]

    def _text(self, needed: int, now: float) -> str:
        text = f"waiting: {self._presence.count} of {plural(needed, 'device')}"
        if not self._presence.statuses:
            check = "check the federation's name, [mqtt] root and the broker's ACL"
            return f"{text}: no device has announced itself on {self._topic} yet: {check}"
        told = _named(self._sorted(), lambda device: self._what(device, now))
        if paused := len(self._presence.paused):
            told = f"{paused} paused by an operator" + (f"; {told}" if told else "")
        if old := self._presence.without_news:
            told = f"{old} without new data" + (f"; {told}" if told else "")
        return f"{text} ({told})" if told else f"{text}: no other device has announced itself"

    def _sorted(self) -> list[str]:
        """The devices that are not present."""

        def key(device: str) -> tuple[int, float, str]:
            state = self._presence.statuses[device].state
            return _ORDER.get(state, len(_ORDER)), -self._since[device][0], device

        return sorted(self._since, key=key)

    def _what(self, device: str, now: float) -> str:
        """What is known about a device that is not present."""
        status = self._presence.statuses[device]
        if status.state == "trouble":
            return _reason(status) or f"code {_plain(status.code)}"
        since, seen = self._since[device]
        text = {"disconnected": "stopped"}.get(status.state, _plain(status.state))
        if status.reason:
            return f"{text}: {_reason(status)}"
        if seen:
            return f"{text} {duration(now - since)} ago"
        return text if now - since < LINE_S else f"{text} more than {duration(now - since)} ago"

    def why(self, tally: Tally, min_reports: int, now: float) -> str:
        """Why the round ends with too few reports: what became of each device that it asked."""
        after = f"still at work after {duration(now - tally.opened_at)}"
        rejected, skipped = set(tally.rejected), tally.opening.skipped

        def fate(device: str) -> str:
            if device in rejected:
                return "its update was rejected"
            if device in self._presence.paused:
                return "paused by an operator"
            if self._presence.is_present(device):
                return f"not waited for: {skipped[device]}" if device in skipped else after
            return self._what(device, now) if device in self._since else "its status was cleared"

        devices = sorted({*tally.unreported, *skipped} - set(tally.counted))
        text, told = f"{tally.reports} of {max(1, min_reports)} reports", _named(devices, fate)
        if tally.masked is not None and tally.reports >= max(1, min_reports):
            text = (
                f"no group has the {tally.masked.terms.least} devices that a sum needs; lower [privacy] groups: {text}"
            )
        return f"{text} ({told})" if told else text


def _named(devices: list[str], what: Callable[[str], str]) -> str:
    """The first devices with what there is to say about each, and how many more there are."""
    told = [f"{device}: {what(device)}" for device in devices[:NAMED]]
    return "; ".join([*told, f"{len(devices) - NAMED} more"] if len(devices) > NAMED else told)


def duration(seconds: float) -> str:
    """ "3 h", "90 s", "4 days": rounded down, in the largest unit of which there are two."""
    unit, size, _ = next((u for u in _UNITS if seconds >= u[2] * u[1]), _UNITS[-1])
    return f"{seconds // size:.0f} {unit}"


def _reason(status: Status) -> str:
    return _plain(clip(status.reason, REASON))


def _plain(text: str) -> str:
    """What a device says, without characters that would break a line of the log, or steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
