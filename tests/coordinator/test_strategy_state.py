"""The strategy's state leaves with the commit of its model, and with nothing else."""

from __future__ import annotations

import numpy as np
from machines import P, commit_of, make_update, open_round, report, run_out

from edgefl.coordinator.events import Commit
from edgefl.strategies.server.momentum import Momentum


def velocity(commit: Commit) -> list[float]:
    return commit.state["server.velocity"].tolist()


def test_each_commit_has_the_state_that_belongs_to_its_params() -> None:
    coordinator = open_round("a", strategy="fedavgm")
    first = commit_of(report(coordinator, "a", blob=make_update(1.0)))
    second = commit_of(report(coordinator, "a", blob=make_update(0.5), round=2, version=1))
    assert velocity(first) == [1.0] * P and velocity(second) == [np.float32(0.9) + np.float32(0.5)] * P
    assert (second.params == first.params + np.float32(velocity(second))).all()


def test_a_strategy_without_state_commits_none() -> None:
    assert commit_of(report(open_round("a"), "a")).state == {}


def test_an_abandoned_round_commits_no_state_and_leaves_it_as_it_was() -> None:
    coordinator = open_round("a", "b", strategy="fedavgm")
    report(coordinator, "a", blob=make_update(1.0))
    commit = commit_of(run_out(coordinator))
    assert (commit.record.state, commit.params, commit.state) == ("abandoned", None, {})
    assert coordinator.strategy.state() == {}


def test_a_model_that_would_not_be_finite_takes_its_state_with_it() -> None:
    """Else the momentum of a round that never was would move the next model."""
    params = np.full(P, 3.4e38, np.float32)
    coordinator = open_round("a", params=params, strategy="fedavgm")
    coordinator.strategy.server = Momentum(1e36, 0.5)
    with np.errstate(over="ignore"):
        spoilt = commit_of(report(coordinator, "a", blob=make_update(1000.0)))
    assert (spoilt.record.state, spoilt.state) == ("abandoned", {})
    commit = commit_of(report(coordinator, "a", blob=make_update(0.0), round=2))
    assert commit.record.state == "committed" and velocity(commit) == [0.0] * P
    assert commit.params.tobytes() == params.tobytes()
