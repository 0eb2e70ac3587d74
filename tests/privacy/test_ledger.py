"""The ledger: epsilon never falls and is never less than what was spent, whatever dies or is restored."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefl.errors import StoreError
from edgefl.privacy import MOST_EPSILON, accountant, no_less
from edgefl.privacy.accountant import Mechanism, epsilon
from edgefl.privacy.ledger import Ledger, newest

DELTA, ROOT = 1e-5, "ab" * 8
NEW = Ledger(ROOT, DELTA)
ONE, TWO = Mechanism("independent", 50.0, 900), Mechanism("independent", 80.0, 900)
BAND = Mechanism("banded", 90.0, 900, 5, 5, 20)


@pytest.fixture(scope="module", autouse=True)
def closed_form():
    """Bun, Steinke 2016: a thousand times faster than dp-accounting, which test_accountant.py is about."""
    patch = pytest.MonkeyPatch()
    patch.setattr(accountant, "_epsilon", lambda rho, delta: rho + 2 * math.sqrt(rho * math.log(1 / delta)))
    yield
    patch.undo()


@given(st.floats(0, MOST_EPSILON))
def test_what_an_operator_is_told_to_set_is_no_less_and_can_be_set(told):
    assert told <= float(no_less(told)) <= min(MOST_EPSILON, told * (1 + 1.1e-5) + 1e-300)


def spent(ledger, noise, rounds, run="run", first=1):
    for round in range(first, first + rounds):
        ledger = ledger.spend(noise, run, round, f"set {round}")
    return ledger


@pytest.mark.parametrize("noise", [ONE, BAND])
def test_rounds_in_a_row_cost_what_they_cost_together(noise):
    assert spent(NEW, noise, 20).epsilon == pytest.approx(epsilon(noise.rho(20), DELTA), rel=1e-12)


def test_changes_of_the_noise_and_of_the_run_add_up():
    ledger = spent(spent(NEW, ONE, 5), TWO, 5, first=6)
    assert ledger.epsilon == pytest.approx(epsilon(ONE.rho(5) + TWO.rho(5), DELTA), rel=1e-6)
    ledger = spent(ledger, ONE, 5, run="next")
    assert ledger.epsilon == pytest.approx(epsilon(ONE.rho(10) + TWO.rho(5), DELTA), rel=1e-6)


def test_a_round_that_was_abandoned_before_costs_nothing_with_independent_noise():
    ledger = NEW.spend(ONE, "run", 3, "a").spend(ONE, "run", 9, "b")
    assert ledger.epsilon == pytest.approx(epsilon(ONE.rho(2), DELTA))


def test_devices_that_come_back_after_a_while_are_counted_by_the_rounds_numbers():
    """Rounds 1 and 4 had noise and 2 and 3 none: a device with a separation of 3 was in both."""
    seldom = Mechanism("independent", 50.0, 900, separation=3)
    ledger = NEW.spend(seldom, "run", 1, "a").spend(seldom, "run", 4, "b")
    assert ledger.epsilon == pytest.approx(epsilon(ONE.rho(2), DELTA))


def test_the_same_set_again_costs_nothing_and_another_is_refused():
    ledger = spent(NEW, ONE, 4)
    assert ledger.spend(ONE, "run", 4, "set 4") is ledger
    for round in (4, 3):
        with pytest.raises(StoreError, match=f"never added to round {round} again"):
            ledger.spend(ONE, "run", round, "another set")


def test_what_a_round_would_cost_is_what_it_costs():
    ledger = spent(NEW, ONE, 4)
    assert ledger.after(ONE, "run", 5) == spent(ledger, ONE, 1, first=5).epsilon
    assert spent(NEW, ONE, 4) == ledger


def test_the_federation_stops_at_its_budget_and_says_why():
    ledger = spent(NEW, ONE, 4)
    after = ledger.after(ONE, "run", 5)
    assert ledger.refusal(None, after) == "" == ledger.refusal(after, after)
    refusal = ledger.refusal(after * 0.99, after)
    assert "the privacy budget is spent" in refusal and "the federation ends here" in refusal


def test_a_ledger_that_was_behind_takes_over_what_a_helper_has_signed():
    ledger = spent(NEW, ONE, 9)
    restored = spent(NEW, ONE, 3).hear(ledger.epsilon, "run", 9)
    assert (restored.epsilon, restored.round) == (ledger.epsilon, 9)
    with pytest.raises(StoreError, match="never added to round 4 again"):
        restored.spend(ONE, "run", 4, "set 4")
    assert spent(restored, ONE, 1, first=10).epsilon >= spent(ledger, ONE, 1, first=10).epsilon * (1 - 1e-12)
    assert ledger.hear(1.0, "run", 5) is ledger


def test_rounds_that_a_helper_tells_of_are_left_out_and_cost_nothing_by_themselves():
    ledger = spent(NEW, ONE, 5)
    for run in ("run", "another"):
        later = ledger.leave_out(run, 9)
        assert (later.epsilon, later.run, later.round) == (ledger.epsilon, run, 9)
        with pytest.raises(StoreError, match="noise is never added to round 9 again"):
            later.spend(ONE, run, 9, "a set")
        assert later.spend(ONE, run, 10, "a set").epsilon == pytest.approx(spent(NEW, ONE, 6).epsilon, rel=1e-6)


def test_a_new_folder_takes_over_what_another_run_has_spent():
    ledger = spent(NEW, ONE, 9)
    fresh = NEW.hear(ledger.epsilon, "run", 9)
    assert spent(fresh, ONE, 1, run="other").epsilon > ledger.epsilon


class Federation:
    """An aggregator whose database is killed, restored or emptied, and a helper that keeps what it has signed."""

    def __init__(self):
        self.disk = [NEW]  # every state that was ever durable
        self.ledger, self.run, self.round = NEW, 0, 0
        self.helper = (0.0, "", 0)
        self.rho = 0.0  # of all noise that left a helper
        self.told = 0.0

    def round_of(self, noise, dies):
        self.ledger = self.ledger.hear(*self.helper)
        run = f"run {self.run}"
        self.round = max(self.round, self.ledger.round if self.ledger.run == run else 0) + 1
        paid = newest(self.disk[-1], self.ledger.spend(noise, run, self.round, f"set {self.round}"))
        if dies == "before it is durable":
            return self.restart(-1)
        self.disk.append(paid)
        if dies == "before the helper is asked":
            return self.restart(-1)
        self.rho += noise.rho(1)
        self.helper = max(self.helper, (paid.epsilon, run, self.round))
        if dies == "before the answer":
            return self.restart(-1)
        self.ledger, self.told = paid, paid.epsilon
        return None

    def restart(self, at):
        self.ledger = self.disk[at % len(self.disk)]
        self.disk = self.disk[: at % len(self.disk) + 1]
        self.round = self.ledger.round

    def new_run(self):
        self.disk, self.ledger, self.run, self.round = [NEW], NEW, self.run + 1, 0

    def check(self):
        true = epsilon(self.rho, DELTA) * (1 - 1e-9)
        assert self.helper[0] >= true
        assert self.ledger.hear(*self.helper).epsilon >= max(true, self.told)


STEPS = st.one_of(
    st.tuples(
        st.just("round"), st.sampled_from([ONE, TWO]),
        st.sampled_from(["", "", "before it is durable", "before the helper is asked", "before the answer"]),
    ),
    st.tuples(st.just("restore"), st.integers(0, 30)),
    st.tuples(st.just("new run")),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=30))
def test_epsilon_never_falls_and_covers_all_noise_across_kills_restores_and_runs(steps):
    federation = Federation()
    before = 0.0
    for what, *details in steps:
        if what == "round":
            federation.round_of(*details)
        elif what == "restore":
            federation.restart(*details)
        else:
            federation.new_run()
        federation.check()
        assert federation.helper[0] >= before
        before = federation.helper[0]


def test_a_ledger_is_read_as_it_was_written():
    ledger = spent(spent(NEW, ONE, 5), BAND, 2, first=6)
    assert Ledger.of_text(ledger.to_text(), ROOT, DELTA) == ledger


@pytest.mark.parametrize("text", ["", "{}", "[]", "nonsense", b"\xff", '{"root":"abababababababab","delta":2.0}'])
def test_a_damaged_ledger_is_never_a_new_one(text):
    with pytest.raises(StoreError, match="damaged"):
        Ledger.of_text(text, ROOT, DELTA)


def test_another_root_or_delta_is_refused():
    text = spent(NEW, ONE, 5).to_text()
    with pytest.raises(StoreError, match="is of the root"):
        Ledger.of_text(text, "cd" * 8, DELTA)
    with pytest.raises(StoreError, match="counts at a delta of 1e-05"):
        Ledger.of_text(text, ROOT, 1e-6)


def test_less_than_what_is_stored_is_never_written():
    ledger = spent(NEW, ONE, 5)
    assert newest(None, ledger) is ledger is newest(spent(NEW, ONE, 4), ledger)
    with pytest.raises(StoreError, match="epsilon falls"):
        newest(ledger, spent(NEW, ONE, 4))
