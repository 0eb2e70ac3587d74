"""What an aggregator may change while it runs (edgefl/hosting/reload.py), and whether it goes together."""

from __future__ import annotations

from pathlib import Path

from edgefl import masked_fit, masks
from edgefl.coordinator.devices import cohort
from edgefl.coordinator.events import Reconfigured
from edgefl.coordinator.schedule import Schedule
from edgefl.core.plan import Plan
from edgefl.federation import make_strategy
from edgefl.hosting.config import AggregatorConfig
from edgefl.machine import WallClock
from edgefl.settings.rounds import INTERVAL_S
from edgefl.strategies.masked import over

from .strategy import site_of

# The other settings are in the manifest, which devices have agreed to and owners have approved, or have sized what was
# made at the start.
LIVE = frozenset(
    {
        "gate",
        *(
            f"rounds.{name}"
            for name in (
                "interval_s", "window", "timezone", "only_new_data", "deadline_s", "min_reports", "goal", "fraction",
                "over_select", "cohort", "updates_per_s", "expect", "rounds", "target_accuracy", "evaluate_every",
            )
        ),
        "keep_models", "models_mb", "history_mb",
    }
)  # fmt: skip


def with_interval(config: AggregatorConfig) -> AggregatorConfig:
    """A deployment's rounds do not follow each other at once, unless the settings say so."""
    return config if config.rounds.interval_s is not None else config.replace(**{"rounds.interval_s": INTERVAL_S})


def reconfigured(config: AggregatorConfig, plan: Plan, folder: Path) -> Reconfigured:
    """The settings for the coordinator; UsageError if they can't be used together, or their rounds have no room."""
    rounds = masked_fit.rounds_of(with_interval(config))
    spec, holdout = config.evaluate.test_data, config.evaluate.holdout
    cohort.check(rounds)
    rounds.check_evaluation(holdout)
    config.gate.check(spec is not None, holdout)
    Schedule(rounds, WallClock())
    strategy = make_strategy(config)
    over(masks.mask_of(config, strategy, plan), strategy).prepare(site_of(config, plan, folder))
    return Reconfigured(rounds, config.gate)
