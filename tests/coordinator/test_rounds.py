"""RoundCoordinator by hand: when a round opens and closes, and what it leaves behind."""

from __future__ import annotations

import numpy as np
import pytest
from machines import (
    MANIFEST,
    PARAMS,
    TOPICS,
    P,
    accumulator_of,
    commit_of,
    feed,
    make_coordinator,
    make_manifest,
    make_model,
    make_update,
    of,
    open_round,
    received,
    report,
    round_in,
    run_out,
    status,
    update_parts,
    word_to,
)

from edgefl.coordinator.devices.quorum import ASK_AGAIN_S
from edgefl.coordinator.events import Commit, Evaluate, Finished
from edgefl.machine import Connected, Disconnected, Publish, Sent, Stop, Subscribe, Tick
from edgefl.protocol.inbox import Receipt
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.messages import RETAINED_LIMIT, decode, encode
from edgefl.protocol.round import Round

# Opening


def test_parts_of_the_model_are_lowered_to_what_the_broker_takes():
    wide = make_manifest(part_bytes=4096)
    coordinator = make_coordinator(manifest=wide)
    out = feed(coordinator, Connected(max_packet_bytes=2048))
    lowered = decode(Manifest, out[2].payload, RETAINED_LIMIT)
    assert lowered == make_manifest(part_bytes=2048 - 1024 - 48)
    assert [p.topic for p in of(out, Publish)[1:] if p.payload] == [TOPICS.model(0, i) for i in range(5)]
    assert round_in(feed(coordinator, status("a"))).manifest == lowered.id
    assert feed(coordinator, Disconnected(), Connected(max_packet_bytes=2**20))[2] == out[2]  # as devices know it


def test_connecting_puts_everything_on_the_broker():
    coordinator = make_coordinator()
    out = feed(coordinator, Connected())
    assert out[:2] == [Subscribe((TOPICS.any_update,)), Subscribe((TOPICS.any_status,), qos=0)]
    put = [p for p in of(out, Publish) if p.payload]
    assert [p.topic for p in put] == [TOPICS.manifest, *(TOPICS.model(0, i) for i in range(16))]
    assert all(p.retain for p in of(out, Publish))
    assert feed(coordinator, Disconnected(), Sent(1, True), Stop()) == []
    again = feed(coordinator, Connected())
    assert again[: len(put) + 2] == [*out[:2], *put]  # I10: a broker that has lost everything is put right


def test_i10_a_reconnection_in_an_open_round_repeats_the_round():
    coordinator = open_round("a")
    feed(coordinator, Disconnected())
    out = feed(coordinator, Connected(), now=5.0)
    assert (round_in(out).round, round_in(out).attempt, coordinator.tally.opened_at) == (1, 1, 0.0)


def test_opens_at_min_reports():
    coordinator = make_coordinator(min_reports=2, deadline_s=30)
    feed(coordinator, Connected(), status("a"), status("b", "paused"))
    assert (coordinator.phase, coordinator.wake_at) == ("waiting", ASK_AGAIN_S)
    message = round_in(feed(coordinator, status("b")))
    model = make_model()
    assert message == Round(MANIFEST.id, "open", 1, 1, 0, model.sha256, model.frames, 30, None, unasked=250)
    assert coordinator.wake_at == 30


def test_does_not_open_off_line():
    coordinator = make_coordinator()
    assert feed(coordinator, status("a"), Tick()) == []
    assert round_in(feed(coordinator, Connected()))


def test_the_first_round_waits_for_those_expected_one_deadline_at_most():
    coordinator = make_coordinator(expect=3, min_reports=1, deadline_s=60)
    feed(coordinator, Connected(), now=0.0)
    feed(coordinator, status("a"), now=5.0)
    feed(coordinator, status("b"), now=20.0)
    assert (coordinator.phase, coordinator.wake_at) == ("waiting", 60.0)  # for a line in the log
    feed(coordinator, Tick(), now=60.0)
    assert (coordinator.phase, coordinator.wake_at) == ("waiting", 65.0)
    assert round_in(feed(coordinator, Tick(), now=65.0))
    coordinator = make_coordinator(expect=2)
    assert round_in(feed(coordinator, Connected(), status("a"), status("b")))


def test_waiting_never_wants_a_tick_in_the_past():
    coordinator = make_coordinator(expect=3, deadline_s=60)
    feed(coordinator, Connected(), status("a"))
    feed(coordinator, status("a", "lost"))
    assert coordinator.wake_at == ASK_AGAIN_S
    feed(coordinator, status("a"), now=10.0)
    feed(coordinator, Disconnected(), now=80.0)
    assert coordinator.wake_at is None
    feed(coordinator, Connected(), now=90.0)
    assert coordinator.phase == "open"
    feed(coordinator, status("a", "lost"), Tick(), now=200.0)
    assert (coordinator.phase, coordinator.wake_at) == ("waiting", 200 + ASK_AGAIN_S)


