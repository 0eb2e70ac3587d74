"""What the aggregator's log says about a round that is over."""

from __future__ import annotations

import msgspec
from edgefl_broker.progress import summary

from edgefl.history_record import RoundRecord

ROUND = RoundRecord(
    round=7, state="committed", version=3, reported=2, devices=["a", "b"], num_examples=10, train_loss=0.5,
    bytes_up=100, bytes_down=200, seconds=1.5,
)  # fmt: skip


def test_the_line_names_the_devices_that_were_missing_and_says_why() -> None:
    assert summary(ROUND) == "round 7 committed: 2 reported (a, b), 100 bytes up, 200 down, 1.5 s"
    missed = {"c": "no update since round 3", "d": "no update yet"}
    record = msgspec.structs.replace(ROUND, missed=missed, budgets={"a": 0, "b": 900, "d": 0, "e": 0}, deadlines=2)
    assert summary(record).endswith(
        "1.5 s, 2 deadlines, without c (no update since round 3), d (its owner's byte budget), "
        "e (its owner's byte budget)"
    )
