"""Watcher: the dashboard where `[dashboard] listen` is set, and nothing elsewhere. What it needs is imported then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from edgefl.errors import UsageError
from edgefl.history_record import RoundRecord
from edgefl.hosting.config import AggregatorConfig

from .window import Window


class Watcher(Protocol):
    """What the aggregator tells it."""

    def start(self) -> None: ...
    def add(self, record: RoundRecord) -> None: ...
    def forget(self, device: str) -> None: ...
    def close(self) -> None: ...


class Nobody:
    """Where there is no dashboard."""

    def start(self) -> None:
        pass

    def add(self, record: RoundRecord) -> None:
        pass

    def forget(self, device: str) -> None:
        pass

    def close(self) -> None:
        pass


def open_watcher(config: AggregatorConfig, folder: Path, window: Window, online: Callable[[], bool]) -> Watcher:
    """`online`: whether the aggregator is connected. UsageError if it may not listen, TransportError if it can't."""
    if config.dashboard.listen is None:
        return Nobody()
    try:
        from .dashboard import Dashboard
    except ImportError as error:
        raise UsageError(
            f"the dashboard needs {error.name}: pip install 'edgefl-toolkit[dashboard]', or remove [dashboard] listen"
        ) from None
    return Dashboard(config.dashboard, folder, window, online)
