"""The device's disk: update and residual change together or not at all, and the agent's SQLite does what Disk says."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from edgefl_agent.store import AgentStore
from hypothesis import given, settings
from hypothesis import strategies as st
from kept import residual, slot
from machines import make_manifest
from msgspec.structs import replace

from edgefl.device.events import Outbox
from edgefl.device.owner.budget import Spent
from edgefl.device.slots import KEPT, OUTLASTING, Slot
from edgefl.simulation.hosts.disk import Disk

RUNS = ["a" * 16, "b" * 16]
LEFT = np.arange(3, dtype="<f4").tobytes()


def outbox(round: int, manifest: str = RUNS[0]) -> Outbox:
    return Outbox(manifest, round, round - 1, b"update %d" % round, attempt=round)


def slots(store: AgentStore) -> dict[str, Slot]:
    found = {name: store.load_slot(name) for name in KEPT}
    return {name: slot for name, slot in found.items() if slot is not None}


def state(store: AgentStore) -> tuple[Outbox | None, dict[str, Slot]]:
    return store.load(), slots(store)


def left(round: int, blob: bytes = LEFT) -> dict[str, Slot]:
    return {"residual": slot(blob, round, RUNS[0]), "control": slot(b"c" + blob, round, RUNS[0])}


def test_slots_become_the_devices_own_when_their_update_is_applied(tmp_path: Path) -> None:
    store = AgentStore(tmp_path)
    store.save(outbox(1), left(1))
    assert state(store) == (outbox(1), {})
    store.drop(applied=True)
    assert state(store) == (None, left(1))
    store.save(outbox(2), left(2, b"lost"))
    assert slots(store) == left(1)
    store.drop(applied=False)
    assert state(store) == (None, left(1))
    store.save(outbox(3), residual(LEFT, 3, RUNS[0]))
    store.drop(applied=True)
    assert state(store) == (None, residual(LEFT, 3, RUNS[0])), "a slot that the update did not have is gone"
    store.save(outbox(4), {})
    store.drop(applied=True)
    assert state(store) == (None, {})


class Steps:
    """What a session may ask, in an order that it keeps: a new update only where the one before was dropped."""

    save = st.tuples(st.sampled_from(RUNS), st.sets(st.sampled_from(sorted(KEPT))))
    after = st.lists(st.sampled_from(["mark", "restart", "damage"]), max_size=3)
    rounds = st.lists(st.tuples(save, after, st.booleans()), max_size=8)


@settings(max_examples=25, deadline=None)
@given(rounds=Steps.rounds)
def test_the_agents_store_is_the_simulated_disk(rounds):
    with tempfile.TemporaryDirectory() as folder:
        store, disk = AgentStore(Path(folder)), Disk()
        for round, ((manifest, names), after, applied) in enumerate(rounds, 1):
            update = outbox(round, manifest)
            for each in (store, disk):
                each.save(update, {name: slot(b"left by %d" % round, round, manifest) for name in names})
            for step in after:
                if step == "restart":
                    store.close()
                    store = AgentStore(Path(folder))
                elif step == "damage":
                    store._db.execute("UPDATE outbox SET version = version + 1")
                    store.load()
                    disk.damaged()
                elif disk.outbox is not None:
                    for each in (store, disk):
                        each.mark_counted(round % 3)
                assert state(store) == (disk.outbox, disk.slots)
            for each in (store, disk):
                each.drop(applied and disk.outbox is not None)
            assert state(store) == (disk.outbox, disk.slots)
            assert rows(Path(folder)) == len(disk.slots)
        store.close()


def rows(folder: Path) -> int:
    with sqlite3.connect(folder / "agent.db") as database:
        return database.execute("SELECT count(*) FROM slot").fetchone()[0]


KILLED = """
import os, signal, sys
from pathlib import Path
from edgefl.device.owner.budget import Spent
from edgefl.device.events import Outbox
from edgefl.device.slots import KEPT, OUTLASTING, Slot
from edgefl_agent.store import AgentStore

