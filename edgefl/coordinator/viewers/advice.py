"""Advice: what viewers are told that concerns no single device, and what an operator can do. No I/O.

Part of RoundCoordinator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ...protocol.trouble import OF_TARGETS, REMEDIES
from ..devices.presence import Presence
from .roll import OWNERS, Roll

MANY = 3  # devices in one trouble


def of(presence: Presence, barred: Mapping[str, str], roll: Roll, *, needed: int, topic: str) -> list[str]:
    """Each line whole, the most urgent first. `needed`: devices that the next round waits for, 0 if it waits for none;
    `topic`: where devices announce themselves."""
    return [
        *_short(presence, needed, topic), *_rounds(roll), *_shared(presence), *_unheard(presence), *_barred(barred),
        *_full(presence),
    ]  # fmt: skip


def _short(presence: Presence, needed: int, topic: str) -> list[str]:
    if presence.count >= needed:
        return []
    if not presence.statuses:
        check = "start agents, and check their federation, [mqtt] root and the broker's ACL"
        return [f"no device has announced itself on {topic}: {check}"]
    text = f"the next round waits: {presence.count} of {needed} devices can be asked"
    if old := presence.without_news:
        text += f", {old} more have no new data"
    if presence.paused:
        text += f", {len(presence.paused)} paused (edgefl resume NAME)"
    return [f"{text}: start more agents, mend those in trouble, or lower [rounds] min_reports"]


def _rounds(roll: Roll) -> list[str]:
    past = list(roll.past)
    if not past or past[0].state not in ("abandoned", "refused"):
        return []
    state = past[0].state
    streak = next((i for i, found in enumerate(past) if found.state != state), len(past))
    some = f"round {past[0].round} was {state}" if streak == 1 else f"the last {streak} rounds were {state}"
    return [f"{some}: {past[0].why}"]


def _shared(presence: Presence) -> list[str]:
    """What so many devices have in common has one cause."""
    told = (*OWNERS, *OF_TARGETS)
    troubled = (status.code for status in presence.statuses.values() if status.state == "trouble")
    codes = Counter(code for code in troubled if code in REMEDIES and code not in told)
    return [f"{n} devices have the trouble '{code}': {REMEDIES[code]}" for code, n in codes.most_common(2) if n >= MANY]


def _unheard(presence: Presence) -> list[str]:
    """Devices of an open fleet have no row before they are heard: only `expect` tells that some are missing."""
    heard = len(presence.statuses)
    if not 0 < heard < presence.expect:
        return []
    check = "on those that are missing, `edgefl-agent --check` says what keeps them away"
    return [f"{heard} of {presence.expect} expected devices have ever announced themselves: {check}"]


def _barred(barred: Mapping[str, str]) -> list[str]:
    if not barred:
        return []
    some = "1 device is" if len(barred) == 1 else f"{len(barred)} devices are"
    return [f"{some} in quarantine or muted: find out why, then let it in with `edgefl release NAME`"]


def _full(presence: Presence) -> list[str]:
    if len(presence.statuses) < presence.most:
        return []
    return [f"{presence.most} devices are known, and no other one is let in: `edgefl forget NAME` removes those gone"]
