"""Fit: what goes together with a strategy, and what does not. What does not is refused when it is configured.

A strategy, or a part of one, declares the features that it excludes and what it needs, each with the reason. What it
does not mention goes together with it. FEATURES and NEEDS below say how a feature shows in the settings; the table in
docs/strategies.md is printed from the declarations (docs/write_strategies.py). `check` is called wherever settings
become a strategy (federation.py), so the aggregator, its --check and a simulation refuse the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from .. import codecs
from ..errors import UsageError, nearest

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Feature:
    """Something that settings ask for. `column` is its heading in the table. `used` says how the settings ask for it,
    as text for an error, or "" if they do not; `instead` says what to set then."""

    column: str
    used: Callable[[Any], str]
    instead: str


def _codec(settings: Any) -> codecs.Codec | None:
    """The codec of updates, without its options; None if it is not chosen yet, or is an object."""
    name = settings.codec.name.partition(":")[0]
    return codecs.get(name) if name in codecs.CODECS else None


def _lossy(settings: Any) -> str:
    codec = _codec(settings)
    return f"codec.name {settings.codec.name!r}" if codec is not None and not codec.lossless else ""


def _feedback(settings: Any) -> str:
    """Only if it was asked for: "auto" is no feedback with a strategy that excludes it (federation.py)."""
    return "error feedback (codec.error_feedback)" if settings.codec.error_feedback is True else ""


def _unfed(settings: Any) -> str:
    lossy = _lossy(settings)
    return f"{lossy} without error feedback" if lossy and settings.codec.error_feedback is False else ""


def _noisy(settings: Any) -> str:
    """Whether the codec may err by more than the update is long, and is right on average alone."""
    codec = _codec(settings)
    return f"codec.name {settings.codec.name!r}" if codec is not None and not (codec.lossless or codec.feedback) else ""


def _personal(settings: Any) -> str:
    """Whether devices keep a part of the model for themselves."""
    return "personal.keep" if settings.personal.keep else ""


def _optimizer(name: str) -> Callable[[Any], str]:
    return lambda settings: f'train.optimizer "{name}"' if settings.train.optimizer == name else ""


def _set(key: str) -> Callable[[Any], str]:
    """Whether the number `key` of [train] is above 0."""
    return lambda settings: f"train.{key}" if getattr(settings.train, key) else ""


def _goal(settings: Any) -> str:
    """What is wrong with the goal: a round that reaches it goes on while it has fewer reports than it must have."""
    goal, least = settings.rounds.goal, settings.rounds.min_reports
    if goal is None:
        return "rounds.goal is not set"
    return f"rounds.goal {goal} is below rounds.min_reports {least}" if goal < least else ""


SGD = 'set train.optimizer = "sgd"'
FEATURES = {
    "sync": Feature(
        "synchronous rounds",
        lambda settings: 'rounds.mode "sync"' if settings.rounds.mode == "sync" else "",
        'set rounds.mode = "async"',
    ),
    "async": Feature(
        "asynchronous rounds",
        lambda settings: 'rounds.mode "async"' if settings.rounds.mode == "async" else "",
        'set rounds.mode = "sync"',
    ),
    "late": Feature(
        "late updates",
        lambda settings: 'rounds.late "fold"' if settings.rounds.late_window else "",
        'set rounds.late = "drop" and rounds.mode = "sync"',
    ),
    "evaluate": Feature(
        "rounds that only evaluate",
        lambda settings: "rounds.evaluate_every" if settings.rounds.evaluate_every else "",
        "leave rounds.evaluate_every out",
    ),
    "personal": Feature("personal params", _personal, "leave personal.keep out"),
    "weights": Feature(
        "weights other than n_k",
        lambda settings: (
            f'strategy.weights "{settings.strategy.weights}"' if settings.strategy.weights != "examples" else ""
        ),
        'set strategy.weights = "examples"',
    ),
    "nesterov": Feature("Nesterov on devices", _optimizer("nesterov"), SGD),
    "adam": Feature("Adam on devices", _optimizer("adam"), SGD),
    "momentum": Feature("momentum on devices", _set("momentum"), "set train.momentum = 0"),
    "clip": Feature("gradient clipping", _set("clip_norm"), "leave train.clip_norm out"),
    "prox": Feature("FedProx", _set("prox_mu"), "set train.prox_mu = 0"),
    "decay": Feature("weight decay", _set("weight_decay"), "set train.weight_decay = 0"),
    "lossy": Feature("lossy codecs", _lossy, 'set codec.name = "raw32" or "planes"'),
    "feedback": Feature("error feedback", _feedback, "set codec.error_feedback = false"),
    "unfed": Feature("lossy codecs without error feedback", _unfed, 'set codec.error_feedback = "auto"'),
    "noisy": Feature("codecs that are right on average only", _noisy, 'set codec.name = "ecq" or "raw32"'),
}

NEEDS = {
    "expect": Feature(
        "the number of devices",
        lambda settings: "" if settings.rounds.expect else "rounds.expect is 0",
        "set rounds.expect to the number of devices",
    ),
    "keys": Feature(
        "keys",
        lambda settings: "[keys] is off" if hasattr(settings, "keys") and settings.keys.dir is None else "",
        "set up keys (docs/security.md)",
    ),
    "goal": Feature("a goal", _goal, "set rounds.goal, and rounds.min_reports to no more"),
}


@dataclass(frozen=True)
class Fit:
    """What a strategy excludes (`without`) and needs, by name in FEATURES and NEEDS, and why: a clause that follows
    "because". `reports`: the fewest updates that a round must have. `late`: for how many versions after its own an
    update must count; if not, what `acts` says is so. `a | b` is the fit of what consists of both."""

    without: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    needs: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    reports: int = 0
    late: int = 0
    acts: str = ""

    def __post_init__(self) -> None:
        for given, known in ((self.without, FEATURES), (self.needs, NEEDS)):
            for name in given:
                if name not in known:
                    raise UsageError(f"a strategy's fit names {name!r}: {nearest(name, known)}")

    def __or__(self, other: Fit) -> Fit:
        reports = max(self.reports, other.reports)
        late = max(self, other, key=lambda fit: fit.late)
        return Fit({**self.without, **other.without}, {**self.needs, **other.needs}, reports, late.late, late.acts)


EVERYTHING = Fit()


class Fitted(Protocol):
    """A strategy."""

    @property
    def name(self) -> str: ...

    @property
    def fit(self) -> Fit: ...


def check(strategy: Fitted, settings: Any) -> None:
    """UsageError, with all reasons, if the `settings` do not go together with the strategy. `settings` have the
    sections of edgefl.settings.Settings; what is "auto" in them is not judged."""
    found = []
    for name, why in strategy.fit.without.items():
        if used := FEATURES[name].used(settings):
            found.append(f"{used} does not go with it, because {why}: {FEATURES[name].instead}")
    for name, why in strategy.fit.needs.items():
        if lacking := NEEDS[name].used(settings):
            found.append(f"{lacking}, but it needs {NEEDS[name].column}, because {why}: {NEEDS[name].instead}")
    if settings.rounds.min_reports < strategy.fit.reports:
        found.append(
            f"rounds.min_reports is {settings.rounds.min_reports}, and with its f a round needs "
            f"{strategy.fit.reports} reports: set rounds.min_reports to that, or lower f"
        )
    if (window := settings.rounds.late_window) and window < strategy.fit.late:
        found.append(
            f"rounds.late_rounds is {window}, so {strategy.fit.acts}: set rounds.late_rounds to {strategy.fit.late} or "
            "more"
        )
    if found:
        raise UsageError(f"strategy {strategy.name!r}: {'; '.join(found)}; or use another strategy")
