"""What an agent remembers of masked rounds, in SQLite files that are damaged just there: it is healed, or the agent
takes part in no masked round until its owner says so. It never begins again from nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
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
from edgefl.hosting.store import STAMP, seal, set_aside
from edgefl.machine import Connected, WallTime
from edgefl.protocol.messages import Status
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import files
from edgefl.settings.render import dump
from edgefl.trust import key_files
from edgefl.trust.ed25519 import fingerprint, to_text

PAGE = 4096  # of SQLite
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


def test_check_says_that_memory_is_lost_where_a_database_was_set_aside_and_none_is_there_yet(config):
    """As after a power cut between the two."""
    file = kept(config.parent / "state", SEEN) / "agent.db"
    file.rename(file.with_name("agent.damaged-812-1"))
    code, found = checked(config)
    assert code == 1 and f"{found.text}: {found.todo}" == LOST
    assert main(["recover", "--config", str(config)]) == 0
    assert checked(config) == (0, ("ok", "remembers masked round 17 and epsilon 3.25", ""))


@pytest.mark.parametrize("empty", [b"", b"x"])
def test_recover_takes_nothing_from_a_file_that_is_no_database(config, empty):
    state = config.parent / "state"
    kept(state)
    (state / "agent.damaged-812-1").write_bytes(empty)
    code, text = told(config)
    assert code == 1 and "agent.damaged-812-1: nothing of masked rounds" in text and "--epsilon E" in text
    assert told(config, "--epsilon", "1.5")[0] == 0 and loaded(state) == Seen(epsilon=1.5, root=HERE)


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


def garbled(state: Path, page: int) -> Path:
    """agent.db, a page of which was overwritten; pages are counted from 1."""
    file = state / "agent.db"
    data = bytearray(file.read_bytes())
    data[(page - 1) * PAGE : page * PAGE] = b"x" * PAGE
    file.write_bytes(data)
    return file


def page_of(state: Path, table: str) -> int:
    with closing(sqlite3.connect(state / "agent.db")) as database:
        (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    return page


def told(config: Path, *words: str) -> tuple[int, str]:
    """Exit code of `recover`, and what it prints."""
    out = subprocess.run(
        [sys.executable, "-m", "edgefl_agent", "recover", "--config", str(config), *words],
        capture_output=True,
        text=True,
    )
    return out.returncode, out.stdout + out.stderr


def test_recover_finds_the_memory_of_a_database_that_was_set_aside(config):
    state = config.parent / "state"
    kept(state, OTHER, SEEN)
    garbled(state, page_of(state, "slot"))
    ended(started(config))
    kept(state, replace(loaded(state), serial=5, epoch=1, run=RUN, round=40))  # plain rounds went on
    assert loaded(state).lost
    code, text = told(config)
    assert code == 0 and "its memory has epsilon 3.25 and masked round 17" in text and "agent.damaged-" in text
    assert "agent.db: nothing of masked rounds" in text and "goes on from epsilon 3.25 and masked round 17" in text
    assert loaded(state) == replace(SEEN, serial=5, run=RUN, round=40)
    assert loaded(state, THERE).lost, "what is of another root is its owner's to recover"


def test_recover_reads_the_log_of_a_database_that_was_set_aside(config):
    """A power cut leaves what was written last in the log, and the log stays when the database's head is damaged."""
    state = config.parent / "state"
    kept(state, replace(SEEN, epsilon=1.0, masked_round=5))
    store = AgentStore(state)
    store.save_seen(SEEN)
    for name in ("agent.db", "agent.db-wal"):
        shutil.copy(state / name, state / f"copy-{name}")
    store.close()
    for name in ("agent.db", "agent.db-wal"):
        (state / f"copy-{name}").rename(state / name)
    garbled(state, page_of(state, "slot"))
    code, text = told(config)
    assert code == 0 and "goes on from epsilon 3.25 and masked round 17" in text
    assert loaded(state) == SEEN


def test_recover_reads_the_ledger_of_a_database_that_was_set_aside(config):
    state = config.parent / "state"
    kept(state, SEEN)
    with closing(AgentStore(state)) as store:
        for number, epsilon in ((16, 2.75), (17, 3.0)):
            saved, made = entry(round=number, epsilon=epsilon)
            store.save(saved, {}, made)
    garbled(state, page_of(state, "seen"))
    code, text = told(config)
    assert code == 0 and "its ledger has epsilon 3 and masked round 17" in text and "its memory can't be read" in text
    assert "which keys of helpers were replaced is forgotten" in text
    assert loaded(state) == Seen(epsilon=3.0, masked_round=17, masked_run=RUN, root=HERE)


