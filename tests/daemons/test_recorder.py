"""The recorder: from sensors' messages to rows, bounded on the disk, read while they are written."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import stat
import threading
import time
from pathlib import Path

import pytest
from brokers import eventually
from edgefl_agent.config import AgentConfig
from edgefl_agent.record import Recorder
from edgefl_agent.record_config import RecordConfig
from edgefl_agent.ring import MOST_WAITING, Ring
from edgefl_agent.sampler import LONGEST, LONGEST_TEXT, Sampler
from hypothesis import given
from hypothesis import strategies as st

from edgefl.data import load
from edgefl.errors import StoreError, UsageError
from edgefl.settings import files
from edgefl.transports.events import Message
from edgefl.transports.mqtt import MqttLink, Up

SOURCES = {"hot": ("bench", ("values", "hot")), "wet": ("bench", ("wet",)), "state": ("machine", ())}


def sampler() -> Sampler:
    return Sampler(SOURCES, stale_s=10.0)


def test_a_row_has_the_newest_value_of_each_column() -> None:
    s = sampler()
    assert s.topics == ["bench", "machine"] and s.row(0.0) is None
    assert s.hear("bench", b'{"values": {"hot": 21.5}, "wet": "40"}', 0.0)
    assert s.hear("machine", b" ok ", 4.0)
    assert s.row(5.0) == [21.5, 40.0, "ok"]
    assert s.row(6.0) is None, "nothing has come"
    s.hear("bench", b'{"wet": true}', 11.0)
    assert s.row(11.0) == [None, 1.0, "ok"], "hot is too old"


@pytest.mark.parametrize(
    ("payload", "cell"),
    [
        (b"21.5", 21.5), (b" -3 ", -3.0), (b'"on"', "on"), (b"1e400", None), (b"nan", None), (b"Infinity", None),
        (b"null", None), (b"", None), (b"  ", None), (b"1_0", None), (b"n/a", None), (b"x" * 999, "x" * LONGEST_TEXT),
        (b"1" * (LONGEST + 1), None), (b"\xff", "\ufffd"),
    ],
)  # fmt: skip
def test_a_message_that_is_one_value(payload: bytes, cell: object) -> None:
    s = Sampler({"a": ("t", ())}, 10.0)
    assert s.hear("t", payload, 0.0) == (cell is not None)
    assert s.row(0.0) == (None if cell is None else [cell])
    assert s.unread == (cell is None)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["values", "hot", "wet", "x"]), inner),
)


@given(st.binary(max_size=200) | ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_whatever_a_sensor_sends_a_cell_is_a_number_or_a_short_text(payload: bytes) -> None:
    s = sampler()
    for topic in ("bench", "machine", "elsewhere"):
        s.hear(topic, payload, 0.0)
    for cell in s.row(0.0) or []:
        assert cell is None or (isinstance(cell, float) and abs(cell) < 3.5e38) or len(cell) <= LONGEST_TEXT


def test_a_document_without_end_is_no_value() -> None:
    s = sampler()
    assert not s.hear("bench", b'{"values":' * 5000, 0.0)
    assert not s.hear("bench", b'{"values":' * 5000 + b"}" * 5000, 0.0)


@pytest.mark.parametrize(
    ("columns", "hint"),
    [
        ({}, "columns is empty"),
        ({"time": "a"}, "can't name a column"),
        ({"ID": "a"}, "can't name a column"),
        ({"a": "t", "A": "u"}, "can't name a column"),
        ({"a": ""}, "not TOPIC or TOPIC#FIELD"),
        ({"a": "t/+/x"}, "without wildcards"),
        ({"a": "t/#"}, "not TOPIC or TOPIC#FIELD"),
        ({"a": "t#x..y"}, "not TOPIC or TOPIC#FIELD"),
        ({f"c{i}": "t" for i in range(501)}, "at most 500"),
    ],
)
def test_columns_that_cant_be_recorded(columns: dict[str, str], hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        RecordConfig(columns=columns).sources()


def rows_of(path: Path) -> list[tuple]:
    with sqlite3.connect(path) as database:
        found = database.execute("SELECT * FROM ring ORDER BY id").fetchall()
    database.close()
    return found


def test_a_ring_keeps_the_newest_rows_alone(tmp_path: Path) -> None:
    path = tmp_path / "ring.db"
    ring = Ring(path, ["a", 'q"x'], max_rows=100, max_bytes=10**9)
    for i in range(250):
        ring.add(float(i), [i, "x"])
        if i % 30 == 0:
            ring.commit()
    assert rows_of(path)[-1][1] == 240.0, "what was not committed is not there"
    ring.commit()
    kept = [row[1] for row in rows_of(path)]
    assert kept == [float(i) for i in range(250 - len(kept), 250)] and 90 < len(kept) <= 100
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ring.close()


def test_a_ring_is_bounded_in_bytes_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "ring.db"
    ring = Ring(path, ["a"], max_rows=10**9, max_bytes=300_000)
    sizes = []
    for i in range(120):
        for _ in range(100):
            ring.add(float(i), ["x" * 60])
        ring.commit()
        sizes.append(sum(file.stat().st_size for file in tmp_path.iterdir()))
    assert path.stat().st_size < 1.25 * 300_000 and max(sizes) < 300_000 * 1.25 + 2**20 * 1.2 + 65536
    assert 3000 < len(rows_of(path)) < 5000
    ring.close()


def test_a_ring_with_other_columns_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "ring.db"
    for time_, columns in enumerate([["a"], ["b", "A"]]):
        ring = Ring(path, columns, 1000, 10**9)
        ring.add(float(time_), [float(column == "b") for column in columns])
        ring.commit()
        ring.close()
    assert rows_of(path) == [(1, 0.0, 0.0, None), (2, 1.0, 0.0, 1.0)]


def test_a_damaged_ring_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "ring.db"
    path.write_bytes(b"no database" * 1000)
    ring = Ring(path, ["a"], 1000, 10**9)
    ring.add(1.0, [2.0])
    ring.commit()
    ring.close()
    assert len(rows_of(path)) == 1 and list(tmp_path.glob("*damaged*"))


def test_rows_wait_while_the_disk_takes_none_and_the_oldest_go(tmp_path: Path) -> None:
    path = tmp_path / "ring.db"
    ring = Ring(path, ["a"], 10**6, 10**9)
    for i in range(MOST_WAITING + 5):
        ring.add(float(i), [1.0])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ring._database.execute("PRAGMA busy_timeout=10")
    with pytest.raises(StoreError, match="can't be written"):
        ring.commit()
    assert (ring.waiting, ring.lost) == (MOST_WAITING, 5)
    other.execute("ROLLBACK")
    other.close()
    ring.commit()
    assert rows_of(path)[0][1] == 5.0 and ring.waiting == 0
    ring.close()


def recorder(tmp_path: Path, url: str, **settings: object) -> Recorder:
    columns = {"hot": "bench#values.hot", "wet": "bench#wet", "state": "machine"}
    table = {"file": str(tmp_path / "ring.db"), "url": url, "columns": columns, **settings}
    agent = {"federation": "f", "device_id": "pi-1", "mqtt": {"url": url}, "data": {"source": "x"}, "record": table}
    return Recorder(files.build(AgentConfig, agent).record, "pi-1")


@pytest.mark.parametrize("every_s", [0.0, 0.05])
def test_sensors_are_recorded_and_learned_from(embedded: object, tmp_path: Path, every_s: float) -> None:
    url = embedded.url  # type: ignore[attr-defined]
    record = recorder(tmp_path, url, every_s=every_s, commit_s=0.2)
    thread = threading.Thread(target=record.run, daemon=True)
    thread.start()
    up = threading.Event()
    sensor = MqttLink(
        url, "sensor", rng=random.Random(1), session_expiry_s=0,
        on_event=lambda event: up.set() if isinstance(event, Up) else None,
    )  # fmt: skip
    sensor.start()
    assert up.wait(10)
    spec = f"ring:{tmp_path / 'ring.db'}?target=state&labels=ok,worn&missing=mean"

    def count() -> int:
        try:
            return len(load(spec, test_fraction=0).x_train)
        except Exception:
            return 0

    def tell() -> bool:
        sensor.publish("machine", b"ok")
        sensor.publish("bench", b'{"values": {"hot": 20.5}, "wet": 40}')
        sensor.publish("bench", b"not JSON")
        time.sleep(0.02)
        return count() >= 10

    eventually(tell, 20)
    data = load(spec, test_fraction=0)
    assert data.columns == ("hot", "wet") and data.labels == ("ok", "worn")
    assert set(data.x_train[-1]) == {20.5, 40.0} and abs(rows_of(tmp_path / "ring.db")[-1][1] - time.time()) < 60
    sensor.stop()
    record.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert not os.path.exists(tmp_path / "ring.db-wal"), "a clean stop leaves one file"


def test_a_recorder_that_hears_nothing_says_so(tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr("edgefl_agent.record.SILENT_S", 0.05)
    record = recorder(tmp_path, "mqtt://127.0.0.1:9", every_s=0.02)
    thread = threading.Thread(target=record.run, daemon=True)
    thread.start()
    eventually(lambda: any("no value for" in line for line in caplog.messages), 10)
    record.stop()
    thread.join(10)
    assert sum("no value for" in line for line in caplog.messages) == 1


def test_a_disk_that_refuses_is_not_tried_with_each_message(tmp_path: Path, monkeypatch) -> None:
    tries = []

    def commit(ring: Ring) -> None:
        tries.append(ring.waiting)
        raise StoreError("no space")

    monkeypatch.setattr(Ring, "commit", commit)
    monkeypatch.setattr("edgefl_agent.record.MOST_TOGETHER", 10)
    record = recorder(tmp_path, "mqtt://127.0.0.1:9", every_s=0.0, commit_s=3600.0)
    thread = threading.Thread(target=record.run, daemon=True)
    thread.start()
    for number in range(200):
        record._on_link(Message("machine", b"ok", False, (0, 0)))
        if number == 10:
            eventually(lambda: tries, 10)
    time.sleep(0.1)
    assert len(tries) == 1 and record._ring.waiting == 200
    record.stop()
    thread.join(10)
    assert len(tries) == 2, "and once more at the end"
