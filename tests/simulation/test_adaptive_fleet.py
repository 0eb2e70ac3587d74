"""Adaptive clipping in simulated federations: the real messages, a helper, noise, restarts; and what is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest

import edgefl
from edgefl.device.owner.policy import Policy
from edgefl.errors import UsageError
from edgefl.privacy.accountant import Mechanism, epsilon
from edgefl.privacy.clipping import Clipping

FLEET = {"devices": 8, "rounds": 5, "masked": True, "workers": 1, "seed": 3, "clip_quantile": 0.5, "clip": 10.0}
NOISY = {"noise": "independent", "sigma": 2.0, "bits": 24, "share": 1.0, "most": 8, "expect": 8}


def run(model="mlp:64-10", **changes):
    return edgefl.simulate(model, "digits", **FLEET | changes)


@pytest.mark.parametrize("changes", [{}, {"transform": "hadamard", "share": 0.5, "weight": 4, "unit": 50}, NOISY])
def test_each_rounds_clip_follows_from_the_record_before(changes):
    if changes is NOISY:
        pytest.importorskip("dp_accounting")
    rounds = run(**changes).rounds
    assert [record.state for record in rounds] == ["committed"] * 5 and rounds[0].clip == 10.0
    rule = Clipping(10.0, 0.5)
    assert all(b.clip == rule.after(a.clip, a.within) for a, b in pairwise(rounds))
    assert all(0 <= record.within <= 1 for record in rounds)
    if changes is not NOISY:
        assert rounds[-1].clip < 7, "no update is that long"
        assert rounds[-1].within == 1


def test_a_clip_that_is_far_too_small_grows():
    rounds = run(clip=0.01, clip_rate=1.0, clip_most=0.4, rounds=12, lr=0.5).rounds
    assert [record.within for record in rounds[:4]] == [0.0] * 4
    assert rounds[-1].clip == 0.4, "and no farther than it may"


def test_votes_are_accounted_by_the_norm_and_cost_no_epsilon():
    pytest.importorskip("dp_accounting")
    told = [record.epsilon for record in run(**NOISY).rounds]
    assert told == pytest.approx([epsilon(Mechanism("independent", 2.0, 1).rho(n), 1e-5) for n in range(1, 6)])


def test_a_device_whose_owner_allows_less_takes_no_part(monkeypatch):
    """`most_clip` of an owner is the most that an adaptive clip may be for its device."""
    rounds = run(clip=1.0, clip_rate=1.0, lr=0.5, rounds=4).rounds
    assert all(record.reported == 8 for record in rounds) and rounds[-1].clip > 1.0
    policy, terms = Policy(most_clip=1.0), []
    from edgefl.device import masked

    original = masked.terms_of
    monkeypatch.setattr(masked, "terms_of", lambda *of: terms.append(original(*of)) or terms[-1])
    run(clip=1.0, clip_rate=1.0, lr=0.5, rounds=3)
    by_clip = {own.clip: policy.of_terms(own) for own in terms}
    assert len(by_clip) == 3
    assert all(("at most 1 is allowed" in why) == (clip > 1.0) for clip, why in by_clip.items())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"noise": "banded", "sigma": 1.0, "band": 2, "separation": 2}, "privacy.clip_quantile moves the clip"),
        ({"clip_quantile": None, "clip_most": 20.0}, "set privacy.clip_quantile"),
        ({"clip_most": 9.0}, "below privacy.clip"),
        ({"clip_quantile": 1.0}, "clip_quantile"),
        ({"clip_rate": 0.0}, "clip_rate"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(changes, why):
    with pytest.raises(UsageError, match=why):
        run(**changes)
