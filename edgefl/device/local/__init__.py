"""Local rules: how a device trains where a strategy wants something else than plain local SGD. One rule a file.

To add one, write its file and a line in RULES, and have the strategy name it in `Strategy.local`. A name on the wire is
looked up in RULES and nowhere else. A rule is imported when a manifest first names it.
"""

from __future__ import annotations

from importlib import import_module

from ...errors import UsageError, nearest
from ...strategies.local import LocalRule
from .rule import Rule

RULES: dict[str, str] = {
    "apfl": "edgefl.device.local.apfl:Apfl",
    "ditto": "edgefl.device.local.ditto:Ditto",
    "fedrep": "edgefl.device.local.fedrep:FedRep",
    "fine-tune": "edgefl.device.local.fine_tune:FineTune",
    "scaffold": "edgefl.device.local.scaffold:Scaffold",
    "feddyn": "edgefl.device.local.feddyn:FedDyn",
    "fedcm": "edgefl.device.local.fedcm:FedCM",
    "mime-lite": "edgefl.device.local.mime_lite:MimeLite",
    "mifa": "edgefl.device.local.mifa:Mifa",
}

__all__ = ["RULES", "Rule", "get"]


def get(rule: LocalRule) -> Rule:
    """The rule of that name, with its options; UsageError if there is none, or it can't work with them."""
    if rule.name not in RULES:
        known = nearest(rule.name, RULES) if RULES else "there is none here"
        raise UsageError(f"unknown local rule {rule.name!r}: {known}, or update EdgeFL here")
    module, _, name = RULES[rule.name].partition(":")
    try:
        made: Rule = getattr(import_module(module), name)(**rule.options)
    except TypeError as error:
        raise UsageError(f"local rule {rule.name!r} does not take its options ({error}): update EdgeFL here") from None
    return made
