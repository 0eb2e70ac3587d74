"""What somebody with a batch's token can make the aggregator do: little, and no other device's request is lost."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from edgefl_broker import enrolment
from edgefl_broker.enrolment import Enrolment

from edgefl.protocol.enrol import Answer, Ask, Batch
from edgefl.protocol.topics import Topics
from edgefl.trust.ed25519 import SigningKey

BATCH = "batch-00000000"


class Desk:
    """The aggregator's side, with one batch and a clock that stands still; `ask` returns the state of the answer."""

    def __init__(self, folder: Path, count: int) -> None:
        self.now = 0.0
        (folder / "batches.json").write_bytes(msgspec.json.encode({BATCH: Batch(count, 2**40)}))
        self.claims = folder / "claims"
        self.side = Enrolment(Topics("f"), "f", folder, self.claims, lambda: self.now)

    def ask(self, seed: int, name: str = "pi-1", csr: str = "csr") -> str:
        ask = Ask.of(csr, SigningKey(seed.to_bytes(32, "big")), name, "f")
        topic = self.side.topics.ask(BATCH, ask.id)
        for answer in self.side.answer(topic, msgspec.json.encode(ask), False):
            return msgspec.json.decode(answer.payload, type=Answer).state
        return ""


def test_a_device_that_changes_its_request_again_and_again_is_written_down_at_a_bounded_rate(
    tmp_path: Path, monkeypatch
) -> None:
    desk, writes, write = Desk(tmp_path, 9), [], enrolment.write_atomically
    monkeypatch.setattr(
        enrolment, "write_atomically", lambda path, *rest, **mode: writes.append(path) or write(path, *rest, **mode)
    )
    assert [desk.ask(1, f"pi-{n}") for n in range(1000)].count("waiting") == 50 == len(writes)
    assert desk.ask(1, "pi-49") == "waiting", "nothing changed, so nothing is written"
    assert desk.ask(2) == "" and len(writes) == 50
    desk.now = 1.0
    assert desk.ask(2) == "waiting", "the next time that the device asks"


def test_a_full_batch_is_counted_seldom_and_has_room_again_when_requests_are_removed(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(enrolment, "MARGIN", 2)
    desk, counts, count = Desk(tmp_path, 1), [], Enrolment._asked_of
    monkeypatch.setattr(Enrolment, "_asked_of", lambda side, batch: counts.append(batch) or count(side, batch))
    assert [desk.ask(n) for n in range(5)] == ["waiting"] * 3 + ["refused"] * 2
    assert [desk.ask(n) for n in range(100, 200)] == ["refused"] * 100 and len(counts) == 1
    for path in desk.claims.iterdir():
        path.unlink()
    desk.now = enrolment.RECOUNT_S
    assert [desk.ask(n) for n in range(5)] == ["waiting"] * 3 + ["refused"] * 2
    assert len(counts) <= 3


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "aggregator", "viewer-x", "../a", "d/x", ""])
def test_a_name_that_no_device_can_have_is_neither_written_nor_logged_as_it_is(
    tmp_path: Path, name: str, caplog
) -> None:
    assert Desk(tmp_path, 9).ask(1, name) == ""
    assert not (tmp_path / "claims").exists()
    assert len(caplog.records) == 1 and caplog.records[0].getMessage().isprintable()
