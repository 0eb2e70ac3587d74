"""Selection: which of the devices that could be asked a round asks (`rounds.selection`). One rule a file. No I/O.

    uniform           each alike: no object is made for it
    power-of-choice   of some candidates, those with the highest loss
    oort              by loss, size and speed, with a share of newcomers

A rule knows of a device what its last update said, and no round asks for more than that. It learns it from the records
of the last rounds alone, so an aggregator that starts again chooses by the same numbers.
"""

from __future__ import annotations

from ...errors import UsageError, nearest
from ...settings import RoundSettings
from ...settings.spec import split
from .oort import Oort
from .power_of_choice import PowerOfChoice
from .rule import Selection

UNIFORM = "uniform"
RULES: dict[str, type[Selection]] = {"power-of-choice": PowerOfChoice, "oort": Oort}

__all__ = ["RULES", "UNIFORM", "Selection", "check", "of"]


def of(config: RoundSettings) -> Selection | None:
    """The rule that the settings name; None where devices are drawn alike. UsageError."""
    name, options = split(config.selection)
    if name == UNIFORM and not options:
        return None
    if name not in RULES:
        raise UsageError(f"rounds.selection is {config.selection!r}: {nearest(name, (UNIFORM, *RULES))}")
    try:
        return RULES[name](**options)
    except TypeError:
        known = ", ".join(RULES[name].OPTIONS)
        raise UsageError(f"rounds.selection is {config.selection!r}: the options of {name} are {known}") from None


def check(config: RoundSettings) -> None:
    """UsageError if the settings name a rule that they leave nothing to choose, or that does not exist."""
    if of(config) is None:
        return
    if config.mode == "async":
        raise UsageError('asynchronous rounds ask every device: set rounds.selection = "uniform"')
    if config.cohort == "draw":
        raise UsageError('devices that draw for themselves can\'t be selected: set rounds.cohort = "list"')
    if config.fraction == 1.0 and config.over_select is None:
        raise UsageError("rounds that ask every device leave nothing to select: set rounds.fraction below 1")
