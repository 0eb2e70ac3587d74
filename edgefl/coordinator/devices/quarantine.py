"""Quarantine: devices that are neither asked, waited for nor heard, for what they have signed. No I/O.

Part of Admission.
A device is put into quarantine once signed updates of it were refused in `limit` of the last `UNEARNED_ROUNDS` rounds;
and at once if a helper can't open what it has sealed in a masked round (unopened.py), which would stop every round.
What another could send in its name, or a slow link brings twice or late, never counts: only a whole update whose
signature has been verified, once for each round that such an update was of. The quarantine is durable. It ends when its
time is over, or when an operator releases the device; then the device is judged anew.

Without a clock that can be trusted, the time of a quarantine begins when there is one.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ...protocol.refusals import CODES
from ...protocol.round import UNEARNED_ROUNDS

MOST = 10_000  # devices that are known here; the one that was refused least recently is dropped first


class Suspect(msgspec.Struct, omit_defaults=True, gc=False):
    """A device of which signed updates were refused, those of `rounds`. In quarantine it has `code`, why the last one
    was (protocol/refusals.py), `since`, the round in which the quarantine began, and `until`, when it ends, in seconds
    after the start of 1970, UTC; 0: that is not known yet."""

    rounds: list[int]
    code: str = ""
    since: int = 0
    until: int = 0

    @property
    def why(self) -> str:
        return f"since round {self.since}: {CODES.get(self.code, self.code)}"


class Quarantine:
    """`suspects`, by device: what is durable. `changed`: since it was saved. `seconds`: how long a quarantine lasts."""

    def __init__(self, limit: int, seconds: float, suspects: Mapping[str, Suspect] | None = None) -> None:
        self.suspects = dict(suspects or {})
        self.changed = False
        self._limit, self._seconds = limit, seconds
        self._crowded_out: list[str] = []  # of the quarantine, by others

    def why(self, device: str) -> str:
        """Why the device is in quarantine; "" if it is not."""
        found = self.suspects.get(device)
        return found.why if found is not None and found.code else ""

    @property
    def inside(self) -> dict[str, str]:
        """The devices in quarantine, and why."""
        return {device: found.why for device, found in sorted(self.suspects.items()) if found.code}

    def refuse(self, device: str, round: int, code: str, *, newest: int, unix_s: float | None) -> bool:
        """A signed update of `round` was refused. True if the device is in quarantine from now on. `newest` is the
        round that is open, or the next one."""
        found = self._suspect(device)
        if found.code or round in found.rounds:
            return False
        found.rounds = [number for number in found.rounds if number > newest - UNEARNED_ROUNDS] + [round]
        self.changed = True
        if len(found.rounds) < self._limit:
            return False
        found.code, found.since, found.until = code, newest, self._until(unix_s)
        return True

    def bar(self, device: str, code: str, *, newest: int, unix_s: float | None) -> bool:
        """The device goes into quarantine at once. False if it is there already."""
        found = self._suspect(device)
        if found.code:
            return False
        found.code, found.since, found.until, self.changed = code, newest, self._until(unix_s), True
        return True

    def those(self, code: str) -> set[str]:
        """The devices that are in quarantine for this."""
        return {device for device, found in self.suspects.items() if found.code == code}

    def _suspect(self, device: str) -> Suspect:
        """What is known of the device, which was heard of most recently now."""
        found = self.suspects.pop(device, None) or Suspect([])
        if len(self.suspects) >= MOST:
            oldest = next(iter(self.suspects))
            if self.suspects.pop(oldest).code:
                self._crowded_out.append(oldest)
        self.suspects[device] = found
        return found

    def _until(self, unix_s: float | None) -> int:
        return 0 if unix_s is None else round(unix_s + self._seconds)

    def release(self, device: str) -> bool:
        """Whether the device was in quarantine. It is not any more, and what was refused does not count again."""
        found = self.suspects.pop(device, None)
        self.changed = self.changed or found is not None
        return found is not None and bool(found.code)

    def over(self, unix_s: float | None) -> list[str]:
        """The devices whose quarantine ends now; `unix_s` None: the time is not known."""
        ended, self._crowded_out = self._crowded_out, []
        for device, found in list(self.suspects.items()) if unix_s is not None else ():
            if found.code and not found.until:
                found.until, self.changed = self._until(unix_s), True
            elif found.code and unix_s is not None and found.until <= unix_s:
                self.release(device)
                ended.append(device)
        return ended
