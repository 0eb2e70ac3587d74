"""What the helper keeps on disk: its state, and the answers of the last rounds. Bounded, whatever is asked.

    helper.db    state, answers, memory of noise, serials of documents: one transaction a round, synchronous=FULL
    opened       the state once more, replaced whole after each commit

SQLite drops the newest commits after a flipped bit in its log, without a word. For a helper that would be a round that
it opens twice. So the state is in a second file, and the later one of the two counts: what is lost then is an answer,
never the fact that it was given.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from edgefl.atomic import remove_partials, write_atomically
from edgefl.errors import StoreError
from edgefl.helper.state import State
from edgefl.hosting.store import FileGuard, Schema, claim, durable, open_database, seal, set_aside, unseal

DIGEST_BYTES = 32
STATE, MEMORY = "state", "memory"
_SQL = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS answers (round INTEGER PRIMARY KEY, answer BLOB NOT NULL);
"""
_SCHEMA = Schema(1, _SQL, {})
log = logging.getLogger("edgefl.helper")


class HelperStore:
    """`helper.db` in the state folder. One thread uses it; raises StoreError."""

    def __init__(self, folder: Path) -> None:
        self._path, self._copy = folder / "helper.db", folder / "opened"
        self._claim = claim(folder)
        remove_partials(folder)
        try:
            self._db = open_database(self._path, _SCHEMA, replaceable=True)
            self._guard = FileGuard(self._path)
            self.state = self._load()
        except BaseException:
            self._claim.close()
            raise

    @durable
    def _load(self) -> State:
        """The later of both; StoreError if there was one and none can be read."""
        found = self._from_database(), self._from_copy()
        known = [state for state in found if state is not None]
        if not known and (self._copy.exists() or set_aside(self._path)):
            raise StoreError(
                f"{self._path.parent} has lost what was opened: begin a new epoch with `edgefl keys epoch`, unpack the "
                "bundle, and start in an empty state_dir"
            )
        newest = max(known, key=_age, default=State())
        if found[0] != newest and found[1] is not None:
            log.error("%s has lost its newest commits: is the disk failing?", self._path)
        return newest

    def _from_database(self) -> State | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (STATE,)).fetchone()
        return _state(None if row is None else row[0])

    def _from_copy(self) -> State | None:
        return _state(self._copy.read_bytes()) if self._copy.exists() else None

    @durable
    def save(self, state: State, answer: bytes | None = None, memory: bytes | None = None) -> None:
        """Store the state, the answer of its newest round and the memory of correlated noise; durable when this
        returns. Answers of rounds that the state does not name are dropped."""
        self._guard.check()
        if state.epsilon < self.state.epsilon:
            raise StoreError(f"epsilon falls from {self.state.epsilon:g} to {state.epsilon:g}: stopped: it never may")
        raw = seal(state.to_bytes())
        kept = [one.round for one in state.opened]
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (STATE, raw))
            if answer is not None:
                self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (state.round, _digested(answer)))
            if memory is not None:
                self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (MEMORY, _digested(memory)))
            marks = ",".join("?" * len(kept))
            self._db.execute(f"DELETE FROM answers WHERE round NOT IN ({marks})", kept)
        write_atomically(self._copy, raw, mode=0o600)
        self.state = state

    @durable
    def answer(self, round: int) -> bytes | None:
        """The answer that was kept for this round; None if nothing was, or if it is damaged."""
        row = self._db.execute("SELECT answer FROM answers WHERE round = ?", (round,)).fetchone()
        return None if row is None else _sound(row[0])

    @durable
    def memory(self) -> bytes | None:
        """The memory of correlated noise; None without one, or if it is damaged. The noise then begins anew."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (MEMORY,)).fetchone()
        return None if row is None else _sound(row[0])

    @durable
    def highest(self, key: str, number: int) -> int:
        """The highest number that was ever given for `key`, this one too; durable when this returns."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        value = unseal(row[0]) if row is not None else b"0"
        if value is None or not value.isdigit():
            raise StoreError(f"{self._path} is damaged ({key}): begin a new epoch of the helper's keys")
        known = int(value)
        if number > known:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, seal(b"%d" % number)))
        return max(number, known)

    def close(self) -> None:
        self._db.close()
        self._claim.close()


def _digested(data: bytes) -> bytes:
    """Behind its SHA-256: SQLite has no checksums."""
    return hashlib.sha256(data).digest() + data


def _sound(blob: object) -> bytes | None:
    """What `_digested` was given; None if it is damaged."""
    if not isinstance(blob, bytes):
        return None
    found = blob[DIGEST_BYTES:]
    return found if hashlib.sha256(found).digest() == blob[:DIGEST_BYTES] else None


def _state(row: object) -> State | None:
    """The state in a row; None if it is damaged."""
    raw = unseal(row)
    if raw is None:
        return None
    try:
        return State.from_bytes(raw)
    except StoreError:
        return None


def _age(state: State) -> tuple[float, ...]:
    return state.epoch, state.signer_epoch, state.round, state.serial, state.restored, state.epsilon