def test_i07_while_too_few_are_there_they_are_asked_again():
    """Found by simulation: a broker with a queue shorter than the fleet dropped statuses, and no round ever opened."""
    coordinator = make_coordinator(min_reports=2)
    feed(coordinator, Connected(), status("a"))
    assert feed(coordinator, Tick(), now=ASK_AGAIN_S - 1) == []
    for asked in (1, 2):
        out = feed(coordinator, Tick(), status("a"), now=asked * ASK_AGAIN_S)
        assert of(out, Publish) == [Publish(TOPICS.manifest, encode(MANIFEST), retain=True)]
    assert round_in(feed(coordinator, status("b"), now=61.0))
    assert of(feed(coordinator, Tick(), now=100.0), Publish, TOPICS.manifest) == []


def test_i07_a_device_that_comes_and_goes_puts_neither_the_first_round_off_nor_the_next_question():
    """Found by simulation: with each of its connections the first round's wait began again, and no device was asked."""
    coordinator = make_coordinator(expect=3, min_reports=2, deadline_s=60)
    feed(coordinator, Connected(), status("a"), now=0.0)
    asked = []
    for second in range(1, 60):
        state = "ready" if second % 2 else "lost"
        asked += of(
            feed(coordinator, status("b", state, boot=second), Tick(), now=float(second)), Publish, TOPICS.manifest
        )
    assert len(asked) == 1
    out = feed(coordinator, status("b", boot=60), now=61.0)
    assert round_in(out)


def drawn_round(count=20, **config):
    """An open round of `count` devices of which some were drawn: (coordinator, cohort)."""
    coordinator = make_coordinator(**config)
    feed(coordinator, *(status(f"d{i}") for i in range(count)))
    return coordinator, round_in(feed(coordinator, Connected())).cohort


def test_fraction_draws_a_cohort():
    first, again, other = (drawn_round(fraction=0.3, seed=seed)[1] for seed in (0, 0, 1))
    assert first == again != other
    for cohort in (first, other):
        assert len(set(cohort)) == 6
        assert set(cohort) <= {f"d{i}" for i in range(20)}


def test_a_cohort_is_never_below_min_reports():
    assert len(drawn_round(fraction=0.1, min_reports=5)[1]) == 5


def test_a_device_outside_the_cohort_is_dropped():
    coordinator, cohort = drawn_round(fraction=0.3)
    outsider = next(f"d{i}" for i in range(20) if f"d{i}" not in cohort)
    before = accumulator_of(coordinator)
    out = report(coordinator, outsider)
    assert "not asked" in out[0].text
    assert (accumulator_of(coordinator), coordinator.dropped[outsider]) == (before, 2)
    out = [a for device in cohort for a in report(coordinator, device)]
    assert commit_of(out).record.devices == cohort


# Closing


def test_goal_closes_early():
    coordinator = open_round("a", "b", "c", min_reports=1, goal=2)
    assert commit_of(report(coordinator, "a")) is None
    assert commit_of(report(coordinator, "b")).record.devices == ["a", "b"]


def test_everybody_who_is_there_has_reported():
    coordinator = open_round("a", "b", "c", min_reports=1)
    report(coordinator, "a")
    assert commit_of(feed(coordinator, status("b", "lost"))) is None
    assert commit_of(feed(coordinator, status("c", "paused"))).record.reported == 1


def test_a_rejected_device_is_not_waited_for():
    coordinator = open_round("a", "b", min_reports=1)
    report(coordinator, "a")
    assert commit_of(report(coordinator, "b", blob=b"\0" * 4032)).record.devices == ["a"]


def test_deadline_closes_with_enough():
    coordinator = open_round(*"abcde", min_reports=2, deadline_s=60)
    report(coordinator, "a")
    report(coordinator, "b")
    assert feed(coordinator, Tick(), now=59.9) == []
    commit = commit_of(feed(coordinator, Tick(), now=60.0))
    assert (commit.record.state, commit.record.version, commit.record.seconds) == ("committed", 1, 60.0)


def test_i04_too_few_at_the_last_deadline_leave_the_model_and_the_next_round_opens():
    coordinator = open_round("a", "b", deadline_s=60)
    report(coordinator, "a")
    out = run_out(coordinator)
    commit = commit_of(out)
    assert (commit.record.seconds, commit.record.deadlines) == (480.0, 8)
    assert (commit.record.state, commit.record.version, commit.params) == ("abandoned", 0, None)
    assert coordinator.params.tobytes() == PARAMS.tobytes()
    message = round_in(out)
    assert (message.round, message.version, message.model_sha256) == (2, 0, make_model().sha256)
    assert not [p for p in of(out, Publish) if "/model/" in p.topic]


def test_i04_nobody_at_all():
    coordinator = open_round("a", deadline_s=60)
    assert commit_of(run_out(coordinator)).record.train_loss is None


