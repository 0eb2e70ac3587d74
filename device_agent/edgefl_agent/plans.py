"""Plans: the plans that a device was asked to train, and which of them its owner has approved, as files.

    plans/ID.txt        what the plan is, in words; the agent writes it, and keeps the newest MOST
    plans/ID.approved   the owner has approved it; `edgefl-agent approve` writes it, or the agent for the first plan

They lie in the state folder. ID is 64 hex digits (protocol/approval.py). Each file has one writer, so a command
needs no word with the agent, which looks at the folder's names once a second. Nobody else may read them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from edgefl.atomic import sync_folder, write_atomically
from edgefl.errors import StoreError, UsageError
from edgefl.protocol.approval import SHORTEST

AGAIN_S = 60.0  # between two plans whose words are saved: an aggregator may offer a thousand in a second
MOST = 16  # plans whose words are kept: a federation may offer any number
ID = re.compile("[0-9a-f]{64}")


class Plan(NamedTuple):
    """One that was offered, or is approved; `words` are "" if it never was offered here."""

    id: str
    approved: bool
    words: str


class PlanFolder:
    """`plans/` of a state folder; made when something is first saved. Raises StoreError."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "plans"

    def approved(self) -> frozenset[str]:
        """Ids of all approved plans."""
        return frozenset(self._ids(".approved"))

    def all(self) -> list[Plan]:
        """All plans, those that wait first, then by id."""
        approved = self.approved()
        found = [Plan(id, id in approved, self._words(id)) for id in {*approved, *self._ids(".txt")}]
        return sorted(found, key=lambda plan: (plan.approved, plan.id))

    def save(self, id: str, words: str) -> None:
        """Keep what a plan is; beyond MOST, the words that were saved first go."""
        if self._words(id) == words:
            return
        self._write(f"{id}.txt", words.encode())
        offered = sorted(self._ids(".txt"), key=lambda id: self._age(f"{id}.txt"))
        for old in offered[:-MOST]:
            with suppress(OSError):
                (self.path / f"{old}.txt").unlink()

    def approve(self, id: str) -> None:
        """Durable when this returns."""
        self._write(f"{id}.approved", b"")

    def find(self, prefix: str) -> str:
        """The id that begins so; UsageError unless exactly one does. A whole id need not have been offered yet."""
        if ID.fullmatch(prefix):
            return prefix
        if not re.fullmatch(f"[0-9a-f]{{{SHORTEST},64}}", prefix):
            raise UsageError(f"{prefix!r} is no plan's id: give at least {SHORTEST} of its hex digits")
        found = [plan.id for plan in self.all() if plan.id.startswith(prefix)]
        if len(found) != 1:
            why = "no plan's id begins" if not found else f"{len(found)} plans' ids begin"
            raise UsageError(f"{why} with {prefix}: edgefl-agent plans lists them")
        return found[0]

    def _ids(self, ending: str) -> Iterator[str]:
        try:
            status, parent = os.lstat(self.path), os.stat(self.path.parent)
            names = os.listdir(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}: the plans can't be read") from error
        if status.st_uid not in (os.geteuid(), parent.st_uid) or status.st_mode & 0o022:
            raise StoreError(f"{self.path} is another user's, or open to others, who could approve plans: delete it")
        yield from (stem for name in names if name.endswith(ending) and ID.fullmatch(stem := name[: -len(ending)]))

    def _words(self, id: str) -> str:
        with suppress(OSError, UnicodeDecodeError):
            return (self.path / f"{id}.txt").read_text("utf-8")
        return ""

    def _age(self, name: str) -> int:
        with suppress(OSError):
            return (self.path / name).stat().st_mtime_ns
        return 0

    def _write(self, name: str, data: bytes) -> None:
        try:
            if not self.path.exists():
                self.path.mkdir(mode=0o700)
                sync_folder(self.path.parent)
            write_atomically(self.path / name, data, mode=0o600)
        except OSError as error:
            raise StoreError(f"{self.path / name}: {error.strerror}: check the state folder and its disk") from error


class Offers:
    """Saves the words of the newest plan that waits, at once or AGAIN_S after the last ones."""

    def __init__(self, folder: PlanFolder) -> None:
        self._folder = folder
        self._newest: tuple[str, str] | None = None
        self._save_at = 0.0

    def offer(self, id: str, words: str) -> None:
        """A plan waits for the owner."""
        self._newest = id, words

    def look(self, now: float) -> None:
        """Save what is due."""
        if self._newest is not None and now >= self._save_at:
            self._folder.save(*self._newest)
            self._newest, self._save_at = None, now + AGAIN_S
