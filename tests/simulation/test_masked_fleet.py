"""`edgefl simulate --set privacy.masked=true`: the real messages, keys and a helper; faults; and what is refused."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

import edgefl
from edgefl.coordinator.masked.unmasking import Unmasking
from edgefl.errors import UsageError
from edgefl.masking import update as masked_update
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import Settings

FLEET = {"devices": 8, "rounds": 3, "masked": True, "workers": 1, "seed": 3}


def run(model="mlp:64-10", **changes):
    return edgefl.simulate(model, "digits", **FLEET | changes)


def states(history):
    return [record.state for record in history.rounds]


def test_i35_the_curve_is_that_of_plain_sums_of_the_same_integers(monkeypatch):
    """The integers of every device are added where they are made, without any mask: each sum that a helper has opened
    is that sum, and the model is the same."""
    sums: dict[bytes, np.ndarray] = {}
    opened: dict[bytes, np.ndarray] = {}
    original, look = masked_update.mask, Unmasking.opened

    def mask(q, terms, device, key, randomness):
        sums[terms.digest] = sums.get(terms.digest, 0) + q.astype(np.int64)
        return original(q, terms, device, key, randomness)

    def note(self, place):
        opened[self.terms.digest] = look(self, place)
        return opened[self.terms.digest]

    monkeypatch.setattr("edgefl.device.masked.mask", mask)
    monkeypatch.setattr(Unmasking, "opened", note)
    history = run()
    assert states(history) == ["committed"] * 3 and len(opened) == 3
    assert all((opened[digest] == sums[digest]).all() for digest in opened)
    assert all(record.num_examples == record.reported == 8 for record in history.rounds)
    assert all(record.train_loss is None and record.device_examples == 0 for record in history.rounds)


def test_a_run_repeats_bit_for_bit_and_learns():
    first, again = run(rounds=6, share=1.0, clip=20.0), run(rounds=6, share=1.0, clip=20.0, workers=2)
    assert first.params.tobytes() == again.params.tobytes()
    assert first.rounds[-1].accuracy > first.rounds[0].accuracy > 0.2


def test_updates_tell_nothing_beside_their_masked_numbers():
    seen = []
    history = run(on_update=lambda device, blob: seen.append(blob))
    headers = [UpdateHeader.from_bytes(bytes(blob)) for blob in seen]
    assert headers and all(msgspec.structs.replace(h, size=40) == UpdateHeader.masked() for h in headers)
    assert all(record.loss is not None for record in history.rounds), "the aggregator's own test set is no secret"


def test_scores_are_summed_under_the_masks():
    history = run(scores=True, holdout=0.3, bits=20)
    assert all(0 <= record.device_accuracy <= 1 and record.device_loss > 0 for record in history.rounds)
    plain = edgefl.simulate("mlp:64-10", "digits", **FLEET | {"masked": False, "holdout": 0.3})
    assert history.rounds[0].device_loss == pytest.approx(plain.rounds[0].device_loss, rel=0.2)


def test_two_helpers_and_groups():
    assert states(run(helpers="north, south")) == ["committed"] * 3
    history = run(devices=24, groups=2, least=4)
    assert states(history) == ["committed"] * 3


def test_dropouts_cost_nothing_and_too_few_reports_leave_the_model_alone():
    history = run(devices=10, faults="dropout:0.3:20", rounds=4, deadline_s=30.0)
    assert "committed" in states(history)
    assert all(record.reported >= 5 for record in history.rounds if record.state == "committed")
    start = run(rounds=1, faults="hung:1:24", deadline_s=5.0)
    assert states(start) == [] or set(states(start)) == {"abandoned"}


def test_a_model_with_personal_params_and_a_server_optimizer():
    history = run("mlp:64-16-10", strategy="fedavgm", **{"personal.keep": ["head"]})
    assert states(history) == ["committed"] * 3


def test_i37_what_is_masked_keeps_its_norm(monkeypatch):
    """Of every device, weight and all, whatever training has made: here with a clip that most updates exceed."""
    original, found = masked_update.mask, []

    def mask(q, terms, device, key, randomness):
        wide = q.astype(np.int64)
        squares = int((wide**2).sum() - (wide[terms.at_checks] ** 2).sum())
        found.append((squares, int(np.abs(wide).max())))
        assert squares <= terms.norm2 and np.abs(wide).max() <= terms.largest
        return original(q, terms, device, key, randomness)

    monkeypatch.setattr("edgefl.device.masked.mask", mask)
    history = run(clip=0.05, share=1.0, weight=10, unit=20, lr=0.5, bits=20)
    assert states(history) == ["committed"] * 3 and len(found) == 24


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"mode": "async", "goal": 4}, "rounds.mode"),
        ({"late": "fold"}, "rounds.late"),
        ({"codec": "ecq"}, "codec.name"),
        ({"strategy": "median"}, "needs each update by itself"),
        ({"strategy": "scaffold"}, "scaffold"),
        ({"strategy": "fednova"}, "needs each update by itself"),
        ({"selection": "oort", "fraction": 0.5}, "rounds.selection"),
        ({"influence": 2.0}, "admission.influence"),
        ({"evaluate_every": 2, "holdout": 0.2}, "rounds.evaluate_every"),
        ({"weights": "uniform"}, "strategy.weights"),
        ({"scores": True}, "evaluate.holdout"),
        ({"helpers": "a, a"}, "twice"),
        ({"helpers": "North"}, "helper name"),
        ({"least": 9}, "at most 8 devices report"),
        ({"noise": "independent"}, "privacy.sigma"),
        ({"budget": 8.0}, "privacy.budget"),
        ({"faults": "attack:sign-flip:0.2"}, "attacks"),
        ({"share": 1.0, "bits": 4}, "bits"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(changes, why):
    with pytest.raises(UsageError, match=why):
        run(**changes)


def test_without_masks_nothing_is_different():
    """Keys, helpers and terms are there only where they are wanted."""
    plain = edgefl.simulate("mlp:64-10", "digits", **FLEET | {"masked": False})
    assert plain.run.settings.privacy == Settings().privacy
    assert all(record.helpers_s == 0 and not record.epsilon for record in plain.rounds)
