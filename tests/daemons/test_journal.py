"""The journal of accepted updates, and the replay that proves a model by it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from daemons import Federation
from edgefl_broker import replay
from edgefl_broker.journal import Journal, Recorded

from edgefl import codecs, strategies
from edgefl.errors import CodecError, StoreError
from edgefl.history_record import RoundRecord
from edgefl.hosting.store import STAMP
from edgefl.settings import TrainSettings
from edgefl.strategies import Site, Strategy, Update
from edgefl.strategies.base import Part

CODEC = codecs.get("raw32")
START = np.zeros(3, np.float32)


def update(device: str, delta: float, num_examples: int = 1, staleness: int = 0) -> Update:
    return Update(device, num_examples, CODEC, CODEC.encode(np.full(3, delta, np.float32)), staleness)


def recorded(path: Path) -> tuple[Recorded, Journal]:
    journal = Journal(path)
    return Recorded(strategies.get("fedavg"), journal), journal


def ended(*rounds: int, restored: dict[int, int] | None = None) -> list[RoundRecord]:
    """The records of rounds that each made the version of their number."""
    back = restored or {}
    return [
        RoundRecord(n, "rollback" if n in back else "committed", n, 1, [], 1, None, 0, 0, 0.0, restored=back.get(n))
        for n in rounds
    ]


def run_round(strategy: Recorded, params: np.ndarray, round: int, *updates: Update) -> np.ndarray:
    strategy.start(params, round)
    for one in updates:
        strategy.add(one)
    return strategy.finish()


def test_i02_the_replay_makes_the_same_bits(tmp_path: Path) -> None:
    strategy, journal = recorded(tmp_path / "journal.db")
    first = run_round(strategy, START, 1, update("a", 0.1, 7), update("b", -0.3, 5))
    second = run_round(strategy, first, 2, update("b", 1 / 3, 9), update("a", 0.7, 40, staleness=2))
    journal.close()
    again = replay.replay(Journal(tmp_path / "journal.db"), ended(1, 2), strategies.get("fedavg"), CODEC, START)
    assert again.tobytes() == second.tobytes() != first.tobytes()


def test_i02_the_replay_has_the_side_vectors_as_devices_decoded_them(tmp_path: Path) -> None:
    """SCAFFOLD's next control variate depends on what a lossy downlink made of this one."""

    def scaffold() -> strategies.Strategy:
        made = strategies.get("scaffold")
        made.defaults(TrainSettings())
        made.prepare(Site(3, 3, devices=2))
        return made

    whole, params = scaffold(), START
    strategy = Recorded(whole, Journal(tmp_path / "journal.db"))
    for round in (1, 2, 3):
        strategy.shown({"control": np.float32(0.75) * strategy.broadcast()["control"]})
        one, other = (replace(update(d, 0.1 * round, 5), steps=1, loss=0.5) for d in "ab")
        params = run_round(strategy, params, round, one, other)
    again = scaffold()
    made = replay.replay(Journal(tmp_path / "journal.db"), ended(1, 2, 3), again, CODEC, START)
    assert made.tobytes() == params.tobytes()
    assert again.state()["control"].tobytes() == whole.state()["control"].tobytes() != b""
    assert (whole.state()["control"] != -3).all(), "which it is where devices decode all of it"


def test_i02_the_replay_has_the_side_vectors_that_devices_sent(tmp_path: Path) -> None:
    """Mime-lite's momentum is of the gradients behind the deltas."""

    def mime_lite() -> strategies.Strategy:
        made = strategies.get("mime-lite", beta=0.5)
        made.defaults(TrainSettings())
        made.prepare(Site(3, 3))
        return made

    def sent(device: str, delta: float) -> Update:
        payload = CODEC.encode(np.repeat(np.float32([delta, 2 * delta]), 3))
        return Update(device, 5, CODEC, payload, steps=1, loss=0.5)

    whole, params = mime_lite(), START
    strategy = Recorded(whole, Journal(tmp_path / "journal.db"))
    assert strategy.sent_sides == whole.sent_sides
    for round in (1, 2, 3):
        strategy.shown(strategy.broadcast())
        params = run_round(strategy, params, round, sent("a", 0.1 * round), sent("b", -0.3))
    again = mime_lite()
    made = replay.replay(Journal(tmp_path / "journal.db"), ended(1, 2, 3), again, CODEC, START)
    assert made.tobytes() == params.tobytes()
    assert again.state()["momentum"].tobytes() == whole.state()["momentum"].tobytes() != b""


def test_a_journal_does_not_change_what_bounds_influence(tmp_path: Path) -> None:
    """FedNova's bound is on deltas by the step, also while a journal is kept."""
    whole = strategies.get("fednova")
    whole.defaults(TrainSettings(epochs=1, batch_size=1))
    strategy = Recorded(whole, Journal(tmp_path / "journal.db"))
    assert (strategy.reach(4), strategy.weigh(4)) == (whole.reach(4), whole.weigh(4)) == (0.25, 4)
    methods = {name for name in vars(Strategy) | vars(Part) if not name.startswith("_")} - {"begin"}
    left_out = {name for name in methods if callable(getattr(Strategy, name)) and name not in vars(Recorded)}
    assert not left_out, "the base class answers these, and not the strategy"


