"""Refusal: why a set is not opened, as a short code and in words. The aggregator is told of each."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ..errors import EdgeFLError
from ..masking.exchange import MAX_NAMED

REASONS = {
    "certificate": "the aggregator's certificate was replaced, or is out of its dates",
    "terms": "the terms of the round can't be, or are of another federation",
    "run": "another run in this epoch of the aggregator's certificate, or one that is over",
    "helper": "the terms name other keys of this helper, or an epoch that has ended",
    "weak": "the terms are weaker than the helper's owner has pinned",
    "epsilon": "the terms say that less epsilon is spent than this helper computes, or than was told before",
    "ledger": "epsilon is counted at another delta, or for another root, than until now",
    "restored": "the helper was restored from a backup: it needs a new epoch",
    "old": "a round before the newest one, whose answer is not kept any more",
    "second": "another set of this round was opened",
    "order": "devices out of order, or one of them twice",
    "few": "fewer devices than a sum needs",
    "many": "more devices than the terms allow",
    "unknown": "a device that the roster does not name",
    "revoked": "a device that the roster names as revoked",
    "signature": "a device's signature is not of these terms, this vector and these sealed seeds",
    "box": "a sealed seed that this helper's key does not open, or that is of another device or other terms",
    "noise": "noise that this helper can't add, or whose epsilon is not accounted for or can't be computed",
    "known": "no set was shown: the answer tells what this helper knows, and nothing is opened",
    "lost": "the answer that was kept for this round is damaged",
}


class Refused(NamedTuple):
    """One of REASONS, and in words. `unopened`: the devices that are the reason, at most MAX_NAMED."""

    code: str
    text: str
    unopened: tuple[str, ...] = ()


class Refusal(EdgeFLError):
    """The set is not opened."""

    def __init__(self, code: str, text: str, unopened: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        assert code in REASONS, code
        self.refused = Refused(code, text, unopened)


def of_devices(code: str, devices: Collection[str], text: str) -> Refusal:
    """All these devices are the reason: a helper that named one at a time would cost as many asks as there are."""
    first, *more = sorted(devices)
    others = f" and {len(more)} more, such as {more[0]}" if more else ""
    return Refusal(code, f"{first}{others}, {text}", (first, *more)[:MAX_NAMED])
