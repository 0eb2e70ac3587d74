"""What "auto" stands for: the codecs of updates and models, and the span, from how often a device takes part.

A device that takes part in most rounds keeps what its codec lost and adds it to the next update (error feedback). A
device that takes part now and then would keep it too long, so its codec is right on average instead and keeps nothing.
It also has to catch up with several versions at once, or comes for the first time: `span` and models on grids make that
cheap.

Coarse steps are for updates with heavy tails, whose few large coordinates go at once. Where the coordinates of an
update are of much the same size, none is large: all of it would wait in the residual, and devices would train from a
model that is rounds old, past what they look for. Adam makes such updates, and adapters have them, so both get finer
steps.

A strategy that takes each coordinate from its own column gets finer steps (strategies/combine/robust.py), unless it is
an object. So does one that carries what it gets into later rounds, a momentum for instance: in its sum over rounds,
errors of codecs don't cancel, and a momentum of 0.9 counts each of them ten times.

A pure function of the settings and the plan. The share of rounds follows from `fraction`, `goal`, `over_select` and
`expect`, never from the devices that happen to be present: a restarted aggregator must choose the same codecs, because
the devices' residuals belong to one manifest. The aggregator keeps the choice in its state folder as well.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
import numpy as np

from . import codecs, strategies
from .core.adapters import PREFIX as ADAPTERS
from .core.plan import Plan
from .errors import UsageError
from .settings import RoundSettings, Settings
from .settings.sections import MAX_SPAN
from .settings.spec import split
from .strategies import Strategy

S = TypeVar("S", bound=Settings)

# The share of the rounds from which on a device takes part in "most" rounds.
MOST = 0.5
# Codec of updates, codec of models, measured by benchmarks/defaults.py. docs/compression.md has the same table.
# Where a strategy can't work with a codec that is right on average alone, updates have MOST_ROUNDS' codec.
MOST_ROUNDS = ("ecq", "ecq:step=8")
NOW_AND_THEN = ("ecq-sparse:step={step},exact=none", "grid")
# Up and down, where a strategy carries what it gets into later rounds; measured on MNIST (docs/compression.md).
CARRIED = "ecq:step=0.5"
# Up where a device takes part in most rounds, else; and down: for updates whose coordinates are of much the same size.
EVEN = ("ecq:step=1", "ecq-sparse:step=2,exact=none", "ecq:step=1")
# ecq-sparse is right on average over the reports of a round, so its step grows with their number: (reports, step).
STEPS = ((8, 6), (0, 4))
# With fewer params than this a codec's own overhead is measured: it must be smaller than float32.
SMALL = 4096


class Choice(msgspec.Struct, frozen=True):
    """What stands for "auto" in one run, and why."""

    codec: str
    downlink: str
    span: int
    reason: str = ""

    def explain(self, settings: Settings) -> str:
        """One line that says what replaces "auto" in `settings`, and why; empty if nothing that matters does."""
        told = []
        if settings.codec.name == "auto":
            told.append(f"{self.codec} up")
        if settings.downlink.name == "auto":
            told.append(f"{self.downlink} down")
        if settings.downlink.span == "auto" and not _whole(apply(settings, self).downlink.name):
            told.append(f"span {self.span}")
        return f"{', '.join(told)}: {self.reason}" if told else ""


def wanted(settings: Settings) -> bool:
    """Whether anything is left to choose."""
    return "auto" in (settings.codec.name, settings.downlink.name, settings.downlink.span)


def choose(settings: Settings, plan: Plan) -> Choice:
    """The choice for these settings and this model; the same on every call."""
    asked, counted = shares(settings.rounds)
    most = min(asked, counted) >= MOST
    even = _even(settings, plan)
    if even:
        specs = EVEN[0 if most else 1], EVEN[2]
    else:
        specs = MOST_ROUNDS if most else now_and_then(reports(settings.rounds))
    strategy = _strategy(settings)
    grain = None if strategy is None else strategy.grain
    carries = strategy is not None and strategy.carries
    if carries:
        specs = CARRIED, CARRIED
    elif grain is not None:
        specs = f"ecq:step={grain:g}", specs[1]
    elif strategy is not None and "noisy" in strategy.fit.without:
        specs = (EVEN if even else MOST_ROUNDS)[0], specs[1]
    if settings.privacy.masked:
        return _masked(settings, specs[1] if _pays(specs[1], plan) else "raw32", asked)
    codec, downlink = (spec if _pays(spec, plan) else "raw32" for spec in specs)
    span = _span(asked)
    reason = f"a device takes part in {'most' if most else f'about {counted:.1%}'} of the rounds"
    if carries:
        reason += f"; {split(settings.strategy.name)[0]} carries what codecs err by into later rounds"
    elif grain is not None:
        reason += f"; {split(settings.strategy.name)[0]} loses what most updates leave out"
    elif even:
        reason += f"; updates of {even} have no coordinates that are much larger than the rest"
    if "raw32" in (codec, downlink):
        reason += f"; a codec's own overhead does not pay for {plan.num_params} params"
    return Choice(codec, downlink, span, reason)


def _span(asked: float) -> int:
    return 1 if asked >= MOST else min(MAX_SPAN, round(1 / asked))


def _masked(settings: Settings, downlink: str, asked: float) -> Choice:
    """Masked updates have bits of their own, and no codec."""
    privacy = settings.privacy
    reason = f"updates are masked, {privacy.share:g} of their numbers in {privacy.bits} bits each"
    return Choice("raw32", downlink, _span(asked), reason)


def _even(settings: Settings, plan: Plan) -> str:
    """Whose updates have coordinates of much the same size; empty: nobody's."""
    if any(param.trainable and param.name.startswith(ADAPTERS) for param in plan.params):
        return "adapters"
    return "adam" if settings.train.optimizer == "adam" else ""


