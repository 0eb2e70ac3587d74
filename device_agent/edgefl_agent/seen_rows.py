"""What a device has seen of its federation, in agent.db: two copies for each root, sealed, written in one transaction.

A device that forgets it would agree again to less epsilon than was spent, and to helpers' keys that were replaced. So
one damaged copy is healed from the other; and where both are, or are gone, what is loaded says so (`Seen.lost`), also
after the next restart, until the owner has run `edgefl-agent recover`.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec

from edgefl.device.seen import Seen
from edgefl.errors import StoreError
from edgefl.hosting.store import read_only, seal, set_aside, unseal

COPIES = (1, 2)
SQL = """
CREATE TABLE IF NOT EXISTS seen (
    root TEXT NOT NULL, copy INTEGER NOT NULL, record BLOB NOT NULL, PRIMARY KEY (root, copy)
) WITHOUT ROWID;
"""
# An old row does not name its root. The first root that is looked up gets it.
ONE_ROW = f"""
ALTER TABLE seen RENAME TO seen_of_one;
{SQL}
INSERT INTO seen SELECT '', 1, record FROM seen_of_one LIMIT 1;
DROP TABLE seen_of_one;
"""
log = logging.getLogger("edgefl.agent")


def save(database: sqlite3.Connection, seen: Seen) -> None:
    """Replace what was seen of this root; in the caller's transaction."""
    record = seal(msgspec.json.encode(seen))
    database.execute("DELETE FROM seen WHERE root = ''")
    database.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", [(seen.root, copy, record) for copy in COPIES])


def load(database: sqlite3.Connection, root: str, path: Path) -> Seen | None:
    """What was seen of the root with this fingerprint; None if that is nothing. `path`: of the database."""
    rows = _rows(database, root) or _rows(database, "")
    found = [seen for record in rows if (seen := _read(record)) is not None]
    if found:
        if len(found) < len(rows):
            log.warning("a copy of what %s has of earlier rounds is damaged: healed from the other", path)
        return replace(found[0], root=root)
    if not rows and not _knew(database, root, path):
        return None
    log.error(
        "what %s has of earlier rounds is damaged: an old round may be taken for a new one, and masked rounds are "
        "refused until its owner stops the agent and runs `edgefl-agent recover`",
        path,
    )
    return Seen(root=root, lost=True)


def look(path: Path, root: str) -> Seen | str:
    """What was seen of the root, in a database that an agent may be using, and that is left as it is; or why that is
    not known. StoreError if it can't be read, or is so damaged that an agent sets it aside."""
    try:
        with read_only(path) as database:
            if (verdict := database.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(verdict)
            return load(database, root, path) or Seen(root=root)
    except sqlite3.OperationalError as error:
        if str(error).startswith("no such"):  # table or column
            return f"{path} is of an earlier version, and no agent has opened it since"
        raise StoreError(f"{path} can't be read ({error}): run this as the folder's owner, or as root") from None
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise StoreError(
            f"{path} is damaged ({error}), so an agent takes part in no masked round: stop it and run `edgefl-agent "
            "recover`"
        ) from None


def epsilons(database: sqlite3.Connection) -> dict[str, float]:
    """The highest epsilon that rounds have told, by the root's fingerprint, as far as it can be read."""
    return {seen.root: seen.epsilon for seen in records(database) if seen is not None}


def records(database: sqlite3.Connection) -> Iterator[Seen | None]:
    """What was seen, of each root twice; None for a record that is damaged. sqlite3.Error where the file is."""
    return (_read(record) for (record,) in database.execute("SELECT record FROM seen"))


def _rows(database: sqlite3.Connection, root: str) -> list[object]:
    rows = database.execute("SELECT record FROM seen WHERE root = ? ORDER BY copy", (root,))
    return [record for (record,) in rows]


def _read(record: object) -> Seen | None:
    blob = unseal(record)
    try:
        return None if blob is None else msgspec.json.decode(blob, type=Seen)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _knew(database: sqlite3.Connection, root: str, path: Path) -> bool:
    """Whether there was something that is gone: the database was set aside as damaged, or the ledger has an update to
    this root; or a masked one from before schema 5, which told no root, and no root has anything."""
    if set_aside(path):
        return True
    words = f'"root":"{root}"'.encode()
    if database.execute("SELECT 1 FROM ledger WHERE instr(entry, ?) LIMIT 1", (words,)).fetchone() is not None:
        return True
    query = "SELECT 1 FROM ledger WHERE instr(entry, ?) AND NOT instr(entry, ?) AND NOT EXISTS (SELECT 1 FROM seen)"
    return database.execute(query, (b'"mode":"masked"', b'"root":"')).fetchone() is not None
