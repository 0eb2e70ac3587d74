"""What agent and aggregator keep on disk: durable, whole, and set aside when damaged."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from edgefl_agent.store import AgentStore
from edgefl_broker.journal import Journal
from edgefl_broker.masked import HelperFolder, masked_terms
from edgefl_broker.models import KEPT_MODELS
from edgefl_broker.round_rows import KEPT_RECORDS
from edgefl_broker.store import AggregatorStore
from kept import slot
from masked_rounds import MANIFEST, PRIVACY, helper_certificate, helper_keys, party

from edgefl.coordinator.devices.quarantine import Suspect
from edgefl.coordinator.events import HelpersRead, LateUpdate
from edgefl.device.events import Outbox
from edgefl.device.owner.budget import Spent
from edgefl.errors import StoreError
from edgefl.history_record import RoundRecord
from edgefl.hosting.config import AggregatorConfig
from edgefl.hosting.store import claim
from edgefl.privacy.accountant import Mechanism
from edgefl.privacy.clipping import ClipState
from edgefl.privacy.ledger import Ledger
from edgefl.settings import RoundSettings
from edgefl.strategies import State
from edgefl.strategies.checkpoint import pack
from edgefl.transports.settings import MqttConfig

PARAMS = np.arange(4, dtype=np.float32)


def record(round: int, state: str = "committed") -> RoundRecord:
    return RoundRecord(round, state, round, 1, ["dev-a"], 10, 0.5, 100, 100, 1.0)  # type: ignore[arg-type]


def test_the_outbox_survives_and_is_replaced_whole(tmp_path: Path) -> None:
    first, second = Outbox("m" * 16, 1, 0, b"one"), Outbox("m" * 16, 2, 1, b"two")
    store = AgentStore(tmp_path)
    assert store.load() is None
    store.save(first, {})
    store.save(second, {})
    store.close()
    again = AgentStore(tmp_path)
    assert again.load() == second
    again.drop(applied=True)
    assert again.load() is None


def test_starts_are_counted(tmp_path: Path) -> None:
    starts = []
    for _ in range(3):
        store = AgentStore(tmp_path)
        starts.append(store.count_start())
        store.close()
    assert starts == [1, 2, 3]


@pytest.mark.parametrize("garbage", [b"not a database at all" * 100, b"SQLite format 3\0" + bytes(4096)])
def test_a_damaged_database_is_set_aside_and_kept(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "agent.db").write_bytes(garbage)
    store = AgentStore(tmp_path)
    assert store.count_start() == 1
    (aside,) = tmp_path.glob("agent.damaged-*")
    assert aside.read_bytes() == garbage


def test_i12_a_damaged_aggregator_database_is_an_error_not_a_new_start(tmp_path: Path) -> None:
    """A new start would put the untrained model in the trained one's place."""
    (tmp_path / "aggregator.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match=r"is damaged .* backup"):
        AggregatorStore(tmp_path)
    assert (tmp_path / "aggregator.db").read_bytes() == b"not a database at all" * 100


@pytest.mark.parametrize("kind", [AgentStore, AggregatorStore])
def test_i05_a_state_folder_belongs_to_one_process(tmp_path: Path, kind: type) -> None:
    first = kind(tmp_path)
    with pytest.raises(StoreError, match="in use by another process"):
        kind(tmp_path)
    first.close()
    kind(tmp_path).close()


@pytest.mark.parametrize("kind", [AgentStore, AggregatorStore])
def test_i05_a_process_that_has_the_folder_for_a_moment_stops_no_daemon(tmp_path: Path, kind: type) -> None:
    """One that was about to become an owner's program when its daemon ended, or that looked whether one runs."""
    kind(tmp_path).close()
    holds = claim(tmp_path)
    threading.Timer(0.2, holds.close).start()
    kind(tmp_path).close()
    assert holds.closed


def test_a_folder_that_can_not_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="check the folder"):
        AgentStore(tmp_path / "file" / "below")


