"""What a device has of its own: when it changes, how it is judged, and that it stays at home."""

from __future__ import annotations

import threading
import time

import msgspec
import numpy as np
import pytest
from machines import PARAMS, PLAN, make_manifest, make_round
from personal_work import DITTO, KEEPS_BIAS, OWN, X, Y, slots_of, values, work

from edgefl.core.params import params_to_bytes
from edgefl.core.trainer import Cancelled, Trainer
from edgefl.device import holdout, personal
from edgefl.device.events import TrainJob
from edgefl.device.owner.policy import Policy
from edgefl.device.training import train_update
from edgefl.errors import PolicyError
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import TrainSettings
from edgefl.strategies.local import LocalRule


def test_a_device_goes_on_from_the_params_that_it_has_kept():
    first, _ = work()
    second, _ = work(slots=slots_of(first), round=2)
    start = personal.with_own(KEEPS_BIAS, PARAMS, first.slots["personal"])
    assert start[OWN].tobytes() == values(first.slots["personal"]).tobytes()
    assert start[:990].tobytes() == PARAMS[:990].tobytes()
    alone, _ = work(round=2)  # as if the first update had not counted
    assert second.slots["personal"] != alone.slots["personal"]
    assert len(second.slots["personal"]) == 4 + 4 * 10


def test_i22_nothing_personal_is_in_an_update():
    made, _ = work()
    again, _ = work(slots=slots_of(made), round=2)
    for update in (made, again):
        assert len(update.blob) == UpdateHeader.from_bytes(update.blob).size + 4 * 990
        for number in values(made.slots["personal"]):
            assert number.tobytes() not in update.blob


@pytest.mark.parametrize("other", [[0], []], ids=["another mask", "no mask"])
def test_what_was_kept_for_another_mask_is_dropped(other, caplog):
    blob = work()[0].slots["personal"]
    manifest = msgspec.structs.replace(KEEPS_BIAS, personal=other)
    assert personal.with_own(manifest, PARAMS, blob) is PARAMS


@pytest.mark.parametrize("spoil", [lambda b: b[:-4], lambda b: b[:-4] + b"\0\0\xc0\x7f", lambda b: b[1:] + b"\0"])
def test_what_was_kept_and_is_no_params_is_dropped(spoil):
    assert personal.with_own(KEEPS_BIAS, PARAMS, spoil(work()[0].slots["personal"])) is PARAMS


def judged(own, received=PARAMS, n=40):
    shares = holdout.Shares(X[:0], Y[:0], X[:n], Y[:n])
    job = TrainJob(KEEPS_BIAS, make_round(manifest=KEEPS_BIAS), params_to_bytes(received), 0)
    from edgefl.device.local.rule import Work

    of = Work(Trainer(PLAN), received, shares, job.manifest.train, 0, 1, lambda name: None, KEEPS_BIAS.mask)
    return personal.judge(of, received, own)


GOOD = np.zeros(1000, np.float32)
GOOD[:100:11] = GOOD[: 10 * 10].reshape(10, 10)[np.arange(10), np.arange(10)] = 1  # class i is the largest of x[:10]


def test_the_better_model_is_kept_by_one_share_and_reported_on_the_other():
    verdict = judged(GOOD)
    told = Trainer(PLAN).evaluate(GOOD, X[1:40:2], Y[1:40:2])
    assert verdict.own
    assert verdict.params is GOOD
    assert verdict.scores["personal"].loss == told.loss
    theirs = Trainer(PLAN).evaluate(PARAMS, X[1:40:2], Y[1:40:2])
    assert (verdict.scores["num_eval"], verdict.scores["eval_loss"]) == (20, theirs.loss)
    assert told.accuracy > theirs.accuracy


@pytest.mark.parametrize("own", [np.full(1000, 3e38, np.float32), -PARAMS * 50, None], ids=["inf", "worse", "none"])
def test_a_model_that_is_no_better_is_not_kept(own):
    verdict = judged(own, received=GOOD)
    assert verdict.params is GOOD
    assert not verdict.own
    scores = verdict.scores["personal"]
    assert (scores.own, scores.loss) == (False, verdict.scores["eval_loss"])


@pytest.mark.parametrize("n", [0, 1])
def test_without_examples_held_out_a_device_keeps_its_own_unjudged(n):
    assert judged(GOOD, n=n) == (GOOD, True, {})
    assert judged(None, n=n) == (PARAMS, False, {})