def test_i02_the_replay_goes_back_where_the_operator_did(tmp_path: Path) -> None:
    strategy = Recorded(strategies.get("fedavgm"), Journal(tmp_path / "journal.db"))
    first, state = run_round(strategy, START, 1, update("a", 0.1, 7)), strategy.state()
    run_round(strategy, first, 2, update("a", 9.0, 7))
    strategy.restore(state)  # round 3 rolls back to version 1
    last = run_round(strategy, first, 4, update("b", 0.5, 3))
    journal = Journal(tmp_path / "journal.db")
    records = ended(1, 2, 3, 4, restored={3: 1})
    again = replay.replay(journal, records, strategies.get("fedavgm"), CODEC, START)
    assert again.tobytes() == last.tobytes()


def test_a_round_that_is_opened_again_forgets_its_first_attempt(tmp_path: Path) -> None:
    """After kill -9 between the journal's commit and the round's; and while its updates came in."""
    strategy, journal = recorded(tmp_path / "journal.db")
    run_round(strategy, START, 1, update("a", 9.0))
    journal.close()
    strategy, journal = recorded(tmp_path / "journal.db")
    strategy.start(START, 1)
    strategy.add(update("a", 8.0))
    journal.close()
    strategy, journal = recorded(tmp_path / "journal.db")
    params = run_round(strategy, START, 1, update("a", 1.0), update("b", 3.0))
    assert [u.device for u in journal.updates(1, CODEC)] == ["a", "b"]
    assert replay.replay(journal, ended(1), strategies.get("fedavg"), CODEC, START).tobytes() == params.tobytes()


def test_an_update_that_is_refused_is_not_in_the_journal(tmp_path: Path) -> None:
    strategy, journal = recorded(tmp_path / "journal.db")
    strategy.start(START, 1)
    with pytest.raises(CodecError):
        strategy.add(Update("a", 1, CODEC, CODEC.encode(np.full(3, np.inf, np.float32))))
    strategy.add(update("b", 1.0))
    strategy.finish()
    assert [u.device for u in journal.updates(1, CODEC)] == ["b"]


def test_a_round_that_began_elsewhere_or_is_not_there_is_named(tmp_path: Path) -> None:
    strategy, journal = recorded(tmp_path / "journal.db")
    run_round(strategy, START + 1, 1, update("a", 1.0))
    for number, start in ((1, START), (2, START + 1)):
        with pytest.raises(StoreError, match=f"no round {number} that begins"):
            replay.replay(journal, ended(number), strategies.get("fedavg"), CODEC, start)


@pytest.mark.parametrize("codec", ["raw32", "ecq"])
def test_a_federations_model_is_proven_by_its_journal(
    embedded: object, federation: Callable[..., Federation], codec: str, capsys: pytest.CaptureFixture
) -> None:
    fleet = federation(embedded.url)  # type: ignore[attr-defined]
    aggregator = fleet.aggregator(journal=str(fleet.folder / "journal.db"), codec={"name": codec})
    for device in ("dev-a", "dev-b"):
        fleet.agent(device)
    assert aggregator.join()
    words = ["--config", str(fleet.folder / "aggregator.toml")]
    assert replay.main(words) == 0
    assert "version 3 is, bit for bit, what 3 rounds make of the start" in capsys.readouterr().out
    journal = Journal(fleet.folder / "journal.db")
    journal._db.execute("UPDATE updates SET num_examples = num_examples + 1 WHERE round = 3 AND device = 'dev-a'")
    journal.close()
    assert replay.main(words) == 1
    assert "version 3 is not what the 3 committed rounds" in capsys.readouterr().err


def test_without_a_journal_there_is_nothing_to_prove(
    embedded: object, federation: Callable[..., Federation], capsys: pytest.CaptureFixture
) -> None:
    fleet = federation(embedded.url)  # type: ignore[attr-defined]
    assert replay.main(["--config", str(fleet.write_aggregator())]) == 2
    assert "there is no journal" in capsys.readouterr().err


def test_what_a_device_says_of_its_training_is_in_the_journal(tmp_path: Path) -> None:
    strategy, journal = recorded(tmp_path / "journal.db")
    said = replace(update("a", 1.0, 3), steps=7, loss=0.1, claimed=30, start_loss=0.3, allowed=5)
    run_round(strategy, START, 1, said, update("b", 1.0))
    first, second = journal.updates(1, CODEC)
    assert (first.steps, first.loss, first.claimed, first.examples, first.start_loss, first.allowed) == (
        7,
        0.1,
        30,
        30,
        0.3,
        5,
    )
    assert (second.steps, second.loss, second.claimed, second.examples) == (0, None, None, 1)


def test_a_journal_from_before_these_were_in_it_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(
            "CREATE TABLE rounds (round INTEGER PRIMARY KEY, before TEXT NOT NULL);"
            "CREATE TABLE updates (round INTEGER NOT NULL, device TEXT NOT NULL, num_examples INTEGER NOT NULL, "
            "staleness INTEGER NOT NULL, payload BLOB NOT NULL);"
            f"INSERT INTO updates VALUES (1, 'a', 3, 0, x'{CODEC.encode(START).hex()}');"
            f"PRAGMA user_version = {STAMP};"
        )
    strategy, journal = recorded(path)
    (before,) = journal.updates(1, CODEC)
    assert (before.num_examples, before.steps, before.loss, before.claimed, before.start_loss) == (3, 0, *[None] * 3)
    run_round(strategy, START, 2, replace(update("a", 1.0), steps=2))
    assert [one.steps for one in journal.updates(2, CODEC)] == [2]
