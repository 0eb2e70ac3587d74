"""I12: one flipped bit anywhere in what a daemon keeps on disk is found, and healed or refused; never used."""

from __future__ import annotations

import logging
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgefl_agent.store import AgentStore
from edgefl_broker.store import AggregatorStore
from kept import slot
from msgspec.structs import replace

from edgefl._core import crc32c
from edgefl.coordinator.events import LateUpdate
from edgefl.device.events import Outbox
from edgefl.device.slots import KEPT, Slot
from edgefl.errors import StoreError
from edgefl.history_record import RoundRecord
from edgefl.strategies import State
from edgefl.strategies.checkpoint import pack

ROUNDS = 5
ATTEMPT = 3
FLIPS = 40  # of each kind of file
START = np.linspace(-1, 1, 300, dtype=np.float32)
LATE = [LateUpdate(f"dev-{name}", 4, 3, 1, name.encode() * 300) for name in "abcde"]


def record(round: int) -> RoundRecord:
    return RoundRecord(round, "committed", round, 2, ["dev-a", "dev-b"], 10, 0.5, 100, 100, 1.0)


def velocity(version: int) -> State:
    """The strategy's state that belongs to the model of this version."""
    return {"server.velocity": START * version} if version else {}


def keep(folder: Path, live: sqlite3.Connection) -> None:
    """What lies on the disk at this moment, as after kill -9: the log is not in the database yet."""
    assert live.execute("SELECT 1")
    shutil.copytree(folder, folder.parent / "killed")


def aggregator_folders(base: Path) -> list[Path]:
    """The state after five rounds, with late updates that wait for the next: after a kill, and after a clean stop."""
    store = AggregatorStore(base / "stopped")
    store.resume("plan", START)
    store.save_attempt(ATTEMPT)
    for update in LATE:
        store.save_late(update)
    for number in range(1, ROUNDS + 1):
        store.commit(record(number), START + number, state=pack("fedavgm", velocity(number)))
    keep(base / "stopped", store._db)
    store.close()
    return [base / "stopped", base / "killed"]


def flipped(folder: Path, rng: random.Random) -> tuple[Path, str]:
    """A copy of the folder with one bit flipped in one of its files, and which one."""
    copy = folder.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    kinds = (".db", ".db-wal", "")  # the last is the number of a start
    files = sorted(path for path in copy.iterdir() if path.suffix in kinds and path.stat().st_size)
    path = rng.choices(files, [file.stat().st_size for file in files])[0]
    data = bytearray(path.read_bytes())
    bit = rng.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    return copy, f"{folder.name}/{path.name}, bit {bit}"


def damage_of_aggregator(folder: Path, caplog: pytest.LogCaptureFixture) -> str:
    """How one flipped bit ended: unnoticed harm is an assertion."""
    caplog.clear()
    try:
        store = AggregatorStore(folder)
        try:
            state, records = store.resume("plan", START, record(ROUNDS)), store.records()
            late = list(store.late())
            store.commit(record(state.round), None, [(update.device, update.round) for update in late])
            assert list(store.late()) == [], "I01: it would be folded in again"
        finally:
            store.close()
    except StoreError as error:
        assert any(word in str(error) for word in (str(folder), "damaged", "no such", "UTF-8")), error
        return "refused"
    models = {(START + n).tobytes(): n for n in range(ROUNDS + 1)}
    version = models[state.params.tobytes()]
    assert state.start == ATTEMPT + 1, "behind its own claim: refused until --take-over"
    assert pack(state.strategy, state.state) == pack("fedavgm", velocity(version)), "the state of another model"
    assert state.version >= version and state.round > ROUNDS
    assert [vars(update) for update in late] == [vars(u) for u in LATE if any(vars(u) == vars(v) for v in late)]
    if len(late) < len(LATE):
        assert caplog.records, "a late update is gone, and not a word"
    true = [record(n) for n in range(1, ROUNDS + 1)]
    assert all(r in true for r in records)
    if version < ROUNDS or len(records) < ROUNDS:
        assert caplog.records, f"version {version}, {len(records)} rounds, and not a word"
        assert state.version > ROUNDS or version == ROUNDS, "I05: a version would be used twice"
        return "healed"
    return "harmless"


def agent_folders(base: Path) -> list[Path]:
    """An update that waits, beside the residual of the one before: after a kill, and after a clean stop."""
    store = AgentStore(base / "stopped")
    store.count_start()
    store.save(saved(1), left(1))
    store.drop(applied=True)
    store.save(saved(2), left(2))
    store.mark_counted(1)
    keep(base / "stopped", store._db)
    store.close()
    return [base / "stopped", base / "killed"]


def saved(round: int) -> Outbox:
    return Outbox("m" * 16, round, round - 1, (START * round).tobytes())


def left(round: int) -> dict[str, Slot]:
    return {name: slot((START / (round + place)).tobytes(), round) for place, name in enumerate(KEPT)}


def damage_of_agent(folder: Path, caplog: pytest.LogCaptureFixture) -> str:
    """As of the aggregator; but only a damaged name in the schema makes it refuse: a round can be trained again."""
    caplog.clear()
    store = AgentStore(folder)
    try:
        starts, outbox, own = store.count_start(), store.load(), {name: store.load_slot(name) for name in KEPT}
    except StoreError as error:
        assert "no such" in str(error)
        return "refused"
    finally:
        store.close()
    assert starts >= 1
    assert outbox is None or replace(outbox, counted=0) in (saved(1), saved(2))
    for name, found in own.items():
        if found is not None and crc32c(found.blob) == found.crc:
            assert found.blob in [left(round)[name].blob for round in (1, 2)]
    return "harmless" if outbox is not None and outbox.round == 2 else "healed"


def flip_many(
    folders: list[Path], damage: Callable[[Path, pytest.LogCaptureFixture], str], caplog: pytest.LogCaptureFixture
) -> set[str]:
    """All the ends that there were; fails with every flip that did harm."""
    caplog.set_level(logging.WARNING)
    rng, ends, harm = random.Random(1), set(), []
    for folder in folders:
        for _ in range(FLIPS):
            copy, where = flipped(folder, rng)
            try:
                ends.add(damage(copy, caplog))
            except Exception as error:
                harm.append(f"{where}: {type(error).__name__} {error}")
    assert harm == []
    return ends


def test_i12_no_bit_of_the_aggregators_state_can_flip_unnoticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert flip_many(aggregator_folders(tmp_path), damage_of_aggregator, caplog) >= {"refused", "healed"}


def test_i12_no_flipped_bit_of_the_agents_state_is_sent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert flip_many(agent_folders(tmp_path), damage_of_agent, caplog) >= {"harmless", "healed"}