def test_a_round_that_only_evaluates_judges_and_keeps_the_slots():
    first, _ = work(DITTO)
    made, verdict = work(DITTO, slots_of(first, DITTO), round=2, mode="evaluate")
    header = UpdateHeader.from_bytes(made.blob)
    assert (header.mode, made.slots, header.personal.own) == ("evaluate", {}, verdict.own)
    received, _ = work(DITTO, mode="evaluate")
    assert not UpdateHeader.from_bytes(received.blob).personal.own  # a newcomer has no model of its own yet


@pytest.mark.parametrize("name", ["ditto", "fine-tune"])
def test_a_candidate_that_a_canary_judges_is_neither_trained_nor_kept(name):
    """Nor does it take an owner's bounds on training: it may be refused, and no file may have it then."""
    manifest = make_manifest(local=LocalRule(name), requires=["local"], holdout=0.4)
    message, kept = make_round(1, 0, manifest=manifest, mode="evaluate"), []
    job = TrainJob(manifest, message, params_to_bytes(PARAMS), 0, judges=True)
    made = train_update(Trainer(PLAN), job, "a", X, Y, keep=kept.append, policy=Policy(min_examples=1000))
    header = UpdateHeader.from_bytes(made.blob)
    assert (kept, header.personal) == ([], None)
    held = holdout.held_out("a", len(X), 0.4)
    assert header.eval_loss == pytest.approx(Trainer(PLAN).evaluate(PARAMS, X[held], Y[held]).loss, rel=1e-6)


@pytest.mark.parametrize(("name", "mask"), [("apfl", []), ("ditto", []), ("fine-tune", []), ("fedrep", [1])])
def test_a_rule_that_trains_in_pieces_ends_when_it_is_cancelled_between_two(name, mask):
    """A cancel stops the call of the trainer that runs; between two calls none does."""
    manifest = make_manifest(
        local=LocalRule(name), personal=mask, requires=["local", "personal"], train=TrainSettings(epochs=3)
    )
    calls = []

    class Counting(Trainer):
        def fit(self, *arguments, **options):
            calls.append(options)
            return super().fit(*arguments, **options)

    trainer = Counting(PLAN)
    job = TrainJob(manifest, make_round(manifest=manifest), params_to_bytes(PARAMS), 0)
    asked = iter([True, True])
    with pytest.raises(Cancelled):
        train_update(trainer, job, "a", X, Y, wanted=lambda: next(asked, False))
    assert len(calls) <= 1


def test_fine_tuning_in_a_round_that_only_evaluates_is_within_the_owners_policy():
    manifest = make_manifest(local=LocalRule("fine-tune", {"epochs": 1}), requires=["local"], holdout=0.4)
    policy = Policy(min_examples=1000)
    with pytest.raises(PolicyError):
        work(manifest, mode="evaluate", policy=policy)
    work(DITTO, mode="evaluate", policy=policy)  # it only computes scores


@pytest.mark.parametrize(("name", "options"), [("fine-tune", {"lr": 0.5}), ("fedrep", {"head_epochs": 9})])
def test_what_a_rule_asks_for_is_within_the_owners_policy(name, options):
    manifest = make_manifest(local=LocalRule(name, options), requires=["local"])
    policy = Policy(max_lr=0.2, max_epochs=5)
    assert "is allowed" in policy.of_manifest(manifest) or "are allowed" in policy.of_manifest(manifest)
    assert not policy.of_manifest(DITTO)


def test_training_a_part_is_cancelled_like_all_training():
    manifest = make_manifest(
        personal=[1], local=LocalRule("fedrep", {"head_epochs": 10_000}), requires=["personal", "local"],
        train=TrainSettings(lr=1e-6, epochs=10_000, batch_size=1),
    )  # fmt: skip
    trainer, ended = Trainer(PLAN), []
    job = TrainJob(manifest, make_round(manifest=manifest), params_to_bytes(PARAMS), 0)

    def run():
        with pytest.raises(Cancelled):
            train_update(trainer, job, "a", X, Y)
        ended.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.3)
    began = time.monotonic()
    while not ended and time.monotonic() < began + 5:
        trainer.cancel()  # as the agent does until the training has ended
        time.sleep(0.02)
    thread.join(10)
    assert ended
    assert ended[0] - began < 1


def test_a_part_is_trained_and_the_rest_stays_as_it_was():
    trainer = Trainer(PLAN)
    with trainer.freezing([0]) as part:
        delta = part.fit(PARAMS, X, Y, lr=0.1).delta
    assert not delta[:990].any()
    assert delta[990:].all()
    with trainer.freezing([1]) as part:
        delta = part.fit(PARAMS, X, Y, lr=0.1).delta
    assert not delta[990:].any()
    assert delta[:990].any()
