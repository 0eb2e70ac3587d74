"""State on disk from other versions: an older one is migrated or refused by name, a newer one is refused."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from edgefl_agent.store import AgentStore
from edgefl_broker.store import AggregatorStore

from edgefl._core import crc32c
from edgefl.core.params import params_sha256
from edgefl.device.events import Outbox
from edgefl.device.slots import Slot
from edgefl.errors import StoreError
from edgefl.hosting.store import STAMP, Schema, open_database

PARAMS = np.arange(4, dtype=np.float32)
STORES = {"agent.db": AgentStore, "aggregator.db": AggregatorStore}
NUMBERS = {"agent.db": 5, "aggregator.db": 2}

# As the first version wrote them, before there were numbers.
OLD_AGENT = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    manifest TEXT NOT NULL, round INTEGER NOT NULL, version INTEGER NOT NULL, blob BLOB NOT NULL
);
CREATE TABLE residual (
    round INTEGER PRIMARY KEY, manifest TEXT NOT NULL, crc INTEGER NOT NULL, blob BLOB NOT NULL
);
INSERT INTO meta VALUES ('starts', 7);
INSERT INTO outbox VALUES (1, 'mmmmmmmmmmmmmmmm', 3, 2, x'616263');
"""
OLD_AGGREGATOR = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE rounds (round INTEGER PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE models (version INTEGER PRIMARY KEY, sha256 TEXT NOT NULL, params BLOB NOT NULL);
CREATE TABLE late (
    device TEXT NOT NULL, round INTEGER NOT NULL, version INTEGER NOT NULL, codec INTEGER NOT NULL, blob BLOB NOT NULL,
    crc INTEGER NOT NULL
);
INSERT INTO meta VALUES ('run', '0123456789abcdef');
"""


def number_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("PRAGMA user_version").fetchone()[0] // STAMP


def write(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.executescript(sql)


@pytest.mark.parametrize("name", STORES)
def test_a_new_database_has_the_number_of_its_schema(tmp_path: Path, name: str) -> None:
    for _ in range(2):
        STORES[name](tmp_path).close()
        assert number_of(tmp_path / name) == NUMBERS[name]


def test_an_agents_state_of_the_first_version_goes_on(tmp_path: Path) -> None:
    write(tmp_path / "agent.db", OLD_AGENT)
    store = AgentStore(tmp_path)
    assert store.count_start() == 8
    assert store.load() == Outbox("m" * 16, 3, 2, b"abc")
    store.close()
    assert number_of(tmp_path / "agent.db") == NUMBERS["agent.db"]


def test_the_residuals_of_an_agent_are_its_slots_from_then_on(tmp_path: Path) -> None:
    """Schema 3: the saved update's round told which of two residuals was new."""
    left = ((2, b"of round 2"), (3, b"of round 3"))
    write(tmp_path / "agent.db", OLD_AGENT)
    with closing(sqlite3.connect(tmp_path / "agent.db")) as database, database:
        rows = [(round, "m" * 16, crc32c(blob), blob) for round, blob in left]
        database.executemany("INSERT INTO residual VALUES (?, ?, ?, ?)", rows)
        database.execute(f"PRAGMA user_version = {3 * STAMP}")
    for applied, (round, blob) in ((False, left[0]), (True, left[1])):
        shutil.copytree(tmp_path, folder := tmp_path.with_name(f"{tmp_path.name}-{applied}"))
        store = AgentStore(folder)
        assert store.load_slot("residual") == Slot("m" * 16, *left[0], crc32c(left[0][1]))
        store.drop(applied)
        assert store.load_slot("residual") == Slot("m" * 16, round, blob, crc32c(blob))
        store.close()


def test_an_aggregators_state_of_the_first_version_is_migrated(tmp_path: Path) -> None:
    blob = PARAMS + 1
    write(tmp_path / "aggregator.db", OLD_AGGREGATOR)
    with closing(sqlite3.connect(tmp_path / "aggregator.db")) as database, database:
        database.execute("INSERT INTO models VALUES (5, ?, ?)", (params_sha256(blob), blob.tobytes()))
    store = AggregatorStore(tmp_path)
    state = store.resume("plan", PARAMS)
    assert (state.run, state.version, state.params.tobytes(), state.state) == (
        "0" + "123456789abcdef",
        5,
        blob.tobytes(),
        {},
    )
    store.close()
    assert number_of(tmp_path / "aggregator.db") == NUMBERS["aggregator.db"]


@pytest.mark.parametrize("name", STORES)
def test_a_newer_database_is_refused_by_name_and_left_alone(tmp_path: Path, name: str) -> None:
    STORES[name](tmp_path).close()
    write(tmp_path / name, f"PRAGMA user_version = {9 * STAMP};")
    before = (tmp_path / name).read_bytes()
    reads = NUMBERS[name]
    with pytest.raises(
        StoreError, match=rf"{name} was written by a newer EdgeFL \(schema 9, this one reads {reads}\): update"
    ):
        STORES[name](tmp_path)
    assert (tmp_path / name).read_bytes() == before


def test_an_older_database_that_can_not_be_migrated_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    open_database(path, Schema(1, "CREATE TABLE IF NOT EXISTS a (x);", {}), replaceable=True).close()
    with pytest.raises(StoreError, match=r"some.db was written by an older EdgeFL \(schema 1, .*can't migrate 1\)"):
        open_database(path, Schema(3, "CREATE TABLE IF NOT EXISTS a (x, y);", {2: "SELECT 1;"}), replaceable=True)
    assert number_of(path) == 1


def test_migrations_are_done_in_order_and_at_once(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    open_database(path, Schema(1, "CREATE TABLE IF NOT EXISTS a (x);", {}), replaceable=False).close()
    steps = {1: "ALTER TABLE a ADD COLUMN y;", 2: "UPDATE a SET z = 1;"}
    with pytest.raises(StoreError, match="no such column"):  # the second step fails
        open_database(path, Schema(3, "", steps), replaceable=False)
    assert number_of(path) == 1
    steps[2] = "ALTER TABLE a RENAME COLUMN y TO z;"
    database = open_database(path, Schema(3, "", steps), replaceable=False)
    assert [row[1] for row in database.execute("PRAGMA table_info(a)")] == ["x", "z"]
    database.close()
    assert number_of(path) == 3


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("bit", range(32))
def test_i12_a_flipped_bit_in_the_number_is_damage(tmp_path: Path, name: str, bit: int) -> None:
    make: Callable[[Path], AgentStore | AggregatorStore] = STORES[name]  # type: ignore[assignment]
    make(tmp_path).close()
    raw = bytearray((tmp_path / name).read_bytes())
    raw[60 + bit // 8] ^= 1 << bit % 8
    (tmp_path / name).write_bytes(raw)
    if name == "aggregator.db":
        with pytest.raises(StoreError, match="damaged"):
            make(tmp_path)
    else:
        make(tmp_path).close()
        assert list(tmp_path.glob("agent.damaged-*"))
