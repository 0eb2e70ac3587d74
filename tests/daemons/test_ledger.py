"""The owner's ledger: no update leaves without an entry, no entry changes unnoticed, and it stays bounded."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from daemons import Federation
from edgefl_agent import ledger
from edgefl_agent.__main__ import main
from edgefl_agent.ledger import MONTH_S, Entry, Reader
from edgefl_agent.store import AgentStore
from keyed_fleet import KeyedFleet

from edgefl.device.events import Origin, Outbox
from edgefl.device.seen import Seen
from edgefl.errors import StoreError
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings.render import dump

BLOB = UpdateHeader(7, 3, 0.5, 20, 100).to_bytes() + b"delta"
ORIGIN = Origin("5" * 64, norm=2.5, clipped_from=9.0, signer="key", run="f" * 16)
NOW = 1.8e9


def outbox(round: int) -> Outbox:
    return Outbox("a" * 16, round, round - 1, BLOB + bytes([round % 256]), attempt=1)


def save(store: AgentStore, round: int, unix_s: float = NOW, *, trusted: bool = True) -> None:
    store.save(outbox(round), {}, Entry.of(outbox(round), ORIGIN, unix_s, trusted=trusted))


def lines(folder: Path) -> list[tuple[int, int | None, str]]:
    """Round, bytes sent and receipt of each entry."""
    return [(line.entry.round, line.sent, line.receipt) for line in Reader(folder).lines()]


def test_an_entry_has_all_that_the_owner_may_ask(tmp_path):
    store = AgentStore(tmp_path)
    save(store, 1)
    (line,) = Reader(tmp_path).lines()
    assert line.entry == Entry(
        int(NOW), True, "f" * 16, "a" * 16, 1, 0, "train", "5" * 64, 7, len(BLOB) + 1,
        hashlib.sha256(outbox(1).blob).hexdigest(), 2.5, 9.0, "key", 0.0, 0.0, "",
    )  # fmt: skip


def test_masked_updates_are_counted_apart_with_the_bound_on_what_they_tell(tmp_path, capsys):
    store = AgentStore(tmp_path)
    save(store, 1)
    store.ledger.published(100)
    for round, epsilon in ((2, 0.5), (3, 0.75)):
        masked = Outbox("a" * 16, round, round - 1, UpdateHeader.masked().to_bytes() + b"masked", attempt=1)
        origin = Origin("5" * 64, norm=2.5, signer="key", run="f" * 16, epsilon=epsilon)
        store.save(masked, {}, Entry.of(masked, origin, NOW, trusted=True))
        store.ledger.published(50)
    store.close()
    assert [line.entry.mode for line in Reader(tmp_path).lines()] == ["train", "masked", "masked"]
    assert [line.entry.num_examples for line in Reader(tmp_path).lines()] == [7, 0, 0]
    config = tmp_path / "agent.toml"
    config.write_text(
        dump({"federation": "f", "device_id": "d", "state_dir": str(tmp_path), "mqtt": {"url": "mqtt://localhost"},
              "data": {"source": "npz:x.npz"}})
    )  # fmt: skip
    assert main(["sent", "--config", str(config)]) == 0
    shown = capsys.readouterr().out
    assert "2 of these updates were masked" in shown and "epsilon 0.75 at most" in shown
    assert Reader(tmp_path).verify()[0] == 3


HERE, THERE = "a" * 16, "b" * 16  # roots


def save_masked(store: AgentStore, root: str, round: int, epsilon: float, *, sent: int = 50, attempt: int = 1) -> None:
    blob = UpdateHeader.masked().to_bytes() + bytes([attempt])
    saved = Outbox("a" * 16, round, round - 1, blob, attempt=attempt)
    origin = Origin("5" * 64, signer="key", run="f" * 16, epsilon=epsilon, delta=1e-6)
    store.save(saved, {}, Entry.of(saved, origin, NOW, trusted=True, root=root))
    store.ledger.published(sent)


def told(config: Path, capsys) -> list[str]:
    """What `sent` says of masks and epsilon."""
    assert main(["sent", "--config", str(config)]) == 0
    return [line for line in capsys.readouterr().out.splitlines() if "masked:" in line or "epsilon" in line]


@pytest.fixture
def config(tmp_path) -> Path:
    table = {"federation": "f", "device_id": "d", "state_dir": str(tmp_path / "state"), "data": {"source": "digits"}}
    (tmp_path / "agent.toml").write_text(dump(table | {"mqtt": {"url": "mqtt://localhost"}}))
    return tmp_path / "agent.toml"


def test_i38_the_owners_epsilon_is_that_of_what_was_sent_over_restarts_and_reopened_rounds(tmp_path, config, capsys):
    for round, epsilon in ((1, 0.5), (2, 0.75)):
        store = AgentStore(tmp_path / "state")
        save_masked(store, HERE, round, epsilon)
        store.close()
    store = AgentStore(tmp_path / "state")
    save_masked(store, HERE, 2, 0.75, attempt=2)  # the round was opened again, under other terms
    store.save_seen(Seen(epsilon=9.0, root=HERE))
    save_masked(store, HERE, 3, 9.0, sent=0)  # agreed to, and never sent
    store.close()
    masked = "masked, in 2 rounds: the aggregator learns their sum with others alone, and of a sum with noise"
    assert told(config, capsys) == [f"3 of these updates were {masked}: epsilon 0.75 at most at delta 1e-06"]
    assert main(["sent", "--config", str(config), "--set", "policy.most_epsilon=8"]) == 0
    assert "most_epsilon is 8: a round that tells more is refused before" in capsys.readouterr().out


def test_i38_each_federations_root_has_an_epsilon_of_its_own(tmp_path, config, capsys):
    with closing(AgentStore(tmp_path / "state")) as store:
        save_masked(store, HERE, 5, 4.0)
        save_masked(store, THERE, 1, 0.25)
        save_masked(store, THERE, 2, 0.5)
    here, there = told(config, capsys)
    assert here.startswith(f"root {HERE}: 1 of") and "epsilon 4 at most" in here
    assert there.startswith(f"root {THERE}: 2 of") and "epsilon 0.5 at most" in there


def test_i38_the_owners_epsilon_outlasts_the_entries_that_were_cut_off(tmp_path, config, capsys):
    with closing(AgentStore(tmp_path / "state", ledger_months=1)) as store:
        store.save_seen(Seen(epsilon=4.0, root=HERE))
        save_masked(store, HERE, 5, 4.0)
        saved = Outbox("a" * 16, 6, 5, UpdateHeader.masked().to_bytes() + b"m", attempt=1)
        origin = Origin("5" * 64, signer="key", run="f" * 16)  # without noise
        store.save(saved, {}, Entry.of(saved, origin, NOW + 2 * MONTH_S, trusted=True, root=HERE))
        store.ledger.published(50)
    (line,) = told(config, capsys)
    assert line.startswith("1 of these") and "epsilon 4 at most" in line


def test_what_became_of_an_update(tmp_path):
    """Saved and not yet sent; sent twice and counted; rejected; and one that never left."""
    store = AgentStore(tmp_path)
    save(store, 1)
    assert lines(tmp_path) == [(1, None, "")], "it may leave at any moment"
    store.ledger.published(100)
    store.ledger.published(100)
    store.mark_counted(1)
    assert lines(tmp_path) == [(1, 200, "counted")]
    store.mark_counted(0)
    store.drop(applied=False)
    assert lines(tmp_path) == [(1, 200, "counted")]
    save(store, 2)
    store.ledger.published(100)
    store.drop(applied=False, receipt="rejected")
    save(store, 3)
    save(store, 4)
    store.ledger.published(7)
    store.close()
    assert lines(tmp_path) == [(1, 200, "counted"), (2, 100, "rejected"), (3, 0, ""), (4, 7, "")]


def test_the_owner_sees_that_statistics_or_scores_have_left(tmp_path, capsys):
    store = AgentStore(tmp_path / "state")
    profile = UpdateHeader(7, 0, 0.0, 0, 100, is_profile=True).to_bytes() + b"statistics"
    for round, blob in enumerate([BLOB, profile, UpdateHeader(0, 0, 0.0, 0, 100).to_bytes()], 1):
        saved = Outbox("a" * 16, round, 0, blob, attempt=1)
        store.save(saved, {}, Entry.of(saved, ORIGIN, NOW, trusted=True))
    store.close()
    table = {"federation": "f", "device_id": "a", "state_dir": str(tmp_path / "state"), "data": {"source": "digits"}}
    (tmp_path / "agent.toml").write_text(dump(table | {"mqtt": {"url": "mqtt://localhost"}}))
    assert main(["sent", "--config", str(tmp_path / "agent.toml")]) == 0
    _, *rows, _ = capsys.readouterr().out.splitlines()
    assert ["statistics" in row for row in rows] == [False, True, False]
    assert ["scores alone" in row for row in rows] == [False, False, True]


def test_an_agent_that_was_killed_leaves_what_it_sent_unknown_or_a_part_of_it(tmp_path):
    store = AgentStore(tmp_path)
    save(store, 1)
    store.ledger.published(100)
    store._db.close(), store._claim.close()  # as kill -9 does
    store = AgentStore(tmp_path)
    store.drop(applied=False)
    assert lines(tmp_path) == [(1, None, "")]
    save(store, 2)
    store._db.close(), store._claim.close()
    store = AgentStore(tmp_path)
    store.ledger.published(9)
    store.drop(applied=True, receipt="counted")
    assert lines(tmp_path)[1] == (2, 9, "counted")


def test_an_entry_is_there_exactly_if_its_update_is(tmp_path):
    """They are one transaction: no update without an entry, and no second commit for it."""
    store = AgentStore(tmp_path)
    store._db.execute("CREATE TRIGGER full BEFORE INSERT ON ledger BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(StoreError):
        save(store, 1)
    assert store.load() is None
    store._db.execute("DROP TRIGGER full")
    said = []
    store._db.set_trace_callback(said.append)
    save(store, 1)
    store.mark_counted(1)
    store.drop(applied=True, receipt="counted")
    assert sum(text.startswith("COMMIT") for text in said) == 3


def change(folder: Path, sql: str) -> None:
    with sqlite3.connect(folder / "agent.db") as database:
        database.execute(sql)


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        (
            "UPDATE ledger SET entry = replace(entry, '\"norm\":2.5', '\"norm\":0.5') WHERE number = 3",
            "entry 3 .* not what",
        ),
        ("UPDATE ledger SET hash = zeroblob(32) WHERE number = 2", "entry 2 .* not what"),
        ("DELETE FROM ledger WHERE number = 4", "lacks entry 4"),
        ("DELETE FROM ledger WHERE number = 1", "lacks entry 1"),
    ],
)
def test_an_entry_that_was_changed_or_removed_is_found(tmp_path, sql, words):
    store = AgentStore(tmp_path)
    for round in range(1, 6):
        save(store, round)
    count, head = Reader(tmp_path).verify()
    assert count == 5 and head == list(Reader(tmp_path).lines())[-1].hash
    store.close()
    change(tmp_path, sql)
    with pytest.raises(StoreError, match=words):
        Reader(tmp_path).verify()


def test_old_entries_are_cut_off_and_the_chain_goes_on(tmp_path):
    store = AgentStore(tmp_path, ledger_months=2)
    for round in range(1, 11):
        save(store, round, NOW + round * MONTH_S / 2)
    assert [round for round, *_ in lines(tmp_path)] == [6, 7, 8, 9, 10]
    assert Reader(tmp_path).verify()[0] == 5
    store.close()
    store = AgentStore(tmp_path, ledger_months=2)
    save(store, 11, NOW + 50 * MONTH_S)
    save(store, 12, 5.0, trusted=False)  # a Pi that boots in 1970
    assert [round for round, *_ in lines(tmp_path)] == [11, 12]
    save(store, 13, NOW + 51 * MONTH_S)
    assert [round for round, *_ in lines(tmp_path)] == [11, 12, 13], "its own time is not believed"
    assert Reader(tmp_path).verify()[0] == 3
    change(tmp_path, "DELETE FROM ledger WHERE number = 11")
    with pytest.raises(StoreError, match="lacks entry 11"):
        Reader(tmp_path).verify()


def test_entries_are_bounded_in_number_too_also_without_a_clock(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "MAX_ENTRIES", 50)
    store = AgentStore(tmp_path)
    for round in range(1, 200):
        save(store, round, 5.0, trusted=False)
    assert len(lines(tmp_path)) <= 50 and Reader(tmp_path).verify()[0] <= 50


def test_the_ledger_of_an_agent_is_what_it_published(tmp_path, shared_mosquitto, link, capsys):
    """The broker's view: every update that another client saw is in the ledger with its hash, and nothing else is."""
    federation = Federation(tmp_path, shared_mosquitto.url, "owned")
    seen = link(shared_mosquitto.url, "observer", session_expiry_s=0)
    seen.up()
    seen.subscribe(["edgefl/2/owned/d/a/u/+/+"])
    rounds = {"rounds": 3, "deadline_s": 10.0, "min_reports": 1, "expect": 1}
    try:
        aggregator = federation.aggregator(rounds=rounds)
        agent = federation.agent("a")
        assert aggregator.join(30.0)
        config = str(tmp_path / "a" / "agent.toml")
        assert main(["sent", "--config", config, "--json", "--verify"]) == 0  # beside the agent, which runs
        agent.stop()
    finally:
        federation.close()
    shown = capsys.readouterr()
    entries = json.loads(shown.out)
    assert "3 entries are as they were written" in shown.err and [e["round"] for e in entries] == [1, 2, 3]
    messages = [message.payload for message in seen.inbox.quiet(type(seen.heard("edgefl/2/owned/d/a/u/1/0")))]
    assert main(["sent", "--config", config, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    for entry in entries[1:]:  # heard() has taken the first message
        whole = [
            message for message in messages if hashlib.sha256(message[-entry["bytes"] :]).hexdigest() == entry["sha256"]
        ]
        assert len(whole) >= 1 and entry["sent"] == sum(map(len, whole))
    assert [entry["receipt"] for entry in entries[:2]] == ["counted"] * 2
    assert all(entry["norm"] > 0 and len(entry["run"]) == 16 and entry["trusted"] in (True, False) for entry in entries)
    assert main(["sent", "--config", config]) == 0
    table = capsys.readouterr().out
    assert table.count("\n") == 5 and "3 updates, " in table


def test_with_keys_the_ledger_names_the_signer_and_has_the_signed_update(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EDGEFL_TRUST_CLOCK", "1")
    with KeyedFleet(tmp_path) as fleet:
        fleet.enrol("pi-01", "pi-02")
        fleet.aggregator()
        for name in ("pi-01", "pi-02"):
            fleet.agent(name)
        fleet.wait(2)
        config = str(fleet.home("pi-01") / "agent.toml")
        assert main(["sent", "--config", config, "--set", f"state_dir={fleet.home('pi-01') / 'state'}", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert len(entries) >= 2 and len({entry["signer"] for entry in entries}) == 1 and entries[0]["signer"]
    assert all(entry["trusted"] for entry in entries)


def test_sent_says_what_is_wrong(tmp_path, capsys):
    table = {"federation": "f", "device_id": "a", "state_dir": f"{tmp_path}/none"}
    (tmp_path / "agent.toml").write_text(dump({**table, "mqtt": {"url": "mqtt://x"}, "data": {"source": "npz:x"}}))
    assert main(["sent", "--config", str(tmp_path / "agent.toml")]) == 1
    assert "no agent has run" in capsys.readouterr().err
    command = [sys.executable, "-m", "edgefl_agent", "sent", "--help"]
    assert "--verify" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
