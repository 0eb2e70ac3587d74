"""Federations with noise, helper included, over the real messages: what they spend, and where they end."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

import edgefl
from edgefl.coordinator.events import Finished, SaveAsk
from edgefl.errors import UsageError
from edgefl.helper.state import State
from edgefl.machine import Publish
from edgefl.masking import sealed
from edgefl.privacy.accountant import Mechanism, epsilon
from edgefl.privacy.ledger import Ledger, SaveLedger
from edgefl.simulation.hosts.fleet import AggregatorHost
from edgefl.simulation.hosts.helper_host import HelperHost
from edgefl.simulation.privacy.terms import Goal, propose
from edgefl.trust.ed25519 import fingerprint

pytest.importorskip("dp_accounting")
NOISY = {
    "privacy.masked": True, "privacy.helpers": "north", "privacy.least": 5, "privacy.most": 10, "rounds.expect": 10,
    "privacy.noise": "independent", "privacy.sigma": 3.0, "privacy.bits": 20, "privacy.share": 1.0,
}  # fmt: skip


@pytest.fixture
def actions(monkeypatch):
    """All that the aggregator's host carries out, in order."""
    seen, inner = [], AggregatorHost.carry_out

    def carry_out(self, action):
        seen.append(action)
        inner(self, action)

    monkeypatch.setattr(AggregatorHost, "carry_out", carry_out)
    return seen


def run(rounds=5, **more):
    settings = edgefl.Settings().replace(**NOISY | more)
    return edgefl.simulate("mlp:64-10", "digits", settings=settings, devices=10, rounds=rounds, seed=0)


def spent(rounds, sigma=3.0):
    return epsilon(Mechanism("independent", sigma, 1).rho(rounds), 1e-5)


def test_every_round_tells_what_was_spent_and_it_is_durable_before_the_helper_is_asked(actions):
    history = run()
    assert [record.state for record in history.rounds] == ["committed"] * 5
    assert [record.epsilon for record in history.rounds] == pytest.approx([spent(r) for r in range(1, 6)], rel=1e-6)
    for place, action in enumerate(actions):
        if isinstance(action, SaveAsk):
            paid = actions[place - 1]
            assert isinstance(paid, SaveLedger) and paid.ledger.epsilon == action.saved.terms.epsilon
    asks = [place for place, a in enumerate(actions) if isinstance(a, Publish) and "/helper/" in a.topic]
    first = next(place for place, a in enumerate(actions) if isinstance(a, SaveAsk))
    known, asks = [at for at in asks if at < first], [at for at in asks if at > first]
    saves = [(place, a.ledger) for place, a in enumerate(actions) if isinstance(a, SaveLedger)]
    told = [place for place, ledger in saves if ledger.epsilon < ledger.highest]
    paid = [place for place, ledger in saves if ledger.epsilon == ledger.highest]
    assert (len(told), len(paid)) == (5, 5) and known[-1] < told[0] < paid[0] < min(asks)


def test_the_federation_ends_at_its_budget_and_says_why(actions):
    history = run(rounds=20, **{"privacy.budget": spent(3) + 0.01})
    assert [record.state for record in history.rounds] == ["committed"] * 3
    (end,) = [action for action in actions if isinstance(action, Finished)]
    assert "the privacy budget is spent" in end.reason and "after round 3" in end.reason


def test_a_new_folder_goes_on_from_what_a_helper_has_seen_spent(monkeypatch):
    """The helper is asked before the first round: its terms tell of no less than it knows."""
    inner = HelperHost.__init__

    def init(self, *arguments):
        inner(self, *arguments)
        ledger = Ledger(fingerprint(self._keys.root), 1e-5, 5.0)
        self.state = msgspec.structs.replace(self.state, ledger=ledger)

    monkeypatch.setattr(HelperHost, "__init__", init)
    rounds = run(rounds=4).rounds
    assert [record.state for record in rounds] == ["committed"] * 4
    assert 5.0 < rounds[0].epsilon < rounds[1].epsilon < rounds[2].epsilon < rounds[3].epsilon


