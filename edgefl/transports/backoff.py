"""When to read, to send and to reconnect, with which MQTT version, and when to log that it takes long.

Nothing here reads a clock or sleeps: numbers in, numbers out.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from ..errors import TransportError

PAUSE_S = 0.01  # between two looks at whether the link's user has caught up
ANSWER_S = 8.0  # a slow link takes a second or two, once TLS is established
DOUBT_S = 600.0  # an older version that has worked for so long without proof is worth another question
LONGEST_PAUSE_S = 10.0  # or a keep-alive; then read anyway, or the broker's answers to our pings are missed


class Reading:
    """Pauses reading while the link's user is behind, but never for longer than `LONGEST_PAUSE_S` or a keep-alive."""

    def __init__(self, is_behind: Callable[[], bool], keepalive_s: float) -> None:
        self._is_behind = is_behind
        self._longest_s = min(LONGEST_PAUSE_S, keepalive_s)
        self._read_at = 0.0

    def allowed(self, now: float) -> bool:
        """Whether to read `now`; True counts as having read."""
        if self._is_behind() and now < self._read_at + self._longest_s:
            return False
        self._read_at = now
        return True


class Rate:
    """At most `per_s` publishes a second, evenly spaced: some brokers disconnect a client that sends more."""

    def __init__(self, per_s: float | None) -> None:
        self._gap_s = 1.0 / per_s if per_s else 0.0
        self._next_at = 0.0

    def wait_s(self, now: float) -> float:
        """Seconds until the next publish may go; 0: it may go now."""
        return max(0.0, self._next_at - now)

    def count(self, now: float) -> None:
        """A publish goes `now`."""
        self._next_at = now + self._gap_s


class Backoff:
    """Delays drawn uniformly from [0, min(cap, base * 2^n)] seconds, n the attempts since `reset`.

    Full jitter (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): a fleet that
    lost its broker at one moment must not reconnect at one moment.
    """

    def __init__(self, rng: random.Random, cap_s: float, base_s: float = 1.0) -> None:
        self._rng = rng
        self.calm_s = 0.0  # the interval is at least this wide, where there is no hurry
        self._cap_s = cap_s
        self._base_s = min(base_s, cap_s)
        self._ceiling_s = self._base_s

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        delay = self._rng.uniform(0.0, min(self._cap_s, max(self._ceiling_s, self.calm_s)))
        self._ceiling_s = min(self._cap_s, 2.0 * self._ceiling_s)
        return delay

    def slow(self) -> None:
        """Draw from the widest interval from now on: an early attempt would not help."""
        self._ceiling_s = self._cap_s

    def reset(self) -> None:
        self._ceiling_s = self._base_s


class Versions:
    """Which MQTT version to try next, "5" or "3.1.1": the one that has worked, otherwise each in turn.

    Some brokers do not answer a CONNECT of MQTT 5 at all. Until one version is settled, the other one gets its turn if
    no answer has come in `patience_s`. MQTT 5 is settled when it has worked, and 3.1.1 when it has worked after the
    broker refused 5. After mere silence it is not: the broker may have been frozen. So when a connection of `DOUBT_S`
    or more ends, 5 is tried first again.
    """

    def __init__(self, wanted: str) -> None:
        if wanted not in ("auto", "5", "3.1.1"):
            raise TransportError(f"unknown MQTT version {wanted!r}: use auto, 5 or 3.1.1")
        self.pinned = wanted != "auto"
        self._settled, self._refused = self.pinned, False
        self._favourite = self.current = "5" if wanted == "auto" else wanted

    @property
    def patience_s(self) -> float:
        """How long the broker's answer to CONNECT may take; after it the connection counts as hung up."""
        return ANSWER_S if self.current == "5" and not self._settled else math.inf

    def learn(self, *, up: bool, hung_up: bool, unsupported: bool, lasted_s: float = 0.0) -> None:
        """Note how a connection went: accepted (`up`), closed without an answer (`hung_up`), version refused."""
        if up:
            if not self._settled:
                self._favourite, self._settled = self.current, self._refused or self.current == "5"
            # A proxy whose broker is down hangs up on any version, so start again with the one that has worked.
            self.current = self._favourite if self._settled or lasted_s < DOUBT_S else "5"
        elif (hung_up or unsupported) and not self.pinned:
            self.current = "3.1.1" if self.current == "5" else "5"
            if unsupported:
                self._favourite, self._refused = self.current, True


class Outage:
    """How long the link has had no broker, and when a log line is due: at once, then every `every_s` seconds."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._since: float | None = None
        self._next = 0.0

    def due(self, now: float) -> float | None:
        """Seconds of outage so far if a log line is due now, otherwise None. The first call starts the outage."""
        if self._since is None:
            self._since = self._next = now
        if now < self._next:
            return None
        self._next = now + self._every_s
        return now - self._since

    def next_in(self, now: float) -> float:
        """Seconds until the next line."""
        return max(0.0, self._next - now)

    def over(self, now: float) -> float:
        """End the outage; returns how many seconds it lasted, 0 if there was none."""
        took = 0.0 if self._since is None else now - self._since
        self._since = None
        return took
