"""The `[policy]` that a new device is given, where its federation is set up for masked rounds.

It is so from the first helper that was enrolled, whether that is revoked by now or not. A device then sends nothing
that is not masked, and its sums are opened by the helpers that are enrolled now: all of them together, those of one
operator counted once. It refuses a round that asks for less. An operator who wants less says so, key by key: what is
given stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..device.owner.policy import parties
from ..device.owner.policy_config import PolicyConfig
from ..errors import UsageError, nearest
from ..protocol.topics import HELPER
from ..settings import files
from ..settings.privacy import MOST_HELPERS
from .records import Records


def policy_of(records: Records, given: Mapping[str, Any], *, canary: bool) -> dict[str, Any]:
    """`given`, and what the helpers in the records ask for where it says nothing; UsageError for what can't be."""
    policy = {key: value for key, value in given.items() if value is not None}
    if any(one.role == "helper" for one in records.members.values()):
        policy = {**_usual(records, policy), **policy}
    checked = files.build(PolicyConfig, policy, name="[policy]")
    if checked.masked and canary:
        raise UsageError(
            "a device whose policy is masked judges no candidates: leave --canary out, or give --policy masked=false"
        )
    known = _enrolled(records)
    if unknown := sorted({*checked.helpers, *checked.operators} - known.keys()):
        hint = nearest(unknown[0], known) if known else "enrol helpers before devices, with --helper"
        raise UsageError(f"no helper {unknown[0]!r} is enrolled here: {hint}")
    most = len(parties(checked.helpers, checked.operators)) if checked.helpers else MOST_HELPERS
    if (checked.least_helpers or 1) > most:
        raise UsageError(
            f"least_helpers is {checked.least_helpers or 1}, and `helpers` and `operators` name {most}: no round could "
            "be that private; enrol more helpers, say who runs each with --operator, or ask for less with --policy"
        )
    return policy


def uncounted(records: Records) -> list[str]:
    """Helpers that nobody has said who runs, while it is said of others: devices don't count them."""
    known = _enrolled(records)
    return [HELPER + name for name, operator in known.items() if not operator] if any(known.values()) else []


def _enrolled(records: Records) -> dict[str, str]:
    """Who runs each helper that is enrolled; "" if nobody has said."""
    return {name.removeprefix(HELPER): records.members[name].operator for name in records.of_role("helper")}


def _usual(records: Records, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the records say of helpers that the policy does not."""
    known = _enrolled(records)
    helpers = given.get("helpers", sorted(known))
    operators = given.get("operators", {name: known[name] for name in helpers if known.get(name)})
    least = min(len(parties(helpers, operators)), MOST_HELPERS)
    usual = {"masked": True, "helpers": helpers, "least_helpers": least, "operators": operators}
    return {key: value for key, value in usual.items() if value}
