"""Rounds as a table, as curves and as sums, in bounded memory."""

from __future__ import annotations

import msgspec
from board_fixture import records
from edgefl_broker.history_view import HistoryView

from edgefl.board.rounds import BUCKETS_S, KEPT, NAMED, Past
from edgefl.history_record import RoundRecord


def a_round(number: int, state: str = "committed", **fields) -> RoundRecord:
    base = {"devices": ["a"], "num_examples": 10, "train_loss": 0.5, "bytes_up": 100, "bytes_down": 50, "seconds": 2.0}
    return RoundRecord(number, state, number, 1, **{**base, **fields})


def test_curves_keep_to_their_points_and_lose_no_byte():
    past = Past(points=50)
    for number in range(1, 1001):
        past.add(a_round(number, bytes_up=number, accuracy=number / 1000))
    curves = past.curves()
    n = len(curves.round)
    assert 25 <= n <= 50 and curves.rounds_per_point == 32
    assert curves.round[-1] == 1000 and curves.accuracy[-1] == 1.0
    whole = [32] * (n - 1) + [1000 - 32 * (n - 1)]
    assert sum(mean * k for mean, k in zip(curves.bytes_up, whole, strict=True)) == sum(range(1, 1001))


def test_a_score_of_a_refused_model_is_not_the_federations():
    past = Past()
    past.add(a_round(1, accuracy=0.9))
    past.add(a_round(2, "refused", accuracy=0.1, why="worse"))
    assert past.curves().accuracy == [0.9, None]
    assert past.newest is not None and (past.newest.version, past.newest.accuracy) == (1, 0.9)


def test_a_round_is_added_once():
    past = Past()
    for number in (1, 2, 2, 1):
        past.add(a_round(number))
    assert [r.round for r in past.rounds().rounds] == [2, 1]
    assert past.totals.rounds == {"committed": 2}


def test_a_table_of_rounds_is_bounded_whatever_the_fleet():
    past, fleet = Past(), [f"device-{i:04}" for i in range(3000)]
    for number in range(1, KEPT + 50):
        past.add(a_round(number, devices=fleet, missed={d: "silent" for d in fleet}))
    kept = past.rounds()
    assert len(kept.rounds) == KEPT
    assert len(msgspec.json.encode(kept)) < 500_000
    newest = kept.rounds[0]
    assert (len(newest.devices), len(newest.missed), newest.without, newest.asked) == (NAMED, NAMED, 3000, 3000)
    assert [r.round for r in past.rounds(before=240, limit=2).rounds] == [239, 238]


def test_totals_are_the_sums_of_all_rounds():
    past, all_records = Past(), records()
    for record in all_records:
        past.add(record)
    totals = past.totals
    assert totals.bytes_up == sum(r.bytes_up for r in all_records)
    assert totals.rounds == {"committed": 58, "abandoned": 2}
    assert totals.missed == sum(len(r.missed) for r in all_records) > 0
    assert totals.buckets[-1] == 60 and totals.buckets == sorted(totals.buckets)
    assert totals.buckets[BUCKETS_S.index(15.0)] == sum(r.seconds <= 15 for r in all_records)


def test_a_device_that_was_removed_is_named_nowhere():
    past, view = Past(), HistoryView()
    record = a_round(1, devices=["pi-1", "pi-11"], missed={"pi-1": "silent"}, why="1 of 2 reports (pi-1: silent)")
    past.add(record)
    view.add(record)  # while history is read
    past.forget("pi-1")
    view.forget("pi-1")
    view.read([])
    for kept in (past.rounds(), view.look(lambda past: past.rounds())):
        assert kept.rounds[0].devices == ["pi-11"] and kept.rounds[0].reported == 1
        assert b'pi-1"' not in msgspec.json.encode(kept) and b"pi-1:" not in msgspec.json.encode(kept)
