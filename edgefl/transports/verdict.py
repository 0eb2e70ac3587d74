"""Verdict: what a connection that ended teaches the link, and why it ended, in words that an operator can act on.

It decides how soon and with which MQTT version the link tries again; it does not try (mqtt.py). No clock, no socket.
"""

from __future__ import annotations

from msgspec.structs import replace

from ..protocol.topics import LONGEST_CLIENT_ID
from .backoff import Backoff, Versions
from .connection import (
    ADMINISTRATIVE,
    BAD_CLIENT_ID,
    BAD_CREDENTIALS,
    LOST,
    NOT_AUTHORIZED,
    TAKEN_OVER,
    UNSUPPORTED_VERSION,
    Connection,
    End,
    Settings,
)
from .events import Refused

STABLE_S = 30.0  # a connection that held this long was a good one: the back-off starts over

_KICKED = "this client is revoked, or sends more than the broker's guard allows; the broker's log says which"
_ADVICE = {
    BAD_CLIENT_ID: "choose another client id",
    BAD_CREDENTIALS: "check user and password here and in the broker",
    NOT_AUTHORIZED: "check user, password or certificate here, and the broker's users",
}


class Verdict:
    """Judges one link's connections, one after another."""

    def __init__(self, settings: Settings, versions: Versions, backoff: Backoff) -> None:
        self._settings, self._versions, self._backoff = settings, versions, backoff
        self._short_lives = 0

    def judge(self, connection: Connection | None, end: End, lasted_s: float) -> str | Refused:
        """Learn from a connection that ended; returns the reason, or that the broker has refused the client.

        `connection` is None where not even the attempt could be made.
        """
        up = connection is not None and connection.up is not None
        opened = connection is not None and connection.opened
        unsupported = end.code == UNSUPPORTED_VERSION
        hung_up = opened and end.code is None and not end.tls
        self._versions.learn(up=up, hung_up=hung_up, unsupported=unsupported, lasted_s=lasted_s)
        if end.code in _ADVICE or (unsupported and self._versions.pinned):
            self._backoff.slow()
            return self._refused(end)
        if not up:
            return end.reason
        if end.code == TAKEN_OVER:
            return f"{end.reason}: another client has the id {self._settings.client_id!r}, give each its own"
        if end.code == ADMINISTRATIVE:
            end = replace(end, reason=f"{end.reason}: {_KICKED}")
        if lasted_s >= STABLE_S:
            self._backoff.reset()
            self._short_lives = 0
            return end.reason
        self._short_lives += 1
        guess = ": does another client have its id?" if end.reason == LOST else ""
        return end.reason + (f", {self._short_lives} times in a row{guess}" if self._short_lives > 1 else "")

    def _refused(self, end: End) -> Refused:
        user = f"user {self._settings.endpoint.user!r}" if self._settings.endpoint.user else "no user name"
        advice = _ADVICE.get(end.code or 0, "set the protocol to auto")
        if end.code == BAD_CLIENT_ID and len(self._settings.client_id) > LONGEST_CLIENT_ID:
            advice = (
                f"an MQTT 3.1.1 broker may refuse more than {LONGEST_CLIENT_ID} characters: set [mqtt] client_id to a "
                "short name that no other client has"
            )
        reason = f"{end.reason}, with {user}, id {self._settings.client_id!r}: {advice}"
        return Refused(reason, fatal=end.code in (UNSUPPORTED_VERSION, BAD_CLIENT_ID))
