"""What a device must not forget: how often it started, and the newest update until its round is over."""

from __future__ import annotations

from pathlib import Path

from edgefl.device_events import Outbox
from edgefl.store import claim, durable, open_database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    manifest TEXT NOT NULL, round INTEGER NOT NULL, version INTEGER NOT NULL, blob BLOB NOT NULL
);
"""


class AgentStore:
    """`agent.db` in the state folder. Used by one thread; raises StoreError."""

    def __init__(self, folder: Path) -> None:
        self._claim = claim(folder)
        self._db = open_database(folder / "agent.db", _SCHEMA, replaceable=True)  # a round can be trained again
        self._db.execute("PRAGMA cache_size = -64")  # KiB: the one row here is never read twice

    @durable
    def count_start(self) -> int:
        """This start's number, 1 the first time."""
        row = self._db.execute(
            "INSERT INTO meta VALUES ('starts', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1 RETURNING value"
        ).fetchone()
        return row[0]

    @durable
    def load(self) -> Outbox | None:
        """The saved update, if there is one."""
        row = self._db.execute("SELECT manifest, round, version, blob FROM outbox").fetchone()
        return Outbox(*row) if row else None

    @durable
    def save(self, outbox: Outbox) -> None:
        """Replace the saved update; durable when this returns."""
        values = (outbox.manifest, outbox.round, outbox.version, outbox.blob)
        self._db.execute("INSERT OR REPLACE INTO outbox VALUES (1, ?, ?, ?, ?)", values)

    @durable
    def drop(self) -> None:
        """Forget the saved update."""
        self._db.execute("DELETE FROM outbox")

    def close(self) -> None:
        self._db.close()
        self._claim.close()
