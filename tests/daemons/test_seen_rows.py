"""What an agent remembers of masked rounds, in SQLite files that are damaged just there: it is healed, or the agent
takes part in no masked round until its owner says so. It never begins again from nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edgefl_agent import check
from edgefl_agent.__main__ import main
from edgefl_agent.agent import Agent
from edgefl_agent.checked_device import Device
from edgefl_agent.config import AgentConfig
from edgefl_agent.ledger import Entry
from edgefl_agent.store import AgentStore
from keyed import ROOT, TODAY, certificate, sealed, signed_round
from machines import FEDERATION, RUN, STATUS, TOPICS, feed, last, of
from masked_device import hear, masked_round
from masked_rounds import MANIFEST

from edgefl.checks.report import Finding, Report, run
from edgefl.device.events import Origin, Outbox, StartTraining
from edgefl.device.seen import LOST, Seen
from edgefl.hosting.store import STAMP, seal
from edgefl.machine import Connected, WallTime
from edgefl.protocol.messages import Status
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import files
from edgefl.settings.render import dump
from edgefl.trust import key_files
from edgefl.trust.ed25519 import fingerprint, to_text

HERE, THERE = fingerprint(ROOT.public), "f" * 16
SEEN = Seen(1, 1, helpers={"north": (4, "a" * 16)}, epsilon=3.25, masked_round=17, masked_run=RUN, root=HERE)
OTHER = Seen(9, 2, "b" * 16, epsilon=0.5, root=THERE)
DAMAGES = (
    "record = replace(record, 'epsilon', 'epsilom')",
    "record = x'00'",
    "record = 7",
    "record = 'text'",
    "record = zeroblob(300)",
    "record = substr(record, 1, 40)",
    "record = CAST(replace(record, '3.25', '0.25') AS BLOB)",
)


def kept(folder: Path, *seen: Seen) -> Path:
    """A state folder in which this was saved."""
    with closing(AgentStore(folder)) as store:
        for each in seen:
            store.save_seen(each)
    return folder


def loaded(folder: Path, root: str = HERE) -> Seen | None:
    with closing(AgentStore(folder)) as store:
        return store.load_seen(root)


def change(folder: Path, sql: str) -> None:
    with closing(sqlite3.connect(folder / "agent.db", isolation_level=None)) as database:
        assert database.execute(sql).rowcount > 0


def test_i19_what_a_device_has_seen_survives_a_restart(tmp_path):
    assert loaded(tmp_path) is None
    seen = Seen(3, 2, "a" * 16, 7, 40, 39, "b" * 64, "c" * 64, 1_800_000_000, root=HERE)
    assert loaded(kept(tmp_path, seen)) == seen
    assert loaded(kept(tmp_path, SEEN)) == SEEN


def test_i38_what_was_seen_of_one_root_is_nothing_to_another(tmp_path):
    """A device that moves to another federation, and comes back."""
    kept(tmp_path, SEEN)
    assert loaded(tmp_path, THERE) is None
    kept(tmp_path, OTHER)
    assert (loaded(tmp_path), loaded(tmp_path, THERE)) == (SEEN, OTHER)


@pytest.mark.parametrize("copy", [1, 2])
@pytest.mark.parametrize("damage", DAMAGES)
def test_i12_one_damaged_copy_of_what_was_seen_is_healed_from_the_other(tmp_path, damage, copy, caplog):
    change(kept(tmp_path, OTHER, SEEN), f"UPDATE seen SET {damage} WHERE root = '{HERE}' AND copy = {copy}")
    with closing(AgentStore(tmp_path)) as store:
        assert store.load_seen(HERE) == SEEN and "healed from the other" in caplog.text
        store.save_seen(SEEN)
    caplog.clear()
    assert (loaded(tmp_path), loaded(tmp_path, THERE)) == (SEEN, OTHER) and not caplog.text


@pytest.mark.parametrize("damage", DAMAGES)
def test_i38_where_both_copies_are_damaged_the_device_knows_that_it_has_forgotten(tmp_path, damage, caplog):
    change(kept(tmp_path, OTHER, SEEN), f"UPDATE seen SET {damage} WHERE root = '{HERE}'")
    assert loaded(tmp_path) == Seen(root=HERE, lost=True) and "edgefl-agent recover" in caplog.text
    assert loaded(tmp_path, THERE) == OTHER


def test_i38_plain_rounds_go_on_after_damage_and_bring_nothing_back(tmp_path):
    change(kept(tmp_path, SEEN), "UPDATE seen SET record = x'00'")
    seen = replace(loaded(tmp_path), serial=5, run=RUN, round=40).in_epoch(6, 2)
    assert loaded(kept(tmp_path, seen)) == Seen(6, 2, root=HERE, lost=True)


def entry(root: str = HERE, *, round: int = 17, epsilon: float = 3.0) -> tuple[Outbox, Entry]:
    saved = Outbox("a" * 16, round, 0, UpdateHeader.masked().to_bytes() + b"masked", attempt=1)
    origin = Origin("5" * 64, signer="key", run=RUN, epsilon=epsilon, delta=1e-5)
    return saved, Entry.of(saved, origin, 1.8e9, trusted=True, root=root)


@pytest.mark.parametrize("sql", ["DELETE FROM seen", "UPDATE seen SET root = 'x' || root"])
def test_i38_rows_that_are_gone_are_missed_where_the_ledger_has_an_update(tmp_path, sql):
    with closing(AgentStore(tmp_path)) as store:
        store.save_seen(SEEN)
        saved, made = entry()
        store.save(saved, {}, made)
    change(tmp_path, sql)
    assert loaded(tmp_path) == Seen(root=HERE, lost=True)
    assert loaded(tmp_path, THERE) is None, "to which nothing was ever sent"


def test_i38_rows_that_are_gone_are_missed_where_the_ledger_is_of_schema_4(tmp_path):
    with closing(AgentStore(tmp_path)) as store:
        store.save_seen(SEEN)
        saved, made = entry()
        store.save(saved, {}, made)
    text = f"replace(CAST(entry AS TEXT), ',\"root\":\"{HERE}\"', '')"
    change(tmp_path, f"UPDATE ledger SET entry = CAST({text} AS BLOB)")
    assert loaded(tmp_path, THERE) is None, "the update was for the root that has something"
    change(tmp_path, "DELETE FROM seen")
    assert loaded(tmp_path) == Seen(root=HERE, lost=True)


def test_i38_a_database_that_was_set_aside_is_no_new_device(tmp_path):
    file = kept(tmp_path, SEEN) / "agent.db"
    file.write_bytes(b"x" * file.stat().st_size)
    for _ in range(2):
        assert loaded(tmp_path) == Seen(root=HERE, lost=True)


def test_i12_no_flipped_bit_of_what_was_seen_is_used(tmp_path):
    """Every byte of both records in the file, one at a time, and the same one in both."""
    with closing(sqlite3.connect(kept(tmp_path / "whole", SEEN) / "agent.db")) as database:
        (record,) = database.execute("SELECT record FROM seen WHERE copy = 1").fetchone()
    whole = (tmp_path / "whole" / "agent.db").read_bytes()
    first = whole.index(record)
    second = whole.index(record, first + 1)
    for at in range(0, len(record), 7):
        for places in ((first,), (second,), (first, second)):
            data = bytearray(whole)
            for place in places:
                data[place + at] ^= 1 << at % 8
            folder = tmp_path / "copy"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            (folder / "agent.db").write_bytes(data)
            assert loaded(folder) in ((SEEN,) if len(places) < 2 else (Seen(root=HERE, lost=True),)), (at, places)


def test_an_agents_memory_of_schema_4_goes_on_for_the_first_root_that_asks(tmp_path):
    record = seal(json.dumps({"serial": 3, "epoch": 1, "epsilon": 3.25, "masked_round": 17}).encode())
    with closing(sqlite3.connect(tmp_path / "agent.db")) as database, database:
        database.execute("CREATE TABLE seen (id INTEGER PRIMARY KEY CHECK (id = 1), record BLOB NOT NULL)")
        database.execute("INSERT INTO seen VALUES (1, ?)", (record,))
        database.execute(f"PRAGMA user_version = {4 * STAMP}")
    found = loaded(tmp_path)
    assert found == Seen(3, 1, epsilon=3.25, masked_round=17, root=HERE)
    kept(tmp_path, found)
    assert (loaded(tmp_path), loaded(tmp_path, THERE)) == (found, None)


def test_a_damaged_memory_of_schema_4_is_lost_too(tmp_path):
    with closing(sqlite3.connect(tmp_path / "agent.db")) as database, database:
        database.execute("CREATE TABLE seen (id INTEGER PRIMARY KEY CHECK (id = 1), record BLOB NOT NULL)")
        database.execute("INSERT INTO seen VALUES (1, x'00')")
        database.execute(f"PRAGMA user_version = {4 * STAMP}")
    assert loaded(tmp_path) == Seen(root=HERE, lost=True)


# The agent, and what its owner does


@pytest.fixture
def config(tmp_path) -> Path:
    """agent.toml of a device with keys, whose owner has not said anything of masks."""
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "root.pub").write_text(to_text(ROOT.public) + "\n")
    key_files.write_seed(keys / "signing.key", b"a" * 32)
    (keys / "signer.json").write_bytes(certificate())
    np.savez(tmp_path / "x.npz", x=np.zeros((30, 99), np.float32), y=np.arange(30) % 10)
    table = {
        "federation": FEDERATION, "device_id": "a", "state_dir": str(tmp_path / "state"),
        "data": {"source": f"npz:{tmp_path}/x.npz"}, "keys": {"dir": str(keys)}, "mqtt": {"url": "mqtt://localhost"},
        "policy": {"plans": "any"},
    }  # fmt: skip
    (tmp_path / "agent.toml").write_text(dump(table))
    return tmp_path / "agent.toml"


def started(config: Path) -> Agent:
    """The agent, which has its manifest but no broker; it never runs."""
    agent = Agent(files.load(str(config), AgentConfig, []))
    feed(agent.machine, WallTime(TODAY), Connected(boot=7), sealed(TOPICS.manifest, MANIFEST))
    return agent


def ended(agent: Agent) -> None:
    agent._worker.close()
    agent._store.close()


def test_i38_an_agent_that_has_forgotten_takes_part_in_no_masked_round_until_its_owner_says_so(config, capsys):
    state = config.parent / "state"
    change(kept(state, SEEN), "UPDATE seen SET record = x'00'")
    agent = started(config)
    out = hear(agent.machine, masked_round(18))
    status = last(out, Status, STATUS)
    assert not of(out, StartTraining) and (status.state, status.code, status.reason) == ("trouble", "policy", LOST)
    assert "edgefl-agent recover" in LOST
    assert main(["recover", "--config", str(config)]) == 1, "beside the agent, which runs"
    assert "in use by another process" in capsys.readouterr().err
    ended(agent)

    agent = started(config)
    assert of(hear(agent.machine, signed_round(19, manifest=MANIFEST)), StartTraining), "plain rounds go on"
    ended(agent)

    with closing(AgentStore(state)) as store:
        for number, epsilon in ((16, 2.75), (17, 3.0)):
            saved, made = entry(round=number, epsilon=epsilon)
            store.save(saved, {}, made)
        saved, made = entry(THERE, round=99, epsilon=50.0)
        store.save(saved, {}, made)
        store.drop(applied=False)
    assert main(["recover", "--config", str(config)]) == 0
    assert "goes on from epsilon 3 and masked round 17" in capsys.readouterr().out
    found = loaded(state)
    assert (found.lost, found.epsilon, found.masked_round, found.masked_run) == (False, 3.0, 17, RUN)
    agent = started(config)
    assert "epsilon falls from 3 to 0" in last(hear(agent.machine, masked_round(18)), Status, STATUS).reason
    ended(agent)
    assert main(["recover", "--config", str(config)]) == 0
    assert "nothing is damaged" in capsys.readouterr().out


def checked(config: Path) -> tuple[int, Finding]:
    """Exit code and finding of `--check`, were this all that it looks at. It changes no file of the state folder, but
    that SQLite may make an empty log."""
    folder = config.parent / "state"
    content = lambda: {path: data for path in folder.glob("*[!m]") if (data := path.read_bytes())}  # noqa: E731
    before = content()
    (line,) = run({"masked": check.masked}, Device(files.load(str(config), AgentConfig, [])))
    assert before == content()
    return Report(of="agent", checks=[line]).exit_code, Finding(line.state, line.text, line.todo)


def test_check_says_what_a_device_remembers_and_that_it_has_lost_it(config):
    assert checked(config)[1].text.startswith("nothing to remember yet")
    state = config.parent / "state"
    kept(state)
    assert checked(config) == (0, ("ok", "no masked round yet", ""))
    kept(state, SEEN)
    assert checked(config) == (0, ("ok", "remembers masked round 17 and epsilon 3.25", ""))
    change(state, "UPDATE seen SET record = x'00' WHERE copy = 1")
    assert checked(config)[0] == 0, "the other copy heals it"
    change(state, "UPDATE seen SET record = x'00'")
    for _ in range(2):
        code, found = checked(config)
        assert code == 1 and found.state == "problem"
        assert f"{found.text}: {found.todo}" == LOST
        ended(started(config))  # an agent that has run since has only written down that it was lost
    assert main(["recover", "--config", str(config), "--epsilon", "3.25"]) == 0
    assert checked(config)[0] == 0


def test_check_says_it_beside_an_agent_that_runs(config):
    change(kept(config.parent / "state", SEEN), "UPDATE seen SET record = x'00'")
    agent = started(config)
    assert checked(config)[0] == 1
    ended(agent)


@pytest.mark.parametrize("at", [0, 4096])
def test_check_says_that_a_damaged_database_will_be_set_aside(config, at):
    file = kept(config.parent / "state", SEEN) / "agent.db"
    data = bytearray(file.read_bytes())
    data[at : at + 500] = b"x" * 500
    file.write_bytes(data)
    code, found = checked(config)
    assert (code, found.state) == (1, "problem") and "is damaged" in found.text and "recover" in found.todo
    ended(started(config))
    assert checked(config)[1].text + ": " + checked(config)[1].todo == LOST


def test_check_leaves_a_database_of_an_earlier_version_to_its_agent(config):
    state = config.parent / "state"
    state.mkdir()
    with closing(sqlite3.connect(state / "agent.db")) as database, database:
        database.execute("CREATE TABLE seen (id INTEGER PRIMARY KEY CHECK (id = 1), record BLOB NOT NULL)")
        database.execute(f"PRAGMA user_version = {4 * STAMP}")
    assert checked(config)[1].state == "skipped"


def test_check_has_nothing_to_say_of_a_device_without_keys(config):
    config.write_text("\n".join(line for line in config.read_text().splitlines() if "keys" not in line))
    kept(config.parent / "state")
    assert checked(config)[1].state == "skipped"


def test_recover_takes_the_operators_word_where_it_is_more_than_the_ledger_has(config, capsys):
    state = config.parent / "state"
    change(kept(state, SEEN), "UPDATE seen SET record = x'00'")
    assert main(["recover", "--config", str(config), "--epsilon", "4.5"]) == 0
    assert "epsilon 4.5 and no masked round that is known" in capsys.readouterr().out
    assert loaded(state) == Seen(epsilon=4.5, root=HERE)


@pytest.mark.parametrize("spent", ["-1", "nan", "1e13"])
def test_recover_refuses_an_epsilon_that_can_not_be(config, spent, capsys):
    kept(config.parent / "state", SEEN)
    assert main(["recover", "--config", str(config), f"--epsilon={spent}"]) == 2
    assert "--epsilon" in capsys.readouterr().err


def test_recover_says_what_is_wrong(config, tmp_path, capsys):
    assert main(["recover", "--config", str(config)]) == 1
    assert "no agent has run" in capsys.readouterr().err
    config.write_text("\n".join(line for line in config.read_text().splitlines() if "keys" not in line))
    assert main(["recover", "--config", str(config)]) == 2
    assert "no [keys]" in capsys.readouterr().err
