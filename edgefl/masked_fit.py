"""What goes together with masked rounds: from settings to a round's shape. What does not is refused, by name, at start.

A masked round brings one sum (docs/masked.md). So nothing that needs to see an update goes together with it, and
nothing that tells of a device beside the sum.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from .errors import UsageError
from .protocol.terms import MOST_DEVICES
from .protocol.topics import check_helper
from .settings import AdmissionSettings, RoundSettings, Settings
from .settings.privacy import MOST_HELPERS
from .strategies import Strategy
from .strategies.combine.mean import Mean
from .strategies.composed import Composed


def check(settings: Settings, strategy: Strategy) -> None:
    """UsageError, with all reasons, if masked rounds are asked for and something does not go together with them."""
    if not settings.privacy.masked:
        return
    for name in settings.privacy.helper_names:
        check_helper(name)
    found = [text for used, text in [*_settings(settings), *_strategy(settings, strategy), *_own(settings)] if used]
    if found:
        raise UsageError(f"privacy.masked: {'; '.join(found)}; or set privacy.masked = false")


def _settings(settings: Any) -> list[tuple[Any, str]]:
    """What settings of other sections may not say."""
    rounds, privacy = settings.rounds, settings.privacy
    codec, influence = settings.codec.name, settings.admission.influence
    open_keys = hasattr(settings, "keys") and settings.keys.dir is None
    one_sum = "a masked round is one sum of updates that started from one model"
    return [
        (open_keys, "[keys] is off, but devices and helper sign, and know each other by the root: set up keys"),
        (rounds.mode == "async", f'rounds.mode is "async", but {one_sum}: set rounds.mode = "sync"'),
        (rounds.late == "fold", f'rounds.late is "fold", but {one_sum}: set rounds.late = "drop"'),
        (
            rounds.selection != "uniform",
            f'rounds.selection is "{rounds.selection}", but no device tells its loss: set rounds.selection = "uniform"',
        ),
        (
            rounds.evaluate_every,
            "rounds.evaluate_every has devices tell their scores one by one: leave it out, and set privacy.scores",
        ),
        (
            codec not in ("auto", "raw32"),
            f'codec.name is "{codec}", but masked updates have bits and no codec: set codec.name = "auto"',
        ),
        (
            settings.codec.error_feedback is True,
            "codec.error_feedback is on, but masked updates leave no residual: leave it out",
        ),
        (
            influence not in ("auto", "off"),
            "admission.influence is set, but nobody can measure one update: leave it out, privacy.clip bounds each",
        ),
        (
            settings.strategy.weights != "examples",
            "strategy.weights is set, but devices weigh themselves: leave it out, and set privacy.weight",
        ),
        (
            privacy.noise != "none" and settings.features.is_federated and not settings.features.ranges,
            'features.standardize is "federated", and with noise a profile needs features.ranges, low:high of each '
            "column: set that too",
        ),
        (
            privacy.noise == "none" and settings.features.ranges,
            "features.ranges bounds columns where there is noise, and these rounds have no noise: leave it out",
        ),
        (
            privacy.noise != "none" and settings.gate.judge == "canaries",
            'gate.judge is "canaries", but their verdicts are not accounted: set gate.judge = "none"',
        ),
        (privacy.scores and not settings.evaluate.holdout, "privacy.scores needs evaluate.holdout: set that too"),
    ]


def _strategy(settings: Settings, strategy: Strategy) -> list[tuple[Any, str]]:
    means = isinstance(strategy, Composed) and isinstance(strategy.combine, Mean)
    rule = "needs each update by itself, and a masked round brings their mean: use fedavg, or another server optimizer"
    return [
        (not means, f"strategy {strategy.name!r} {rule}"),
        (strategy.sent_sides, f"strategy {strategy.name!r} has devices send vectors beside their delta: use fedavg"),
    ]


def _own(settings: Settings) -> list[tuple[Any, str]]:
    """What the section's own settings must agree in."""
    privacy = settings.privacy
    names, most = privacy.helper_names, most_of(settings)
    return [
        (not names, "privacy.helpers names no helper: set up one (docs/helper.md), and name it there"),
        (len(names) > MOST_HELPERS, f"privacy.helpers names {len(names)} helpers, at most {MOST_HELPERS} can be"),
        (len(set(names)) < len(names), "privacy.helpers names a helper twice"),
        (
            most is None,
            'privacy.most is "auto", and neither rounds.goal nor rounds.expect says how many devices report: set '
            "rounds.expect to the number of devices, or privacy.most to more than will report",
        ),
        (
            most is not None and most < privacy.least * privacy.groups,
            f"at most {most} devices report, and {privacy.groups} groups of privacy.least {privacy.least} need more: "
            "lower privacy.least or privacy.groups",
        ),
        (
            settings.rounds.goal is not None and settings.rounds.goal < privacy.least,
            f"rounds.goal is {settings.rounds.goal}, below privacy.least {privacy.least}: raise it",
        ),
        ((privacy.noise == "none") != (privacy.sigma == 0), "privacy.noise and privacy.sigma go together: set both"),
        (
            privacy.noise == "none" and privacy.budget is not None,
            "privacy.budget bounds the epsilon of noise, and there is none: set privacy.noise and privacy.sigma",
        ),
        (
            privacy.noise != "none" and privacy.weight > 1,
            "privacy.weight is above 1, and the noise hides no sum of weights",
        ),
        (
            privacy.noise == "banded" and not (settings.rounds.rounds and privacy.band <= max(1, privacy.separation)),
            "banded noise needs rounds.rounds, and a privacy.band of at most privacy.separation",
        ),
        (
            privacy.noise == "banded" and privacy.clip_quantile is not None,
            "privacy.clip_quantile moves the clip, and banded noise takes away what earlier rounds have added in units "
            'of theirs: leave it out, or set privacy.noise = "independent"',
        ),
        (
            privacy.clip_quantile is None and privacy.clip_most is not None,
            "privacy.clip_most bounds a clip that moves, and it is fixed: set privacy.clip_quantile, or leave it out",
        ),
        (
            privacy.clip_most is not None and privacy.clip_most < privacy.clip,
            f"privacy.clip_most is {privacy.clip_most}, below privacy.clip {privacy.clip:g}: raise it",
        ),
    ]


def most_of(settings: Settings) -> int | None:
    """The most updates in a sum; None if the settings leave that open."""
    rounds, privacy = settings.rounds, settings.privacy
    if privacy.most != "auto":
        return privacy.most
    if rounds.goal is not None:
        return max(2, rounds.goal)
    return max(2, math.ceil(rounds.fraction * rounds.expect)) if rounds.expect else None


def fleet_of(settings: Settings) -> int:
    """The most devices that may tell of their columns in one round, which asks all that are there."""
    return min(MOST_DEVICES, max(most_of(settings) or 0, settings.rounds.expect or 0))


def rounds_of(settings: Settings) -> RoundSettings:
    """The settings of rounds: where they are masked, none closes with fewer reports than a sum may have."""
    rounds, privacy = settings.rounds, settings.privacy
    if not privacy.masked or rounds.min_reports >= privacy.least:
        return rounds
    return msgspec.structs.replace(rounds, min_reports=privacy.least)


def admission_of(settings: Settings) -> AdmissionSettings:
    """The settings of admission: where rounds are masked, nobody can measure an update's influence."""
    if not settings.privacy.masked:
        return settings.admission
    return msgspec.structs.replace(settings.admission, influence="off")
