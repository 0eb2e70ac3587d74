"""Reload: a daemon reads its configuration again on SIGHUP.

Settings that the daemon can change while it works take effect; the others are named in the log, and need a restart. A
file with any mistake changes nothing.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from types import FrameType
from typing import Generic, TypeVar

from msgspec import Struct

from ..errors import EdgeFLError, StoreError
from ..settings import schema
from .daemon import handling

C = TypeVar("C", bound=Struct)
KEPT = "the settings stay as they are"


class Reload(Generic[C]):
    """`load` reads the file again; `live` has the keys, as "rounds.goal", and whole tables, as "gate", that may change.
    `config` is what was started with, and what is in use after `look`."""

    def __init__(self, config: C, live: Collection[str], log: logging.Logger) -> None:
        self.config = config
        self._live, self._log = live, log
        self._load: Callable[[], C] | None = None

    def ask(self, load: Callable[[], C]) -> None:
        """Have the next `look` read the file. Safe in a signal handler and in any thread."""
        self._load = load

    def look(self, use: Callable[[C], None]) -> None:
        """Read the file if that was asked, and `use` what has changed. `use` raises EdgeFLError, with nothing changed,
        for settings that do not go together. A StoreError goes on: a disk that refuses ends the daemon."""
        load, self._load = self._load, None
        if load is None:
            return
        try:
            wanted = load()
            changed = _differences(self.config, wanted)
            live = [key for key in changed if key in self._live or key.partition(".")[0] in self._live]
            config = schema.replace(self.config, {key: changed[key] for key in live})
            if live:
                use(config)
        except StoreError:
            raise
        except EdgeFLError as error:
            self._log.error("configuration not read again: %s: %s", error, KEPT)
            return
        self.config = config
        self._tell(live, [key for key in changed if key not in live])

    def _tell(self, live: list[str], others: list[str]) -> None:
        if not live and not others:
            self._log.info("configuration read again: nothing has changed")
        if live:
            self._log.info("configuration read again: in use now: %s", ", ".join(live))
        if others:
            self._log.warning("configuration read again: restart to change %s", ", ".join(others))


def on_hangup(reload: Callable[[], None]) -> AbstractContextManager[None]:
    """Within the block, SIGHUP calls `reload`. Main thread only."""

    def handle(number: int, frame: FrameType | None) -> None:
        reload()

    return handling(handle, signal.SIGHUP)


def _differences(old: Struct, new: Struct) -> dict[str, object]:
    """The settings that differ, by key, with their new values."""
    known = {setting.key: setting.default for setting in schema.settings_of(old)}
    found = {setting.key: setting.default for setting in schema.settings_of(new)}
    return {key: found.get(key) for key in {**known, **found} if known.get(key) != found.get(key)}
