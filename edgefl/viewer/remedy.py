"""Remedy: what is wrong with a device, and what an operator does about it, in words. No I/O."""

from __future__ import annotations

from ..protocol.fleet import ABSENT, DeviceRow
from ..protocol.trouble import CODES, REMEDIES

LOST = "look at its power, its link and `systemctl status edgefl-agent`; `edgefl-agent --check` says what keeps it away"


def problem(row: DeviceRow) -> str:
    """What is wrong; "" if nothing is known to be."""
    if row.barred:
        return row.barred
    if row.paused:
        return f"an operator has paused it: {row.paused}"
    if row.state in ("trouble", "paused") or row.code:
        return row.reason or CODES.get(row.code, row.code)
    if row.state == "lost":
        return "the connection broke without a word"
    if row.state == ABSENT:
        return "enrolled, and never heard"
    return row.missed and f"not in the last round: {row.missed}"


def remedy(row: DeviceRow) -> str:
    """What to do about it; "" if nothing needs to be done here."""
    if row.barred:
        return f"find out why in the aggregator's log, then: edgefl release {row.id}"
    if row.paused:
        return f"edgefl resume {row.id}"
    if row.state == "trouble" or row.code in REMEDIES:
        return REMEDIES.get(row.code, "")
    if row.state == "paused":
        return "its owner wishes it: wait, or ask the owner"
    if row.state == "lost":
        return LOST
    if row.state == ABSENT:
        return (
            "bring its bundle to it and start its agent: `edgefl-agent --check` says what keeps it away; or revoke it"
        )
    return ""


def needs_operator(row: DeviceRow) -> bool:
    """Whether the device is to be shown first."""
    return bool(row.barred or row.missed) or row.state in ("trouble", "lost", ABSENT)
