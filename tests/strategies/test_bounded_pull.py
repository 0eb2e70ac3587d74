"""What a device can do by what it says of itself, where a strategy reckons with more than n_k: FedNova, q-FedAvg and
FedAsync under a bound on influence."""

from __future__ import annotations

import numpy as np
import pytest
from machines import P, commit_of, feed, make_coordinator, make_update, report, run_out, status

from edgefl import strategies
from edgefl.coordinator.updates.influence import Influence, TooMuch
from edgefl.federation import _set_weights
from edgefl.machine import Connected
from edgefl.settings import AdmissionSettings, TrainSettings
from edgefl.settings.spec import split
from edgefl.strategies.local_steps import steps_of
from edgefl.strategies.weights import Weights

TRAIN = TrainSettings(batch_size=10)
FACTOR, HONEST = 2.0, "abcd"
AHEAD = np.zeros(P, np.float32)
AHEAD[: P // 2] = 1 / np.sqrt(P // 2)  # where honest devices go, with the norm 1
ASIDE = np.zeros(P, np.float32)
ASIDE[P // 2 :] = 1 / np.sqrt(P - P // 2)  # where the hostile one does

Claim = tuple[int, float, float]  # n, how far aside, and the loss


def fight(
    strategy: str, hostile: Claim, *, rounds: int = 1, weights: str = "examples", n: int = 60, **options
) -> np.ndarray:
    """The params, from zeros, after rounds of four devices that go ahead by 1 and one that does as it likes."""
    name, options_of = split(strategy)
    made = strategies.get(name, **options_of)
    made.defaults(TRAIN)
    _set_weights(made, Weights.of(weights))
    start = {"admission": AdmissionSettings(influence=FACTOR)}
    coordinator = make_coordinator(strategy=made, params=np.zeros(P, np.float32), min_reports=3, start=start, **options)
    feed(coordinator, *map(status, [*HONEST, "e"]), Connected())
    for _ in range(rounds):
        now, round, version = coordinator.tally.opened_at + 1, coordinator.round, coordinator.version
        out = []
        claims = {device: (n, AHEAD, 1.0) for device in HONEST} | {"e": (hostile[0], hostile[1] * ASIDE, hostile[2])}
        for device, (examples, delta, loss) in claims.items():
            blob = make_update(delta, num_examples=examples, steps=steps_of(TRAIN, examples), loss=loss)
            out += report(coordinator, device, now=now, round=round, version=version, blob=blob)
        assert (commit_of(out) or commit_of(run_out(coordinator))).record.state == "committed"
    return coordinator.params


def ahead(params: np.ndarray) -> float:
    return float(params @ AHEAD)


def aside(params: np.ndarray) -> float:
    return float(params @ ASIDE)


# By how much the steps that one of five claims may lengthen the step of all; ten times the median's is the most.
LONGER = {"examples": 1.3, "uniform": 2.8, "capped:100": 3.7}
ROUNDING = 1e-6  # with uniform weights it is 2.8 exactly, but for what float32 makes of the steps


@pytest.mark.parametrize("weights", LONGER)
@pytest.mark.parametrize("examples", [1, 10, 60, 600, 6000])
def test_in_fednova_no_claim_moves_the_model_further_than_the_bound_allows(examples: int, weights: str) -> None:
    """A device of one step is divided by one, the others by six."""
    own = ahead(fight("fednova", (60, 0.0, 1.0), weights=weights)) / len(HONEST)
    for length in np.geomspace(0.01, 1000, 26):
        moved = aside(fight("fednova", (examples, float(length), 1.0), weights=weights))
        assert abs(moved) <= LONGER[weights] * FACTOR * own, (examples, length)


@pytest.mark.parametrize("weights", LONGER)
def test_in_fednova_many_examples_that_are_claimed_do_not_lengthen_the_step_of_all(weights: str) -> None:
    usual = ahead(fight("fednova", (60, 0.0, 1.0), weights=weights))
    for examples in (600, 6000, 50_000):
        assert ahead(fight("fednova", (examples, 0.0, 1.0), weights=weights)) <= LONGER[weights] * usual * (
            1 + ROUNDING
        )


@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize("q", [0.5, 2])
def test_in_qfedavg_a_loss_is_believed_within_ten_times_the_median_either_way(q: float, rounds: int) -> None:
    """A huge one would make the model the device's own, and a tiny one would stop it, by its F^(q − 1)."""

    def after(loss: float) -> bytes:
        return fight(f"qfedavg:q={q}", (60, 1.0, loss), rounds=rounds).tobytes()

    assert after(10.0) == after(1e3) == after(1e6) != after(9.0)
    assert after(0.1) == after(1e-3) == after(1e-9) != after(0.11)


def test_in_qfedavg_one_absurd_loss_moves_no_later_round() -> None:
    """What losses are held against is the median of the last round, which one device can't lift round by round."""
    assert (
        fight("qfedavg:q=1", (60, 1.0, 1e6), rounds=4).tobytes()
        == fight("qfedavg:q=1", (60, 1.0, 10.0), rounds=4).tobytes()
    )


@pytest.mark.parametrize("examples", [1, 10, 60, 600, 6000])
def test_in_fedasync_no_claim_moves_the_model_further_than_the_bound_allows(examples: int) -> None:
    """Each update counts alike, so n_k bounds nothing; what the bound takes of an update, it takes of alpha."""
    rounds = {"mode": "async", "goal": 5}
    own = ahead(fight("fedasync", (60, 0.0, 1.0), **rounds)) / len(HONEST)
    for length in np.geomspace(0.01, 1000, 26):
        moved = aside(fight("fedasync", (examples, float(length), 1.0), **rounds))
        assert abs(moved) <= 1.3 * FACTOR * own, (examples, length)


def test_a_refusal_names_the_examples_and_the_length_that_were_told() -> None:
    """Not the weight that the strategy makes of the examples, nor the length by the step."""
    made = strategies.get("fednova")
    made.defaults(TRAIN)
    _set_weights(made, Weights.of("uniform"))
    influence = Influence(FACTOR, None, lambda device: None, made.weigh, made.reach)
    bound = influence.of(dict.fromkeys(HONEST, (60, 1.0)))
    with pytest.raises(TooMuch, match=r"60 examples with \|delta\| 500, 250 times the bound"):
        influence.weigh((60, 500.0), "e", bound)
