"""A report of column statistics within its owner's byte budget."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import pytest
from machines import STATUS, feed, give, last, make_manifest, make_round, make_session, of, updates

from edgefl.device.events import Failed, StartTraining, TrainJob
from edgefl.device.owner.budget import Limits
from edgefl.device.training import train_update
from edgefl.errors import CodecError
from edgefl.machine import Connected, WallTime
from edgefl.protocol.messages import Status

NOON = datetime(2026, 6, 10, 12, tzinfo=timezone.utc).timestamp()
MANIFEST = make_manifest(part_bytes=4096)
PROFILE = {"mode": "profile", "requires": ["profile"], "manifest": MANIFEST}
X, Y = np.random.default_rng(0).normal(size=(50, 99)).astype(np.float32), np.zeros(50, np.int64)


def asked(per_day: int):
    session = make_session(limits=Limits(per_day=per_day, zone=timezone.utc))
    feed(session, WallTime(NOON), Connected(boot=7))
    give(session, MANIFEST)
    return session, give(session, make_round(**PROFILE))


def test_a_budget_that_allows_all_changes_nothing():
    _, out = asked(10**9)
    assert of(out, StartTraining)[0].job.max_bytes == 0


def test_a_budget_that_is_too_small_sits_the_round_out():
    _, out = asked(30_000)
    assert not of(out, StartTraining) and last(out, Status, STATUS).code == "budget"


def test_a_report_that_is_longer_than_the_budget_allows_does_not_leave():
    session, out = asked(1_000_000)
    (start,) = of(out, StartTraining)
    most = start.job.max_bytes
    assert 0 < most < 400_000 and len(train_update(None, start.job, "a", X, Y).blob) < most, (
        "as a rule it is far shorter"
    )
    with pytest.raises(CodecError):
        train_update(None, TrainJob(MANIFEST, make_round(**PROFILE), b"", 0, max_bytes=100), "a", X, Y)
    out = feed(session, Failed(start.job, "its statistics are long", "codec"), now=1.0)
    assert last(out, Status, STATUS).code == "budget" and not updates(out)