def _strategy(settings: Settings) -> Strategy | None:
    """The strategy; None if it is an object, which its name does not find."""
    name, options = split(settings.strategy.name)
    try:
        return strategies.get(name, **options)
    except UsageError:
        return None


def apply(settings: S, choice: Choice) -> S:
    """`settings` with `choice` in the place of every "auto" but that of error_feedback, which is the codec's."""
    changes = {"codec.name": choice.codec, "downlink.name": choice.downlink, "downlink.span": choice.span}
    now = (settings.codec.name, settings.downlink.name, settings.downlink.span)
    return settings.replace(**{key: new for (key, new), old in zip(changes.items(), now, strict=True) if old == "auto"})


def now_and_then(count: int) -> tuple[str, str]:
    """The codecs of updates and of models where devices are drawn now and then, for rounds of `count` reports."""
    up, down = NOW_AND_THEN
    return up.format(step=next(step for least, step in STEPS if count >= least)), down


def reports(rounds: RoundSettings) -> int:
    """How many updates a round combines, as far as settings tell: `min_reports` where they do not."""
    if rounds.goal is not None:
        return rounds.goal
    return max(rounds.min_reports, round(rounds.fraction * rounds.expect))


def shares(rounds: RoundSettings) -> tuple[float, float]:
    """The share of the rounds in which a device is asked, and in which its update counts, as far as settings tell."""
    asked = counted = rounds.fraction
    if rounds.goal is not None and rounds.expect:
        goal = min(1.0, rounds.goal / rounds.expect)
        counted = min(counted, goal)
        if rounds.mode == "async":  # a device fetches a model when it has reported, not when there is a new one
            asked = counted
        elif rounds.over_select is not None:
            asked = min(1.0, rounds.over_select * goal)
    elif rounds.over_select is not None:
        asked = min(1.0, rounds.over_select * rounds.fraction)
    return asked, counted


def _whole(spec: str) -> bool:
    """Whether the codec writes each model whole, without a span."""
    name, options = split(spec)
    codec = codecs.get(name, **options) if name in codecs.CODECS else None
    return codec is not None and codec.lossless and not codec.rounds


def _pays(spec: str, plan: Plan) -> bool:
    """Whether the codec writes a small model's Gaussian delta, 0 where nothing trains, in less than float32 takes."""
    if plan.num_params >= SMALL:
        return True
    name, options = split(spec)
    codec = codecs.get(name, **options).for_tensors(plan.params)
    delta = np.random.default_rng(0).standard_normal(plan.num_params).astype(np.float32)
    delta[plan.num_trainable :] = 0
    return len(codec.encode(delta)) < delta.nbytes