folder, step = Path(sys.argv[1]), sys.argv[2]
for ops in range(1, 10_000):
    if os.fork() == 0:
        store = AgentStore(folder)
        left = [ops]
        def kill():
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
        store._db.set_progress_handler(kill, 1)
        slots = {name: Slot("a" * 16, 2, b"left by 2" * 2000, 0) for name in KEPT}
        {"save": lambda: store.save(Outbox("a" * 16, 2, 1, b"update 2"), slots),
         "applied": lambda: store.drop(True), "lost": lambda: store.drop(False)}[step]()
        store._db.set_progress_handler(None, 0)
        os._exit(0)
    status = os.wait()[1]
    survived = AgentStore(folder)
    rounds = [survived.load_slot(name).round for name in KEPT]
    print(survived.load() is not None, *rounds, flush=True)
    survived.close()
    if status == 0:
        break
"""
BEFORE_AND_AFTER = {  # whether an update is saved, and of which round each current slot is
    "save": (["False 1 1 1 1"], ["True 1 1 1 1"]),
    "applied": (["True 1 1 1 1"], ["False 2 2 2 2"]),
    "lost": (["True 1 1 1 1"], ["False 1 1 1 1"]),
}


@pytest.mark.parametrize("step", BEFORE_AND_AFTER)
def test_i11_kill_9_at_any_instruction_of_a_transaction_leaves_the_state_before_or_after(tmp_path: Path, step: str):
    store = AgentStore(tmp_path)
    store.save(outbox(1), {name: slot(LEFT, 1, RUNS[0]) for name in KEPT})
    store.drop(applied=True)
    if step != "save":
        store.save(outbox(2), {name: slot(b"left by 2" * 2000, 2, RUNS[0]) for name in KEPT})
    store.close()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), step], capture_output=True, text=True, timeout=120,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = BEFORE_AND_AFTER[step]
    seen = done.stdout.splitlines()
    first = seen.index(*after)
    assert first > 10
    assert seen == before * first + after * (len(seen) - first)


@pytest.mark.parametrize("damage", ["blob = zeroblob(12)", "blob = substr(blob, 5)", "crc = crc + 1"])
@pytest.mark.parametrize("name", KEPT)
def test_i12_a_damaged_slot_is_not_trained_on(tmp_path: Path, name: str, damage: str) -> None:
    store, manifest = AgentStore(tmp_path), make_manifest()
    store.save(outbox(1, manifest.id), {name: Slot.of(name, manifest, 1, LEFT)})
    store.drop(applied=True)
    assert store.load_slot(name).blob == LEFT and not store.load_slot(name).unusable(name, manifest, 2)
    store._db.execute(f"UPDATE slot SET {damage}")
    assert store.load_slot(name).unusable(name, manifest, 2) == "damaged"


@pytest.mark.parametrize("damage", ["blob = x'75706461746521'", "round = 2", "version = 7", f"manifest = '{RUNS[1]}'"])
def test_i12_a_damaged_update_is_not_sent(tmp_path: Path, damage: str, caplog) -> None:
    """Found by simulation: it would have been counted, for what is sent is checked against the damaged bytes."""
    store = AgentStore(tmp_path)
    store.save(outbox(1), left(1))
    store._db.execute(f"UPDATE outbox SET {damage}")
    assert state(store) == (None, {})
    assert "damaged" in caplog.text
    store.save(outbox(1), {})
    assert state(store) == (outbox(1), {})


def test_what_is_personal_outlasts_a_damaged_update_and_nothing_else_does(tmp_path: Path) -> None:
    """Nobody knows whether the update counted: what depends on that begins anew."""
    store = AgentStore(tmp_path)
    store.save(outbox(1), {name: slot(b"1", 1) for name in KEPT})
    store.drop(applied=True)
    store.save(outbox(2), {name: slot(b"2", 2) for name in KEPT})
    store._db.execute("UPDATE outbox SET version = 7")
    assert state(store) == (None, {name: slot(b"1", 1) for name in OUTLASTING})
    assert OUTLASTING == ("personal",)
    store.close()


@pytest.mark.parametrize(
    "change", ["blob = 7", "blob = 'text'", "round = 'x'", "round = 0.5", "crc = x'00'", "owner = x'ff'"]
)
def test_i12_a_slot_whose_types_are_damaged_is_none(tmp_path: Path, change: str, caplog) -> None:
    store = AgentStore(tmp_path)
    store.save(outbox(1), left(1))
    store.drop(applied=True)
    store._db.execute("CREATE TABLE other (name, new, owner, round, crc, blob)")  # without types that SQLite restores
    store._db.execute("INSERT INTO other SELECT * FROM slot")
    store._db.execute("DROP TABLE slot")
    store._db.execute("ALTER TABLE other RENAME TO slot")
    store._db.execute(f"UPDATE slot SET {change}")
    assert store.load_slot("residual") is None
    assert "the residual" in caplog.text
    store.close()


def test_i12_a_number_whose_type_is_damaged_is_none(tmp_path: Path) -> None:
    store = AgentStore(tmp_path)
    store.save(outbox(1), {})
    for key in ("counted", "attempt", "stamp", "in_model"):
        store._set_number(key, 0)
        store._db.execute("UPDATE meta SET value = x'7f' WHERE key = ?", (key,))
    assert store.load_in_model() == 0
    assert store.load() is None, "its attempt is covered by the CRC"
    store.close()


def test_a_slot_that_can_not_be_read_is_none(tmp_path: Path, caplog) -> None:
    store = AgentStore(tmp_path)
    store._db.execute("DROP TABLE slot")
    assert store.load_slot("residual") is None
    assert "going on without it" in caplog.text


def test_a_state_folder_of_before_error_feedback_is_taken_over(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "agent.db") as old:
        old.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL)")
        old.execute(
            "CREATE TABLE outbox (id INTEGER PRIMARY KEY CHECK (id = 1), manifest TEXT NOT NULL, "
            "round INTEGER NOT NULL, version INTEGER NOT NULL, blob BLOB NOT NULL)"
        )
        old.execute("INSERT INTO outbox VALUES (1, ?, 1, 0, ?)", (RUNS[0], b"update 1"))
    assert state(AgentStore(tmp_path)) == (replace(outbox(1), attempt=0), {})


def test_what_is_spent_of_the_byte_budget_is_kept_and_a_damaged_number_starts_it_anew(tmp_path: Path) -> None:
    store = AgentStore(tmp_path)
    assert store.load_spent() == Spent()
    spent = Spent(day=739_777, since=1_781_092_800, today=2**40, this_month=2**41)
    store.save_spent(spent)
    store.close()
    store = AgentStore(tmp_path)
    assert store.load_spent() == spent
    store._db.execute("UPDATE meta SET value = 'x' WHERE key = 'spent_today'")
    assert store.load_spent() == Spent()


@pytest.mark.parametrize("damage", [-5, 2**40, "x", b"x"])
def test_i12_a_damaged_count_of_starts_goes_on_above_all_that_were_told(tmp_path, damage, caplog):
    """Found by fuzzing: a negative number made boot numbers that no aggregator reads."""
    with closing(AgentStore(tmp_path)) as store:
        assert [store.count_start(), store.count_start()] == [1, 2]
    with closing(sqlite3.connect(tmp_path / "agent.db", isolation_level=None)) as database:
        database.execute("UPDATE meta SET value = ? WHERE key = 'starts'", (damage,))
    with closing(AgentStore(tmp_path)) as store:
        first = store.count_start()
        assert 1.7e9 < first < 2**32 and store.count_start() == first + 1
    assert "count of starts" in caplog.text