def test_a_device_that_seals_nonsense_costs_no_round_and_no_epsilon(monkeypatch):
    """Its first round is asked for again without it; what that round's noise costs was paid for once."""
    inner = sealed.seal

    def seal(seed, digest, device, box_public):
        found = inner(seed, digest, device, box_public)
        return bytes(len(found)) if device == "dev-3" else found

    monkeypatch.setattr(sealed, "seal", seal)
    rounds = run(rounds=4).rounds
    assert [record.state for record in rounds] == ["committed"] * 4
    assert [len(record.devices) for record in rounds] == [9] * 4
    assert all("in quarantine since round 1: a sealed seed" in record.barred["dev-3"] for record in rounds)
    assert [record.epsilon for record in rounds] == pytest.approx([spent(n) for n in (1, 2, 3, 4)], rel=1e-6)


def test_an_aggregator_whose_helper_has_opened_later_rounds_loses_one_of_its_own(monkeypatch):
    inner = State.in_run
    later = {"round": 30, "ledger": Ledger("", 1e-5, 5.0)}

    def in_run(self, run):
        return msgspec.structs.replace(inner(self, run), **later)

    def init(self, *arguments):
        start(self, *arguments)
        later["ledger"] = Ledger(fingerprint(self._keys.root), 1e-5, 5.0)

    start = HelperHost.__init__
    monkeypatch.setattr(HelperHost, "__init__", init)
    monkeypatch.setattr(State, "in_run", in_run)
    first, *others = run(rounds=34, **{"privacy.opened": 30}).rounds  # which its operator confirms
    assert (first.round, first.state) == (31, "abandoned") and "in round 31; 5 was spent" in first.why
    assert [(record.round, record.state) for record in others] == [(n, "committed") for n in (32, 33, 34)]
    assert 5.0 < others[0].epsilon < others[1].epsilon < others[2].epsilon


def test_correlated_noise_in_a_federation_costs_what_its_ledgers_agree_on():
    """Half of the devices in each round, none in two of a row: every other round costs something."""
    more = {"privacy.noise": "banded", "privacy.band": 2, "privacy.separation": 2, "rounds.rounds": 6}
    settings = edgefl.Settings().replace(**NOISY | more | {"rounds.expect": 6, "rounds.fraction": 0.5})
    rounds = edgefl.simulate("mlp:64-10", "digits", settings=settings, devices=16, rounds=6, seed=0).rounds
    assert [record.state for record in rounds] == ["committed"] * 6
    told = [record.epsilon for record in rounds]
    whole = Mechanism("banded", 3.0, 1, 2, 2, 6)
    assert told == pytest.approx([epsilon(whole.rho(round), 1e-5) for round in range(1, 7)], rel=1e-6)
    assert all(set(a.devices).isdisjoint(b.devices) for a, b in pairwise(rounds))


def test_rounds_without_noise_spend_nothing(actions):
    history = run(rounds=2, **{"privacy.noise": "none", "privacy.sigma": 0.0})
    assert [record.epsilon for record in history.rounds] == [0, 0]
    assert not [action for action in actions if isinstance(action, SaveLedger)]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"privacy.bits": 8}, "too few for 10 devices and noise"),
        ({"privacy.noise": "banded", "privacy.share": 0.5}, "set privacy.share = 1"),
    ],
)
def test_noise_that_can_not_be_is_refused_at_start(more, says):
    with pytest.raises(UsageError, match=says):
        run(**more)


def test_what_the_command_proposes_runs_and_spends_just_that(tmp_path):
    proposal = propose(Goal(rounds=4, devices=10, epsilon=20.0, params=650, cohort=10))
    file = tmp_path / "federation.toml"
    file.write_text(proposal.to_toml())
    settings = edgefl.Settings.load(file).replace(**{"privacy.helpers": "north", "rounds.expect": 10})
    history = edgefl.simulate("mlp:64-10", "digits", settings=settings, devices=10, seed=0)
    assert [record.state for record in history.rounds] == ["committed"] * 4
    assert 19.9 < history.rounds[-1].epsilon <= 20.0


def test_rounds_in_which_too_many_devices_rest_are_passed_over():
    """All ten devices take part in a round, and rest for the next two: without them no round could open."""
    history = run(rounds=7, **{"privacy.separation": 3})
    assert [record.round for record in history.rounds] == [1, 4, 7]
    assert [record.state for record in history.rounds] == ["committed"] * 3
    assert [len(record.devices) for record in history.rounds] == [10] * 3
