"""The strategy that the settings name, ready for the plan, with the state that an earlier process has left."""

from __future__ import annotations

import logging
from pathlib import Path

from edgefl.coordinator.devices.cohort import expected_reports
from edgefl.core.mask import Mask
from edgefl.core.plan import Plan
from edgefl.federation import make_strategy
from edgefl.hosting.config import AggregatorConfig
from edgefl.strategies import Site, Strategy
from edgefl.strategies.masked import over

from .journal import Journal, Recorded
from .store import State

log = logging.getLogger("edgefl.aggregator")


def site_of(config: AggregatorConfig, plan: Plan, folder: Path) -> Site:
    """What a strategy is prepared for: the plan, and as many reports and as much disk as the settings say."""
    rounds, spill_bytes = config.rounds, int(config.strategy.spill_mb * 1e6)
    reports = expected_reports(rounds)
    return Site(
        plan.num_params, plan.num_trainable, reports, folder, spill_bytes, rounds.late_window, rounds.expect
    )  # fmt: skip


def open_strategy(
    config: AggregatorConfig, plan: Plan, mask: Mask, state: State, *, folder: Path, journal: Journal | None
) -> Strategy:
    """The strategy for the round that `state` says is next; the `journal` gets the updates that it accepts."""
    strategy = over(mask, make_strategy(config))
    if journal is not None:
        strategy = Recorded(strategy, journal)
    strategy.prepare(site_of(config, plan, folder))
    if state.strategy in ("", strategy.name):
        strategy.restore(state.state)
    else:
        log.warning("the state of strategy %s is not for %s, which starts anew", state.strategy, strategy.name)
    return strategy
