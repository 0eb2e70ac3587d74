"""Bulletin: when the summary and the pages of the fleet are published for viewers. No I/O. Part of RoundCoordinator.

The summary is looked at every `LOOK_S` seconds while anything happens, less often in large fleets, and published if it
has changed; it is published once in `EVERY_S` seconds in any case, so that a viewer can tell a quiet federation from an
aggregator that is gone. A page is published if a row has changed, at most once a minute, and at once if the operator
has revoked or removed a device of it. At most `AT_ONCE` pages are made at a time: a fleet of more than 7,680 devices is
shown less often than once a minute, and costs no more.

Of pages that an aggregator before this one has left, its retained summary says how many there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress

import msgspec

from ...errors import ProtocolError
from ...machine import Publish, Subscribe, Unsubscribe
from ...protocol.fleet import EVERY_S, MAX_PAGES, FleetPage, Summary, decode_summary, encode_page, encode_summary
from ...protocol.topics import Topics
from ..events import Action
from .roll import Roll

LOOK_S = 5.0
SETTLE_S = 1.0
DEVICES_A_SECOND = 2000  # a summary of so many devices takes about a millisecond, and is made once a second at most
PAGE_S = 60.0
AT_ONCE = 8  # pages


class Bulletin:
    """`due_at` is when something may be published; None: while nothing is heard. `touch` says that something is."""

    def __init__(self, roll: Roll, topics: Topics) -> None:
        self.due_at: float | None = None
        self._roll, self._topics = roll, topics
        self._told: Summary | None = None
        self._told_at = 0.0
        self._looked_at = 0.0
        self._listening = False
        self._pages: dict[int, tuple[float, bytes]] = {}  # when each was published, and a digest of its rows
        self._waiting: dict[int, None] = {}  # pages that have changed, oldest first

    def begin(self, now: float) -> list[Action]:
        """The federation is ours, on a new connection: all is published again."""
        self._told, self.due_at = None, now + SETTLE_S  # retained statuses come first
        self._looked_at = self.due_at - self._look_s
        self._pages.clear()
        self._waiting = dict.fromkeys(range(self._roll.pages))
        if self._listening:
            return []
        self._listening = True
        return [Subscribe((self._topics.summary,))]

    def hear(self, payload: bytes) -> list[Action]:
        """The summary that is retained: clear the pages of an earlier aggregator that are not in use any more."""
        left = 0
        with suppress(ProtocolError):
            left = min(MAX_PAGES, decode_summary(payload.partition(b"\n")[0]).pages)
        clears = [self._clear(number) for number in range(self._roll.pages, left)]
        return [Unsubscribe((self._topics.summary,)), *clears]

    def hurry(self, page: int, now: float) -> None:
        """Publish the page, and the summary, at once."""
        self._pages.pop(page, None)
        self.due_at = now

    def touch(self, now: float) -> None:
        """Something has happened."""
        due_at = max(now, self._looked_at + self._look_s)
        self.due_at = due_at if self.due_at is None else min(self.due_at, due_at)

    @property
    def _look_s(self) -> float:
        return max(LOOK_S, self._roll.pages * 80 / DEVICES_A_SECOND)

    def publish(self, summary: Callable[[], Summary], now: float) -> list[Action]:
        """What is due now."""
        self._looked_at = now
        self._roll.look()
        made = summary()
        out: list[Action] = self._publish_summary(made, now) if self._is_news(made, now) else []
        out += self._publish_pages(made.at, now)
        self.due_at = self._told_at + EVERY_S
        if (wait := self._next_page_at(now)) is not None:
            self.due_at = min(self.due_at, max(wait, now + LOOK_S))
        return out

    def end(self, summary: Summary) -> list[Action]:
        """The last summary: of a federation that is done, or of an aggregator that stops."""
        self.due_at = None
        return self._publish_summary(summary, self._told_at)

    def _is_news(self, made: Summary, now: float) -> bool:
        old = self._told
        return old is None or now >= self._told_at + EVERY_S or msgspec.structs.replace(made, at=old.at) != old

    def _publish_summary(self, made: Summary, now: float) -> list[Action]:
        self._told, self._told_at = made, now
        return [Publish(self._topics.summary, encode_summary(made), retain=True)]

    def _publish_pages(self, at: int, now: float) -> list[Action]:
        self._waiting |= dict.fromkeys(sorted(self._roll.dirty))
        self._roll.dirty.clear()
        out: list[Action] = []
        for number in self._due_pages(now):
            del self._waiting[number]
            if number >= self._roll.pages:
                self._pages.pop(number, None)
                out.append(self._clear(number))
                continue
            raw = encode_page(FleetPage(number, 0, self._roll.page(number)))
            digest = hashlib.sha256(raw).digest()
            if self._pages.get(number, (0.0, b""))[1] != digest:
                self._pages[number] = now, digest
                stamped = raw.replace(b'"at":0', b'"at":%d' % at, 1)
                out.append(Publish(self._topics.fleet(number), stamped, retain=True))
        return out

    def _due_pages(self, now: float) -> list[int]:
        return [number for number in self._waiting if now >= self._page_at(number)][:AT_ONCE]

    def _next_page_at(self, now: float) -> float | None:
        return min((self._page_at(number) for number in self._waiting), default=None)

    def _page_at(self, number: int) -> float:
        """When the page may be published again."""
        return self._pages[number][0] + PAGE_S if number in self._pages else 0.0

    def _clear(self, number: int) -> Publish:
        return Publish(self._topics.fleet(number), b"", retain=True)
