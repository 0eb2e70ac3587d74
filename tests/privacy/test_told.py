"""A helper's ledger beside an aggregator's: an honest aggregator never tells less than the helper computes, whatever
either of them has missed or lost, and no aggregator gets by with less than was spent."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefl.errors import StoreError
from edgefl.privacy import accountant
from edgefl.privacy.accountant import Mechanism, epsilon, rho_of
from edgefl.privacy.ledger import ROUNDING, Ledger

DELTA = 1e-5
NEW = Ledger("ab" * 8, DELTA)
RUN = 10**6  # rounds of the next run are numbered from here on: no separation reaches over it


@pytest.fixture(scope="module", autouse=True)
def closed_form():
    """Bun, Steinke 2016, for dp-accounting: see test_ledger.py."""
    patch = pytest.MonkeyPatch()
    patch.setattr(accountant, "_epsilon", lambda rho, delta: rho + 2 * math.sqrt(rho * math.log(1 / delta)))
    yield
    patch.undo()


def noise_of(separation: int, sigma: float = 50.0) -> Mechanism:
    return Mechanism("independent", sigma, 900, separation)


def spent(opened: list[tuple[int, Mechanism]]) -> float:
    """Epsilon of these rounds, by number, for the device that they tell most of: all its ways to take part, tried."""
    best: list[float] = []
    for place, (number, noise) in enumerate(opened):
        apart = max(1, noise.separation)
        earlier = [best[at] for at in range(place) if number - opened[at][0] >= apart]
        best.append(noise.rho(1) + max(earlier, default=0.0))
    return epsilon(max(best, default=0.0), DELTA)


class Pair:
    """Both ledgers, each with a disk, and the highest epsilon that `devices` were told. `opened`: what the helper has
    added noise to since it last lost its ledger."""

    def __init__(self) -> None:
        self.aggregator, self.backups, self.helper = NEW, [NEW], NEW
        self.run, self.round, self.devices = 0, 0, 0.0
        self.opened: list[tuple[int, Mechanism]] = []

    def tell(self, noise: Mechanism) -> float:
        """The aggregator's next round opens; what its terms tell."""
        self.round += 1
        told = max(self.aggregator.after(noise, f"{self.run}", self.round), self.aggregator.highest)
        assert told >= self.devices, "or they would refuse the round"
        self.aggregator, self.devices = self.aggregator.tell(told), told
        return told

    def pay(self, noise: Mechanism) -> float:
        """The aggregator's next round closes; what its terms have told."""
        told, before = self.tell(noise), self.aggregator
        paid = before.spend(noise, f"{self.run}", self.round, f"{self.round}")
        self.aggregator = paid.charged(told)
        assert self.aggregator.epsilon == told >= paid.epsilon and self.aggregator.before >= paid.before
        self.backups.append(self.aggregator)
        return told

    def open(self, noise: Mechanism, told: float) -> None:
        paid = self.helper.spend(noise, f"{self.run}", self.round, f"{self.round}").told(told)
        assert paid.epsilon == told >= self.helper.epsilon
        self.helper = paid
        self.opened.append((self.run * RUN + self.round, noise))
        assert told >= spent(self.opened) * (1 - 1e-8)

    def restore(self, at: int) -> None:
        """The aggregator's database is an old one, until it hears the helper."""
        self.aggregator = self.backups[at % len(self.backups)].hear(self.helper.epsilon, f"{self.run}", self.round)
        self.devices = 0.0  # what they know of, beyond that, is theirs to refuse


STEPS = st.one_of(
    st.tuples(st.sampled_from(["open", "open", "open", "silent", "skip"]), st.integers(1, 12)),
    st.tuples(st.just("restore"), st.integers(0, 60)),
    st.tuples(st.sampled_from(["lose", "run", "noise"]), st.just(0)),
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([0, 1, 2, 5]), st.lists(STEPS, max_size=30))
def test_an_honest_aggregator_never_tells_less_than_a_helper_computes(separation, steps):
    pair, sigmas = Pair(), [50.0, 80.0]
    for what, number in steps:
        noise = noise_of(separation, sigmas[0])
        for _ in range(number if what in ("open", "silent", "skip") else 0):
            if what == "skip":  # abandoned before the helper was asked
                pair.tell(noise)
                continue
            told = pair.pay(noise)
            if what == "open":
                pair.open(noise, told)
        if what == "restore":
            pair.restore(number)
        elif what == "lose":
            pair.helper, pair.opened = NEW, []
        elif what == "run":
            pair.run, pair.round = pair.run + 1, 0
        elif what == "noise":
            sigmas.reverse()


LIES = st.tuples(
    st.integers(1, 4),
    st.sampled_from([1 - 1e-3, 1 - 2e-10, 1.0, 1 + 1e-12, 1 + 1e-8, 1.0001, 1.1]),
    st.sampled_from([False] * 5 + [True]),
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([0, 1, 2, 5]), st.lists(LIES, max_size=40))
def test_no_aggregator_gets_by_with_less_than_was_spent(separation, lies):
    """It tells a little more or less than what the helper computes, so as to move where that begins to count, or
    changes the noise."""
    pair, sigmas = Pair(), [50.0, 80.0]
    for ahead, factor, changes in lies:
        sigmas = sigmas[::-1] if changes else sigmas
        noise = noise_of(separation, sigmas[0])
        pair.round += ahead
        told = pair.helper.after(noise, "0", pair.round) * factor
        if factor < 1 - ROUNDING:
            with pytest.raises(StoreError, match="was told, and"):
                pair.open(noise, told)
        elif told >= pair.helper.epsilon:  # a helper refuses what falls before it looks into its ledger
            pair.open(noise, told)


@pytest.mark.parametrize(("separation", "rounds"), [(0, 1), (5, 5)])
def test_a_helper_that_joins_later_takes_over_what_was_spent_before(separation, rounds):
    pair, noise = Pair(), noise_of(separation)
    for _ in range(40):
        pair.pay(noise)
    told = pair.pay(noise)
    pair.open(noise, told)
    for _ in range(rounds - 1):
        pair.round += 1
        pair.open(noise, told)  # the devices of this round are none of the first one's
    pair.round += 1
    with pytest.raises(StoreError):
        pair.open(noise, told)
    expected = epsilon(rho_of(told, DELTA) + noise.rho(1), DELTA)
    assert pair.helper.after(noise, "0", pair.round) == pytest.approx(expected, rel=1e-9)


def test_what_a_helper_has_missed_within_its_stretch_is_taken_over_but_for_one_round():
    pair, noise = Pair(), noise_of(5)
    pair.open(noise, pair.pay(noise))
    for _ in range(50):
        pair.pay(noise)  # 2 to 51: eleven times five rounds are begun
    pair.round, told = 51, pair.aggregator.epsilon
    pair.round = 52
    told = pair.pay(noise)
    pair.open(noise, told)
    pair.round += 5
    assert pair.helper.after(noise, "0", pair.round) == pytest.approx(epsilon(noise.rho(1) * 12, DELTA), rel=1e-6)
