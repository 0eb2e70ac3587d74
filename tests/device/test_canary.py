"""A canary judges a model that no round has named, beside its own work, and goes by nothing that it is asked."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from keyed import DEVICE_KEYS, THIEF, keyed_session, manifest, round_of, sealed
from machines import (
    BLOB,
    INBOX,
    PARAMS,
    RUN,
    TOPICS,
    feed,
    fetching,
    give,
    last,
    make_round,
    model_parts,
    of,
    received,
    reporting,
    serve,
    training,
)  # fmt: skip

from edgefl.device.events import CancelTraining, Pause, SaveUpdate, StartTraining, Trained
from edgefl.machine import Connected, Disconnected, Publish, Subscribe
from edgefl.protocol.inbox import Judge, Verdict
from edgefl.protocol.messages import decode
from edgefl.protocol.update_header import UpdateHeader
from edgefl.trust.seal import open_seal

BETTER = PARAMS / 2
SCORES = UpdateHeader(0, 0, 0.0, 0, 0, 7, 0.25, 0.875).to_bytes()
TOPIC = TOPICS.verdict("a", 1)


def judge(version=1, params=BETTER, **changes) -> Judge:
    return Judge(make_round(version=version, params=params, mode="evaluate", **changes))


def ask(session, request=None, now=2.0):
    return feed(session, received(INBOX, request or judge()), now=now)


def evaluating(session, request=None):
    """The job that a request leads to."""
    out = serve(session, ask(session, request), model_parts(1, BETTER))
    (start,) = of(out, StartTraining)
    return start.job


def test_a_canary_evaluates_and_tells_and_keeps_its_own_update():
    session, _ = reporting()
    work, held, saved = session.work, dict(session._part.models.held), session._saved.outbox
    job = evaluating(session)
    assert job.judges
    assert job.round.mode == "evaluate" and np.frombuffer(job.params, "<f4").tolist() == BETTER.tolist()
    out = feed(session, Trained(job, SCORES), now=3.0)
    verdict = last(out, Verdict, TOPIC)
    assert verdict == Verdict(1, job.round.model_sha256, 0.25, 0.875)
    assert not of(out, SaveUpdate)
    assert (session.work, session._part.models.held, session._saved.outbox) == (work, held, saved)
    assert session.round.version == 0, "what it judges is not what it goes by"


def test_a_model_that_it_holds_is_not_fetched():
    session, _ = reporting()
    out = ask(session, judge(0, PARAMS))
    assert of(out, StartTraining) and not of(out, Subscribe)


def test_a_request_that_comes_again_gets_the_same_verdict_and_no_second_evaluation():
    session, _ = reporting()
    job = evaluating(session)
    assert ask(session) == [], "it is at work"
    first = feed(session, Trained(job, SCORES), now=3.0)
    assert ask(session, now=4.0) == of(first, Publish)


@pytest.mark.parametrize("request_", [
    judge(round=2), judge(attempt=2), judge(version=2), Judge(make_round(version=1, params=BETTER)),
], ids=["another round", "another attempt", "two versions ahead", "to train"])  # fmt: skip
def test_a_request_about_anything_but_the_newest_round_is_dropped(request_):
    session, _ = reporting()
    out = ask(session, request_)
    assert session.dropped == 1 and not of(out, StartTraining) and not of(out, Subscribe)


def test_a_device_that_trains_or_fetches_is_not_disturbed():
    session, job = training()
    assert ask(session) == [] and session.work.job is job
    session, _ = fetching()
    assert ask(session) == []


def test_the_next_round_ends_the_judging():
    session, _ = reporting()
    job = evaluating(session)
    out = give(session, make_round(round=2, version=1, params=BETTER), now=3.0)
    assert of(out, CancelTraining)
    assert feed(session, Trained(job, SCORES), now=4.0) == []


def test_its_owner_ends_the_judging_and_none_begins_while_paused():
    session, _ = reporting()
    evaluating(session)
    assert of(feed(session, Pause("on battery"), now=3.0), CancelTraining)
    assert ask(session, now=4.0) == []


def test_a_lost_connection_ends_it_and_it_begins_again():
    session, _ = reporting()
    ask(session)
    feed(session, Disconnected(), now=3.0)
    assert session._part.canary.job is None


def test_without_examples_held_out_the_verdict_has_no_loss():
    session, _ = reporting()
    job = evaluating(session)
    bare = UpdateHeader(0, 0, 0.0, 0, 0).to_bytes()
    assert last(feed(session, Trained(job, bare), now=3.0), Verdict, TOPIC).loss is None


def test_with_keys_a_request_needs_the_signer_and_moves_nothing_that_was_seen():
    session = keyed_session()
    feed(session, Connected(boot=7), manifest())
    out = serve(session, feed(session, round_of()), model_parts())
    (start,) = of(out, StartTraining)
    feed(session, Trained(start.job, BLOB), now=1.0)
    seen = session.trust.seen
    request = Judge(msgspec.structs.replace(judge().round, run=RUN))
    feed(session, sealed(INBOX, request, THIEF))
    assert session.forged == 1 and session._part.canary.job is None
    foreign = Judge(msgspec.structs.replace(request.round, run="1" * 16))
    feed(session, sealed(INBOX, foreign))
    assert session._part.canary.job is None
    out = serve(session, feed(session, sealed(INBOX, request)), model_parts(1, BETTER))
    (start,) = of(out, StartTraining)
    (told,) = of(feed(session, Trained(start.job, SCORES), now=3.0), Publish, TOPIC)
    assert decode(Verdict, open_seal(told.payload, TOPIC, DEVICE_KEYS["a"].public)).run == RUN
    assert session.trust.seen == seen, "the next candidate with this version is no fork"


def test_a_request_fits_into_an_inbox():
    assert len(msgspec.json.encode(judge())) < 2048