def test_recover_takes_the_highest_of_all_that_was_set_aside(config):
    """By one process number, as in a container, none is put in the place of another."""
    state = config.parent / "state"
    for epsilon, number in ((3.25, 17), (1.0, 3)):
        kept(state, replace(SEEN, epsilon=epsilon, masked_round=number))
        garbled(state, page_of(state, "slot"))
        assert loaded(state).lost
    assert len(set_aside(state / "agent.db")) == 2
    code, text = told(config)
    assert code == 0 and "goes on from epsilon 3.25 and masked round 17" in text


def test_recover_goes_on_from_nothing_only_if_its_owner_says_what_was_spent(config):
    state = config.parent / "state"
    garbled(kept(state, SEEN), 1)
    for _ in range(2):
        code, text = told(config)
        assert code == 1 and "nothing of what this device remembered can be read" in text and "--epsilon" in text
        assert "its memory can't be read (file is not a database)" in text and loaded(state).lost
    code, text = told(config, "--epsilon", "0")
    assert code == 0 and "goes on from epsilon 0 and no masked round" in text and "are believed again" in text


def test_i38_whichever_page_is_damaged_recover_has_all_or_refuses(config):
    state = config.parent / "state"
    with closing(AgentStore(kept(state, SEEN))) as store:
        saved, made = entry(epsilon=SEEN.epsilon)
        store.save(saved, {}, made)
    whole = (state / "agent.db").read_bytes()
    outcomes = set()
    for page in range(1, len(whole) // PAGE + 1):
        shutil.rmtree(state)
        state.mkdir()
        (state / "agent.db").write_bytes(whole)
        garbled(state, page)
        code = main(["recover", "--config", str(config)])
        found = loaded(state)
        outcomes.add((code, found.lost))
        assert (code, found.lost) in ((0, False), (1, True)), page
        assert found.lost or (found.epsilon, found.masked_round) == (3.25, 17), page
    assert len(outcomes) == 2


def test_two_records_of_one_root_know_together_what_each_knows():
    old = Seen(
        4, 2, RUN, 1, 9, 8, "a" * 64, helpers={"north": (4, "a"), "south": (1, "b")}, epsilon=3.0, masked_round=9
    )
    old = replace(old, masked_run=RUN)
    new = Seen(2, 3, "c" * 16, 1, 2, 1, helpers={"north": (3, "c"), "east": (7, "d")}, epsilon=1.0)
    both = old.joined(new)
    assert (both.epoch, both.serial, both.run, both.round) == (3, 2, "c" * 16, 2)
    assert both.helpers == {"north": (4, "a"), "south": (1, "b"), "east": (7, "d")}
    assert (both.epsilon, both.masked_run, both.masked_round) == (3.0, RUN, 9)
    assert new.joined(old) == both
    later = replace(new, masked_run="c" * 16, masked_round=2)
    assert (old.joined(later).masked_run, old.joined(later).masked_round) == ("c" * 16, 2)
    assert old.joined(replace(old, serial=9, round=3, masked_round=3)) == replace(old, serial=9)


def test_i38_what_was_spent_may_be_said_after_recover_has_said_that_it_may_be_more(config):
    """It only rises, and nothing else changes."""
    state = config.parent / "state"
    kept(state, SEEN)
    garbled(state, page_of(state, "ledger"))
    code, text = told(config)
    assert code == 0 and "more may have been spent" in text and loaded(state).epsilon == SEEN.epsilon
    for spent, highest in (("8", 8.0), ("2", 8.0)):
        code, text = told(config, "--epsilon", spent)
        assert (code, loaded(state)) == (0, replace(SEEN, epsilon=highest)) and "nothing is damaged" in text
        assert ("goes on from epsilon 8 and masked round 17" in text) == (spent == "8")


def test_the_owner_of_a_new_device_may_say_what_was_spent(config):
    kept(config.parent / "state")
    assert told(config, "--epsilon", "2.5")[0] == 0
    assert loaded(config.parent / "state") == Seen(epsilon=2.5, root=HERE)


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