def test_record():
    coordinator = open_round("b", "a", deadline_s=60)
    report(coordinator, "b", blob=make_update(num_examples=30, loss=1.0), now=2.0)
    out = report(coordinator, "a", blob=make_update(num_examples=10, loss=0.2), now=3.0, accuracy=0.75)
    record = commit_of(out).record
    assert (record.round, record.version, record.devices, record.num_examples) == (1, 1, ["a", "b"], 40)
    assert record.train_loss == pytest.approx(0.8)
    assert record.bytes_up == sum(len(m.payload) for m in update_parts()) * 2
    assert (record.bytes_down, record.seconds, record.accuracy) == (200, 3.0, 0.75)
    assert record.float32_bytes == 2 * 4 * P


def test_bytes_are_told_for_each_device_and_add_up():
    coordinator = open_round("a", "b", "c", "d", min_reports=1, deadline_s=60)
    twice, part = update_parts("a"), len(update_parts("a")[0].payload)
    feed(coordinator, *twice, *twice, now=1.0)  # QoS 1 repeats
    feed(coordinator, update_parts("b")[0], now=1.0)  # the rest never comes
    not_finite = make_update()[:-4] + np.float32(np.nan).tobytes()
    report(coordinator, "c", blob=not_finite)
    record = commit_of(feed(coordinator, Tick(), now=60.0)).record
    whole = sum(len(m.payload) for m in twice)
    assert (record.devices, record.reported) == (["a"], 1)
    assert record.traffic == {"a": (2 * whole, 100), "b": (part, 0), "c": (whole, 0)}
    assert record.bytes_up == sum(up for up, _ in record.traffic.values())
    assert record.bytes_down == sum(down for _, down in record.traffic.values())


def test_fedavg_by_hand():
    coordinator = open_round("a", "b")
    report(coordinator, "a", blob=make_update(1.0, num_examples=1))
    params = commit_of(report(coordinator, "b", blob=make_update(-1.0, num_examples=3))).params
    assert (params == PARAMS - np.float32(0.5)).all()


def test_i08_i09_the_commit_comes_before_anything_of_the_new_version():
    coordinator = make_coordinator(min_reports=1)
    out = feed(coordinator, status("a"), Connected())
    while token := out[-1].token:
        out = feed(coordinator, Sent(token, True)) or [Publish("", b"")]
    out = report(coordinator, "a")
    kinds = [type(a) for a in out]
    assert kinds.index(Evaluate) < kinds.index(Commit)
    announced = [i for i, a in enumerate(out) if isinstance(a, Publish) and a.topic.startswith(TOPICS.model(1, 0)[:-1])]
    round_at = next(i for i, a in enumerate(out) if isinstance(a, Publish) and a.topic == TOPICS.round)
    cleared = [i for i, a in enumerate(out) if isinstance(a, Publish) and a.topic.startswith(TOPICS.model(0, 0)[:-1])]
    assert kinds.index(Commit) < min(announced) <= max(announced) < round_at < min(cleared)
    assert len(announced) == len(cleared) == 16
    assert all(out[i].payload == b"" and out[i].retain for i in cleared)


def test_rounds_done():
    coordinator = open_round("a", rounds=2)
    report(coordinator, "a")
    out = report(coordinator, "a", round=2, version=1)
    assert of(out, Finished) == [Finished("2 rounds are done")]
    assert (round_in(out).state, coordinator.phase, coordinator.wake_at) == ("done", "done", None)
    assert not feed(coordinator, status("b"), Tick(), now=1e6)
    assert round_in(feed(coordinator, Connected())).state == "done"


def test_target_accuracy():
    coordinator = open_round("a", target_accuracy=0.9)
    assert round_in(report(coordinator, "a", accuracy=0.8)).round == 2
    out = report(coordinator, "a", round=2, version=1, accuracy=0.9)
    assert "0.9" in of(out, Finished)[0].reason
    assert isinstance(out[[type(a) for a in out].index(Commit)], Commit)


def test_a_restart_reopens_the_round_as_another_attempt():
    coordinator = make_coordinator(start={"round": 5, "version": 3, "attempt": 2}, rounds=9)
    message = round_in(feed(coordinator, status("a"), Connected()))
    assert (message.round, message.version, message.attempt) == (5, 3, 2)
    out = report(coordinator, "a", round=5, version=3)
    assert word_to(out, "a") == Receipt(5, 2, "counted")
    assert commit_of(out).record.version == 4


def test_a_restart_after_the_last_round_finishes_at_once():
    out = feed(make_coordinator(start={"round": 3}, rounds=2), Connected())
    assert of(out, Finished)
    assert round_in(out).state == "done"


# Presence


def test_a_late_will_of_an_older_boot_is_ignored():
    coordinator = open_round("a", "b", min_reports=1)
    report(coordinator, "a")
    feed(coordinator, status("b", boot=5))
    assert feed(coordinator, status("b", "lost", boot=4)) == []
    assert coordinator.presence.present() == ["a", "b"]
    assert commit_of(feed(coordinator, status("b", "lost", boot=5)))


def test_a_cleared_status_is_an_absence():
    coordinator = make_coordinator(min_reports=2)
    feed(coordinator, Connected(), status("a"), received(TOPICS.status("a"), b""), status("b"))
    assert coordinator.phase == "waiting"
