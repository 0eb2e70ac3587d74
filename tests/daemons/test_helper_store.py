"""What the helper keeps on disk: durable, bounded, and never less than it has given away."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path

import msgspec
import pytest
from edgefl_broker.helper.config import HelperConfig
from edgefl_broker.helper.keys import KeyFolder
from edgefl_broker.helper.store import HelperStore
from enrolled import made, unpack

from edgefl.errors import StoreError, UsageError
from edgefl.helper.events import KeysRead, RosterRead
from edgefl.helper.state import KEPT_ROUNDS, Opened, State
from edgefl.keys import enrolment
from edgefl.privacy.ledger import Ledger
from edgefl.transports.settings import MqttConfig
from edgefl.trust.settings import KeysConfig

NEW = State(serial=1, signer_epoch=1, run="00112233aabbccdd", epoch=1)


def rounds(store: HelperStore, count: int, size: int = 100) -> list[State]:
    """Open so many rounds; the states after each."""
    states, spent = [NEW], store.state.epsilon
    for round in range(1, count + 1):
        ledger = Ledger("ab" * 8, 1e-5, spent + round / 10, NEW.run, round)
        states.append(states[-1].after(Opened.of(round, bytes(32), bytes([round]) * 32), ledger))
        store.save(states[-1], b"%d" % round * size)
    return states


def test_what_was_saved_is_there_again(tmp_path: Path) -> None:
    store = HelperStore(tmp_path)
    assert store.state == State()
    states = rounds(store, 9)
    store.close()
    again = HelperStore(tmp_path)
    assert again.state == states[-1] and again.state.epsilon == 0.9
    assert [again.answer(round) is not None for round in range(1, 10)] == [False] * 5 + [True] * KEPT_ROUNDS
    assert again.answer(9) == b"9" * 100
    assert {file.stat().st_mode & 0o077 for file in tmp_path.iterdir()} == {0}


def test_what_is_spent_never_falls_on_the_disk(tmp_path: Path) -> None:
    store = HelperStore(tmp_path)
    *_, before, last = rounds(store, 3)
    for less in (before.ledger, None):
        with pytest.raises(StoreError, match="epsilon falls"):
            store.save(msgspec.structs.replace(last, ledger=less), b"answer")
    store.close()
    assert HelperStore(tmp_path).state == last


def test_the_disk_does_not_grow_with_the_rounds(tmp_path: Path) -> None:
    store = HelperStore(tmp_path)
    rounds(store, 8, size=100_000)
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = sum(file.stat().st_size for file in tmp_path.iterdir())
    for _ in range(5):
        rounds(store, 8, size=100_000)
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= before + 200_000


def test_a_state_folder_belongs_to_one_helper(tmp_path: Path) -> None:
    store = HelperStore(tmp_path)
    with pytest.raises(StoreError, match="in use by another process"):
        HelperStore(tmp_path)
    store.close()
    HelperStore(tmp_path).close()


def test_a_commit_is_synced_before_save_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = HelperStore(tmp_path)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(number) or fsync(number))
    rounds(store, 1)
    assert synced, "the second file too"


def test_a_full_disk_is_a_store_error_and_nothing_half_done(tmp_path: Path) -> None:
    store = HelperStore(tmp_path)
    states = rounds(store, 2)
    store._db.execute("PRAGMA max_page_count = 1")  # SQLite's own "database or disk is full"
    third = states[-1].after(Opened.of(3, bytes(32), bytes(32)), states[-1].ledger)
    with pytest.raises(StoreError, match="check the disk, its space"):
        store.save(third, bytes(200_000))
    store.close()
    again = HelperStore(tmp_path)
    assert again.state == states[-1] and again.answer(2) is not None and again.answer(3) is None


def test_a_write_that_died_between_both_files_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = HelperStore(tmp_path)
    states = rounds(store, 2)

    def die(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    third = states[-1].after(Opened.of(3, bytes(32), bytes(32)), states[-1].ledger)
    with monkeypatch.context() as patch:
        patch.setattr("edgefl_broker.helper.store.write_atomically", die)
        with pytest.raises(KeyboardInterrupt):
            store.save(third, b"third")
    store.close()
    again = HelperStore(tmp_path)
    assert again.state == third and again.answer(3) == b"third"


@pytest.mark.parametrize("lost", ["commits", "database", "row", "copy", "copy damaged"])
def test_i34_a_disk_that_loses_one_of_both_files_opens_no_round_again(tmp_path: Path, lost: str) -> None:
    """SQLite drops its newest commits after a flipped bit in its log, and says nothing."""
    store = HelperStore(tmp_path)
    rounds(store, 2)
    store.close()
    shutil.copytree(tmp_path, tmp_path / "old", ignore=shutil.ignore_patterns("old"))
    store = HelperStore(tmp_path)
    states = rounds(store, 5)
    store.close()
    if lost == "commits":
        for file in (tmp_path / "old").glob("helper.db*"):
            shutil.copy(file, tmp_path / file.name)
    elif lost == "database":
        (tmp_path / "helper.db").write_bytes(b"not a database at all" * 100)
    elif lost == "row":
        with sqlite3.connect(tmp_path / "helper.db") as database:
            database.execute("UPDATE meta SET value = x'00' WHERE key = 'state'")
    elif lost == "copy":
        (tmp_path / "opened").unlink()
    else:
        (tmp_path / "opened").write_bytes(b"{}~00000000")
    again = HelperStore(tmp_path)
    assert again.state == states[-1]
    assert again.answer(5) == (None if lost in ("commits", "database") else b"5" * 100)


def test_i34_a_folder_that_has_lost_both_is_refused(tmp_path: Path) -> None:
    store = HelperStore(tmp_path)
    rounds(store, 2)
    store.close()
    (tmp_path / "helper.db").write_bytes(b"not a database at all" * 100)
    (tmp_path / "opened").write_bytes(b"?")
    for _ in range(2):
        with pytest.raises(StoreError, match="begin a new epoch"):
            HelperStore(tmp_path)
    (tmp_path / "opened").unlink()
    with pytest.raises(StoreError, match="begin a new epoch"):
        HelperStore(tmp_path)


def test_the_memory_of_noise_is_durable_with_its_answer_and_stays_until_the_next(tmp_path: Path) -> None:
    store = HelperStore(tmp_path)
    assert store.memory() is None
    (state, *_) = rounds(store, 1)[1:]
    store.save(state.after(Opened.of(2, bytes(32), bytes(32)), state.ledger), b"second", b"memory" * 100)
    store.save(state.after(Opened.of(3, bytes(32), bytes(32)), state.ledger), b"third")
    store.close()
    again = HelperStore(tmp_path)
    assert again.memory() == b"memory" * 100 and again.answer(3) == b"third"
    again._db.execute("UPDATE meta SET value = zeroblob(600) WHERE key = 'memory'")
    assert again.memory() is None, "it begins anew"


def test_a_damaged_answer_is_none(tmp_path: Path) -> None:
    store = HelperStore(tmp_path)
    rounds(store, 1)
    for value in ("zeroblob(132)", "'text'", "7", "x''"):
        store._db.execute(f"UPDATE answers SET answer = {value}")
        assert store.answer(1) is None


@pytest.mark.parametrize("seed", range(40))
def test_any_flipped_bit_is_an_error_or_changes_nothing(tmp_path: Path, seed: int) -> None:
    """In the database or beside it: what is read is the newest state, or one that has both files' word against it."""
    import random

    rng = random.Random(seed)
    store = HelperStore(tmp_path)
    states = rounds(store, 3)
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    file = tmp_path / rng.choice(["helper.db", "opened"])
    data = bytearray(file.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(bytes(data))
    try:
        again = HelperStore(tmp_path)
    except StoreError:
        return
    assert again.state == states[-1]
    assert again.answer(3) in (None, b"3" * 100)
    again.close()


def test_a_state_that_is_none_is_an_error() -> None:
    for raw in (b"", b"{", b'{"round": "x"}', b'{"unknown": 1}', b"\xff"):
        with pytest.raises(StoreError, match="new epoch"):
            State.from_bytes(raw)
    assert State.from_bytes(NEW.to_bytes()) == NEW and len(json.dumps(msgspec.to_builtins(NEW))) < 300


# The folder of keys


@pytest.fixture
def home(tmp_path: Path) -> tuple[Path, Path, HelperConfig]:
    keys = made(tmp_path / "keys", "pi-01")
    (bundle,) = enrolment.add(keys, ["north"], role="helper")
    home = unpack(bundle, tmp_path / "helper")
    url = MqttConfig("mqtts://localhost")
    return keys, home, HelperConfig(federation="f", name="north", mqtt=url, keys=KeysConfig(str(home)))


def test_keys_and_roster_are_read_and_read_again(home: tuple[Path, Path, HelperConfig]) -> None:
    keys, folder, config = home
    found = KeyFolder(config, lambda name, serial: serial)
    assert found.keys.epoch == 1 and found.roster.enrolled == ["pi-01"] and found.news() == []
    enrolment.revoke_names(keys, ["pi-01"])
    shutil.copy(keys / "aggregator" / "roster.json", folder)
    (read,) = found.news()
    assert isinstance(read, RosterRead) and read.roster.enrolled == []
    (bundle,) = enrolment.next_helper_epoch(keys, ["helper-north"])
    unpack(bundle, folder)
    news = found.news()
    assert [one.keys.epoch for one in news if isinstance(one, KeysRead)] == [2]
    assert found.news() == []


def test_a_bundle_that_is_half_unpacked_waits(home: tuple[Path, Path, HelperConfig], tmp_path: Path) -> None:
    keys, folder, config = home
    found = KeyFolder(config, lambda name, serial: serial)
    (bundle,) = enrolment.next_helper_epoch(keys, ["helper-north"])
    new = unpack(bundle, tmp_path / "new")
    for name in ("box.key", "signing.key", "helper.json"):
        assert found.news() == []
        shutil.copy(new / name, folder)
    (read,) = found.news()
    assert isinstance(read, KeysRead) and read.keys.epoch == 2


@pytest.mark.parametrize("name", ["roster.json", "helper.json"])
def test_documents_from_before_are_refused_across_restarts(
    home: tuple[Path, Path, HelperConfig], tmp_path: Path, name: str
) -> None:
    keys, folder, config = home
    store = HelperStore(tmp_path / "state")
    KeyFolder(config, store.highest)
    old = folder.parent / "old"
    shutil.copytree(folder, old)
    enrolment.revoke_names(keys, ["pi-01"])
    (bundle,) = enrolment.next_helper_epoch(keys, ["helper-north"])
    unpack(bundle, folder)
    KeyFolder(config, store.highest)
    store.close()
    store = HelperStore(tmp_path / "state")
    for file in ("roster.json",) if name == "roster.json" else ("box.key", "signing.key", "helper.json"):
        shutil.copy(old / file, folder)
    with pytest.raises(UsageError, match="has been in use: copy it again"):
        KeyFolder(config, store.highest)
    store.close()


def test_keys_that_others_can_read_or_that_do_not_fit_are_refused(home: tuple[Path, Path, HelperConfig]) -> None:
    _, folder, config = home

    def read(config: HelperConfig = config) -> KeyFolder:
        return KeyFolder(config, lambda name, serial: serial)

    (folder / "box.key").chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        read()
    (folder / "box.key").chmod(0o600)
    with pytest.raises(UsageError, match="is about helper 'north'"):
        read(msgspec.structs.replace(config, name="south"))
    with pytest.raises(UsageError, match="of federation 'f', not 'g'"):
        read(msgspec.structs.replace(config, federation="g"))
    with pytest.raises(UsageError, match="a helper needs keys"):
        read(msgspec.structs.replace(config, keys=KeysConfig()))
    shutil.copy(folder / "box.key", folder / "signing.key")
    with pytest.raises(UsageError, match=r"not about box\.key and signing\.key"):
        read()
    (folder / "roster.json").write_bytes(b"{}\n{}")
    with pytest.raises(UsageError):
        read()