def test_a_full_disk_is_a_store_error_and_nothing_half_done(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    store._db.execute("PRAGMA max_page_count = 1")  # SQLite's own "database or disk is full"
    large = np.zeros(100_000, np.float32)
    with pytest.raises(StoreError, match="check the disk, its space"):
        store.commit(record(1), large)
    assert store.records() == []
    assert store._db.execute("SELECT count(*) FROM models").fetchone() == (1,)


def test_the_aggregator_resumes_after_the_last_commit(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    first = store.resume("plan", PARAMS)
    assert (first.start, first.round, first.version) == (1, 1, 0)
    store.save_attempt(first.start)
    store.commit(record(1), PARAMS + 1)
    store.commit(record(2, "abandoned"), None)
    store.close()
    again = AggregatorStore(tmp_path).resume("plan", PARAMS)
    assert (again.run, again.start, again.round, again.version) == (first.run, 2, 3, 1)
    np.testing.assert_array_equal(again.params, PARAMS + 1)


def test_i05_a_start_that_never_goes_on_the_air_leaves_its_number_to_the_next(tmp_path: Path) -> None:
    """Else an aggregator that is fenced off, and started again and again, would become the newest in the end."""
    for expected, saved in ((1, None), (1, 1), (2, 9), (10, None), (10, None)):
        store = AggregatorStore(tmp_path)
        assert store.resume("plan", PARAMS).start == expected
        if saved:
            store.save_attempt(saved)
        store.close()


@pytest.mark.parametrize("damage", ["x'313a'", "x'31'", "''", "'abc'", "'1:'", "7", "'1~00000000'"])
def test_i12_a_damaged_number_in_the_database_is_an_error(tmp_path: Path, damage: str) -> None:
    """Fuzzing found the first two: a blob passed for a number, and ended the aggregator with a ValueError."""
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    store._values.put("start", "3")
    store._db.execute(f"UPDATE meta SET value = {damage} WHERE key = 'start'")
    if damage == "7":  # SQLite makes a text of it: the number of a folder that is older than seals
        assert store.resume("plan", PARAMS).start == 8
    else:
        with pytest.raises(StoreError, match="damaged"):
            store.resume("plan", PARAMS)
    store.close()


def test_the_last_records(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    for number in (1, 2, 3):
        store.commit(record(number, "abandoned"), None)
    assert [r.round for r in store.recent(2)] == [2, 3]
    assert list(store.recent(0)) == []


def test_i05_a_round_can_not_be_committed_twice(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    store.commit(record(1), PARAMS + 1)
    with pytest.raises(StoreError):
        store.commit(record(1), PARAMS + 2)
    np.testing.assert_array_equal(store.resume("plan", PARAMS).params, PARAMS + 1)


def test_only_the_last_models_are_kept(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    for round in range(1, 8):
        store.commit(record(round), PARAMS + round)
    versions = [row[0] for row in store._db.execute("SELECT version FROM models ORDER BY version")]
    assert versions == list(range(8 - KEPT_MODELS, 8))


def test_as_many_models_are_kept_as_the_settings_say_and_fit(tmp_path: Path) -> None:
    size = 4 * len(PARAMS) + len(b"state")
    for name, models, most, kept in (("a", 6, 2**20, 6), ("b", 6, 5 * size, 5), ("c", 6, 1, KEPT_MODELS)):
        store = AggregatorStore(tmp_path / name, models, most)
        store.resume("plan", PARAMS)
        for round in range(1, 12):
            store.commit(record(round), PARAMS + round, state=b"state")
        assert store.models.versions() == list(range(12 - kept, 12))
        assert store.models.get(11 - kept) is None
        params, state = store.models.get(12 - kept)
        assert (params.tobytes(), state) == ((PARAMS + 12 - kept).tobytes(), b"state")


def test_i12_a_damaged_model_is_no_model_to_go_back_to(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    store.commit(record(1), PARAMS + 1)
    store._db.execute("UPDATE models SET params = zeroblob(length(params)) WHERE version = 0")
    assert store.models.get(0) is None and store.models.get(1) is not None


def test_i12_a_flipped_bit_is_found_and_the_model_before_gets_a_version_of_its_own(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    store.commit(record(1), PARAMS + 1)
    store.commit(record(2), PARAMS + 2)
    store.close()
    with sqlite3.connect(tmp_path / "aggregator.db") as database:
        blob = bytearray(database.execute("SELECT params FROM models WHERE version = 2").fetchone()[0])
        blob[5] ^= 1
        database.execute("UPDATE models SET params = ? WHERE version = 2", (bytes(blob),))
    state = AggregatorStore(tmp_path).resume("plan", PARAMS)
    assert (state.round, state.version) == (3, 3)
    np.testing.assert_array_equal(state.params, PARAMS + 1)


def velocity(value: float) -> State:
    return {"server.velocity": np.full(4, value, np.float32)}


def test_i08_the_strategys_state_is_committed_with_its_model(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    first = store.resume("plan", PARAMS)
    assert (first.strategy, first.state) == ("", {})
    store.commit(record(1), PARAMS + 1, state=pack("fedavgm", velocity(1)))
    with pytest.raises(StoreError):
        store.commit(record(1), PARAMS + 2, state=pack("fedavgm", velocity(2)))
    store.commit(record(2, "abandoned"), None)
    store.close()
    again = AggregatorStore(tmp_path).resume("plan", PARAMS)
    assert (again.version, again.strategy) == (1, "fedavgm")
    assert again.params.tobytes() == (PARAMS + 1).tobytes()
    assert again.state["server.velocity"].tobytes() == velocity(1)["server.velocity"].tobytes()


@pytest.mark.parametrize("column", ["params", "state"])
@pytest.mark.parametrize("damage", ["flip", "empty"])
def test_i12_the_model_before_a_damaged_one_comes_with_its_own_state(tmp_path: Path, column: str, damage: str) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    for round in (1, 2):
        store.commit(record(round), PARAMS + round, state=pack("fedavgm", velocity(round)))
    (blob,) = store._db.execute(f"SELECT {column} FROM models WHERE version = 2").fetchone()
    wrong = b"" if damage == "empty" else blob[:-3] + bytes([blob[-3] ^ 4]) + blob[-2:]
    store._db.execute(f"UPDATE models SET {column} = ? WHERE version = 2", (wrong,))
    for _ in range(2):  # what was passed over stays so after the next start
        state = store.resume("plan", PARAMS)
        assert (state.round, state.version, state.strategy) == (3, 3, "fedavgm")
        assert state.params.tobytes() == (PARAMS + 1).tobytes()
        assert state.state["server.velocity"].tolist() == [1, 1, 1, 1]


def test_a_folder_from_before_strategies_had_state_is_read(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    store.commit(record(1), PARAMS + 1)
    store._db.execute("ALTER TABLE models DROP COLUMN state")
    store._db.execute("PRAGMA user_version = 0")
    store.close()
    store = AggregatorStore(tmp_path)
    state = store.resume("plan", PARAMS)
    assert (state.version, state.state) == (1, {})
    assert state.params.tobytes() == (PARAMS + 1).tobytes()
    store.commit(record(2), PARAMS + 2, state=pack("fedavgm", velocity(2)))
    assert store.resume("plan", PARAMS).state["server.velocity"].tolist() == [2, 2, 2, 2]


def test_no_sound_model_left_is_an_error(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    store._db.execute("UPDATE models SET sha256 = 'x'")
    with pytest.raises(StoreError, match="no sound model is left"):
        store.resume("plan", PARAMS)


def test_another_plan_is_refused(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    with pytest.raises(StoreError, match="another model"):
        store.resume("other", PARAMS)


def test_another_model_files_weights_are_not_used_and_it_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    store.commit(record(1), PARAMS + 1)
    store.resume("plan", PARAMS)
    assert not caplog.records
    np.testing.assert_array_equal(store.resume("plan", PARAMS + 2).params, PARAMS + 1)
    (warning,) = caplog.messages
    assert str(tmp_path) in warning and "another state_dir" in warning


def test_i05_i12_rounds_that_sqlite_has_lost_are_not_run_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A flipped bit in its log takes the commits that follow; history.jsonl still has them."""
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    for number in (1, 2, 3):
        store.commit(record(number), PARAMS + number)
    store._db.execute("DELETE FROM rounds WHERE round > 1")
    store._db.execute("DELETE FROM models WHERE version > 1")
    state = store.resume("plan", PARAMS, record(3))
    assert (state.round, state.version) == (4, 4)
    np.testing.assert_array_equal(state.params, PARAMS + 1)
    assert "has lost the rounds from 2 to 3: if it comes from a backup, begin the next epoch" in caplog.text
    again = store.resume("plan", PARAMS, record(1))
    assert (again.round, again.version) == (4, 4)


def test_i12_an_empty_database_beside_a_history_is_an_error_not_a_new_start(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    with pytest.raises(StoreError, match=r"is empty, but history.jsonl tells of 3 rounds: put a backup"):
        store.resume("plan", PARAMS, record(3))


def test_a_damaged_record_is_left_out_and_one_without_a_seal_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    for number in (1, 2, 3):
        store.commit(record(number), PARAMS + number)
    store._db.execute("UPDATE rounds SET record = ? WHERE round = 1", (msgspec.json.encode(record(1)),))
    store._db.execute("UPDATE rounds SET record = replace(record, ':10,', ':11,') WHERE round = 2")
    assert store.records() == [record(1), record(3)] == list(store.recent(3))
    assert "the record of round 2" in caplog.text


LATE = [LateUpdate("dev-b", 1, 0, 1, b"header~payload"), LateUpdate("dev-c", 1, 0, 1, b"\0" * 9)]


def late_of(store: AggregatorStore) -> list[tuple[str, int, int, bytes]]:
    return [(update.device, update.round, update.version, update.blob) for update in store.late()]


def test_i06_late_updates_are_durable_with_the_flush_and_gone_with_their_commit(tmp_path: Path) -> None:
    store, other = AggregatorStore(tmp_path), sqlite3.connect(tmp_path / "aggregator.db", isolation_level=None)
    store.resume("plan", PARAMS)
    for update in LATE:
        store.save_late(update)
    durable = "SELECT count(*) FROM late"
    assert other.execute(durable).fetchone() == (0,)
    store.flush()
    assert other.execute(durable).fetchone() == (2,)
    assert late_of(store) == [(u.device, u.round, u.version, u.blob) for u in LATE]
    store.commit(record(2, "abandoned"), None)
    store.commit(record(3), PARAMS + 3, [("dev-b", 1)])
    store.close()
    again = AggregatorStore(tmp_path)
    assert [update.device for update in again.late()] == ["dev-c"]


def test_i08_a_commit_takes_what_was_saved_before_it(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    store.save_late(LATE[0])
    store.save_late(LATE[1])
    store.commit(record(1), PARAMS + 1, [("dev-b", 1)])
    store.close()
    assert [update.device for update in AggregatorStore(tmp_path).late()] == ["dev-c"]


@pytest.mark.parametrize(
    "damage",
    ["blob = x'00'", "device = 'dev-x'", "device = x'ff'", "round = 2", "version = 7", "codec = 2", "crc = 'x'"],
)
def test_i12_a_damaged_late_update_is_left_out(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    for update in LATE:
        store.save_late(update)
    store.flush()
    store._db.execute(f"UPDATE late SET {damage} WHERE device = 'dev-b'")
    assert [update.device for update in store.late()] == ["dev-c"]
    assert "a late update in" in caplog.text and "is damaged" in caplog.text
    assert [update.device for update in store.late()] == ["dev-c"]


def test_late_updates_that_the_configuration_has_no_place_for_are_dropped_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    store.drop_late()
    assert caplog.text == ""
    store.save_late(LATE[0])
    store.flush()
    store.drop_late()
    assert late_of(store) == [] and "are dropped" in caplog.text


def test_i13_the_database_keeps_the_last_records_only(tmp_path: Path) -> None:
    """A folder of an earlier version has all of them: they go a few at a time."""
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    rows = [(n, msgspec.json.encode(record(n))) for n in range(1, KEPT_RECORDS + 41)]
    store._db.executemany("INSERT INTO rounds VALUES (?, ?)", rows)
    for number in range(KEPT_RECORDS + 41, KEPT_RECORDS + 61):
        store.commit(record(number), None)
    kept = [r.round for r in store.records()]
    assert kept == list(range(61, KEPT_RECORDS + 61))
    assert [r.round for r in store.recent(2)] == kept[-2:]


# The number of a start


def with_attempt(round: int, attempt: int) -> RoundRecord:
    return msgspec.structs.replace(record(round), attempt=attempt)


def test_a_database_that_has_lost_its_last_commits_does_not_go_back_behind_its_own_claim(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    assert store.resume("plan", PARAMS).start == 1
    store.save_attempt(7)
    store._db.execute("DELETE FROM meta WHERE key = 'start'")  # as a flipped bit in the log does
    assert store.resume("plan", PARAMS).start == 8
    assert store.resume("plan", PARAMS, with_attempt(1, 9)).start == 10
    (tmp_path / "attempt").unlink()
    assert store.resume("plan", PARAMS, with_attempt(1, 9)).start == 10
    assert store.resume("plan", PARAMS).start == 1  # as in a folder of an earlier version


@pytest.mark.parametrize("damaged", [b"", b"9~00000000", b"77", b"-7~12345678", b"\xff~"])
def test_i12_a_damaged_number_beside_the_database_is_left_out(
    tmp_path: Path, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    store.save_attempt(3)
    (tmp_path / "attempt").write_bytes(damaged)
    assert store.resume("plan", PARAMS).start == 4
    assert "attempt is damaged" in caplog.text


# Files that go away under a running process


def test_the_devices_of_which_updates_were_refused_survive(tmp_path: Path) -> None:
    suspects = {"pi-01": Suspect([3, 4], "finite", 4, 1_800_000_000), "pi-02": Suspect([4])}
    store = AggregatorStore(tmp_path)
    assert store.suspects() == {}
    store.save_suspects(suspects)
    store.close()
    assert AggregatorStore(tmp_path).suspects() == suspects


def test_an_adaptive_clip_survives_any_number_of_rounds_without_one(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    assert store.clip() is None
    kept = ClipState(0.1 + 0.2, 1 / 3)
    store.commit(record(1), PARAMS + 1, clip=kept)
    for number in range(2, KEPT_RECORDS + 30):
        store.commit(record(number, "abandoned"), None)
    store.close()
    assert AggregatorStore(tmp_path).clip() == kept


def test_a_round_that_is_not_committed_moves_no_clip(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    store.commit(record(1), PARAMS + 1, clip=ClipState(2.0))
    with pytest.raises(StoreError):
        store.commit(record(1), PARAMS + 2, clip=ClipState(3.0))
    assert store.clip() == ClipState(2.0)


def test_i12_a_damaged_clip_is_an_error_and_not_the_first_one(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    store.commit(record(1), PARAMS + 1, clip=ClipState(3.0))
    store._db.execute("UPDATE meta SET value = replace(value, '3', '5') WHERE key = 'clip'")
    with pytest.raises(StoreError, match="adaptive clip is damaged: put a backup"):
        store.clip()


def test_a_clip_that_is_fixed_needs_none_of_the_disk(tmp_path: Path) -> None:
    """An aggregator whose clip moved once starts with a fixed one, whatever has become of the other."""
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    store.commit(record(1), PARAMS + 1, clip=ClipState(3.0))
    store._db.execute("UPDATE meta SET value = replace(value, '3', '5') WHERE key = 'clip'")
    helpers = SimpleNamespace(read=HelpersRead((party(helper_keys()),), (helper_certificate(helper_keys()),)), root=b"")
    settings: dict[str, Any] = {
        "federation": "fleet",
        "model": "start.onnx",
        "mqtt": MqttConfig("mqtt://here"),
        "privacy": PRIVACY,
    }
    config = AggregatorConfig(**settings, rounds=RoundSettings(expect=5))
    terms = masked_terms(config, MANIFEST, cast(HelperFolder, helpers), store)
    assert terms is not None and (terms.clip, terms.moved) == (PRIVACY.clip, None)
    settings["privacy"] = msgspec.structs.replace(PRIVACY, clip_quantile=0.5)
    moving = AggregatorConfig(**settings, rounds=RoundSettings(expect=5))
    with pytest.raises(StoreError, match="adaptive clip is damaged: put a backup"):
        masked_terms(moving, MANIFEST, cast(HelperFolder, helpers), store)


def test_i12_a_damaged_table_of_suspects_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = AggregatorStore(tmp_path)
    store.save_suspects({"pi-01": Suspect([3])})
    store._db.execute("UPDATE meta SET value = replace(value, '3', '5') WHERE key = 'suspects'")
    assert store.suspects() == {}
    assert "devices in quarantine" in caplog.text


def deleted(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").rename(path)


@pytest.mark.parametrize("which", ["aggregator.db", "aggregator.db-wal"])
@pytest.mark.parametrize("vanish", [deleted, replaced])
def test_nothing_is_committed_into_a_file_that_was_deleted_or_replaced(
    tmp_path: Path, vanish: Callable[[Path], None], which: str
) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    store.commit(record(1), PARAMS + 1)
    store.save_late(LATE[0])
    vanish(tmp_path / which)
    for use in (lambda: store.commit(record(2), PARAMS + 2), store.flush, lambda: store.save_attempt(2)):
        with pytest.raises(StoreError, match=rf"{which} was deleted or replaced .* Put a backup"):
            use()
    assert not (tmp_path / "attempt").exists()


@pytest.mark.parametrize("vanish", [deleted, replaced])
def test_an_agent_and_a_journal_notice_it_too(tmp_path: Path, vanish: Callable[[Path], None]) -> None:
    store = AgentStore(tmp_path)
    store.save(Outbox("m" * 16, 1, 0, b"one"), {})
    assert store.load_slot("residual") is None  # a second connection, which closes again, replaces no file
    store.mark_counted(1)
    vanish(tmp_path / "agent.db")
    for use in (
        lambda: store.save(Outbox("m" * 16, 2, 1, b"two"), {}),
        lambda: store.mark_counted(2),
        lambda: store.drop(True),
        lambda: store.save_spent(Spent()),
    ):
        with pytest.raises(StoreError, match=r"agent\.db was deleted or replaced"):
            use()
    journal = Journal(tmp_path / "journal.db")
    journal.begin(1, PARAMS)
    vanish(tmp_path / "journal.db")
    with pytest.raises(StoreError, match=r"journal\.db was deleted or replaced"):
        journal.end()


# Bytes


def written() -> int:
    """Bytes that this process has written to files so far."""
    return int(next(line for line in open("/proc/self/io") if line.startswith("wchar")).split()[1])


@pytest.mark.parametrize(
    ("update", "residual", "control", "factor"),
    [(800_000, 0, 0, 1.3), (6_000, 400_000, 0, 1.3), (6_000, 400_000, 800_000, 1.6)],
    ids=["raw32", "ecq", "ecq and SCAFFOLD"],
)
def test_i13_a_round_writes_little_more_to_an_sd_card_than_its_update_and_slots(
    tmp_path: Path, update: int, residual: int, control: int, factor: float
) -> None:
    """With secure_delete it was twice as much. That a slot becomes the current one writes one page, not the slot.
    SQLite writes twice what is on a page when its log of 4 MB is full: the more there is, the sooner."""
    store = AgentStore(tmp_path)
    blob, sizes = bytes(update), {"residual": residual, "control": control}
    for round in range(1, 41):
        if round == 11:
            before = written()
        store.save(
            Outbox("m" * 16, round, round - 1, blob),
            {name: slot(bytes(size), round) for name, size in sizes.items() if size},
        )
        store.mark_counted(1)
        store.drop(applied=True)
    assert (written() - before) / 30 < factor * (update + residual + control) + 30_000
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size < 2 * (update + 2 * (residual + control)) + 4.5e6  # SQLite's log has up to 4 MB and a transaction


def test_i23_a_late_update_is_overwritten_when_a_commit_has_it(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    store.resume("plan", PARAMS)
    store.save_late(LateUpdate("dev-b", 1, 0, 1, b"one device's secret" * 1000))
    store.flush()
    store.commit(record(2), PARAMS + 2, [("dev-b", 1)])
    store.close()
    assert b"secret" not in (tmp_path / "aggregator.db").read_bytes()
    assert not (tmp_path / "aggregator.db-wal").exists()


LEDGER = Ledger("ab" * 8, 1e-5, 2.5, "run", 7, "set", 1.0, Mechanism("independent", 50.0, 900), 3, 5)


def test_the_ledger_of_epsilon_is_kept_by_root_and_never_falls(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    assert store.ledger(LEDGER.root, 1e-5) == Ledger(LEDGER.root, 1e-5)
    store.save_ledger(LEDGER)
    store.close()
    store = AggregatorStore(tmp_path)
    assert store.ledger(LEDGER.root, 1e-5) == LEDGER
    with pytest.raises(StoreError, match=r"epsilon falls from 2\.5 to 1\.5"):
        store.save_ledger(msgspec.structs.replace(LEDGER, epsilon=1.5))
    with pytest.raises(StoreError, match="delta"):
        store.ledger(LEDGER.root, 1e-6)
    assert store.ledger("cd" * 8, 1e-5).epsilon == 0  # another federation's
    store.close()


def test_a_ledger_of_epsilon_that_is_damaged_is_no_new_one(tmp_path: Path) -> None:
    store = AggregatorStore(tmp_path)
    store.save_ledger(LEDGER)
    for damage in ("substr(value, 1, length(value) - 1)", "replace(value, '2.5', '1.5')", "''"):
        with sqlite3.connect(tmp_path / "aggregator.db") as db:
            (kept,) = db.execute("SELECT value FROM meta WHERE key LIKE 'ledger%'").fetchone()
            db.execute(f"UPDATE meta SET value = {damage} WHERE key LIKE 'ledger%'")
        with pytest.raises(StoreError, match="ledger of epsilon is damaged"):
            store.ledger(LEDGER.root, 1e-5)
        with pytest.raises(StoreError, match="ledger of epsilon is damaged"):
            store.save_ledger(LEDGER)
        with sqlite3.connect(tmp_path / "aggregator.db") as db:
            db.execute("UPDATE meta SET value = ? WHERE key LIKE 'ledger%'", (kept,))
    assert store.ledger(LEDGER.root, 1e-5) == LEDGER
    store.close()
