"""Dashboard: the page, /api and /metrics, served by a thread of the aggregator (docs/dashboard.md).

Rounds never wait for it. It reads what the aggregator's thread leaves for viewers (window.py), files, and the database
through a connection of its own. An action is an order in the state folder, as a command's is (hosting/orders.py): one
way in, and the folder's owner alone may use it.

It is imported only where `[dashboard] listen` is set.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import uvicorn

from edgefl.board import views
from edgefl.board.rounds import Curves, Rounds
from edgefl.errors import EdgeFLError, TransportError, UsageError
from edgefl.history_files import HistoryFiles
from edgefl.history_record import RoundRecord
from edgefl.hosting import orders
from edgefl.hosting.dashboard import DashboardConfig
from edgefl.hosting.versions import opened
from edgefl.protocol.fleet import DeviceRow, Summary

from . import gatekeeper, http_limits
from .api import make_app
from .history_view import HistoryView
from .metrics import make_metrics
from .window import View, Window

STOP_S = 2.0
log = logging.getLogger("edgefl.dashboard")


class Dashboard:
    """Listens when it is made; `start` serves. UsageError, TransportError, OSError."""

    def __init__(self, config: DashboardConfig, folder: Path, window: Window, online: Callable[[], bool]) -> None:
        config.check()
        self._folder, self._window, self._online = folder, window, online
        self._history = HistoryView()
        token = gatekeeper.token_of(folder)
        self._metrics = make_metrics(self._summary, self._history, online)
        app = gatekeeper.Gatekeeper(make_app(self), config, token)
        self._socket = _listen(*config.address)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app, http=http_limits.BoundedProtocol, ws="none", lifespan="off", loop="asyncio", log_config=None,
                log_level="critical", access_log=False, proxy_headers=False, server_header=False,
                timeout_keep_alive=10, timeout_graceful_shutdown=1, backlog=http_limits.MOST,
                h11_max_incomplete_event_size=http_limits.HEAD_BYTES, ssl_certfile=config.cert, ssl_keyfile=config.key,
            )
        )  # fmt: skip
        self._server.config.load()  # a certificate that can't be read is said now
        scheme, name = "https" if config.cert else "http", config.address[0]
        host = f"[{name}]" if ":" in name else name
        self.url = f"{scheme}://{host}:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, name="dashboard", daemon=True)

    # The aggregator's thread

    def start(self) -> None:
        log.info("dashboard: %s; actions need the token in %s", self.url, self._folder / gatekeeper.TOKEN_FILE)
        self._thread.start()

    def add(self, record: RoundRecord) -> None:
        """A round is over, and on disk."""
        self._history.add(record)

    def forget(self, device: str) -> None:
        """The device was cut out of the records on disk."""
        self._history.forget(device)

    def close(self) -> None:
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(STOP_S)
        self._socket.close()

    # The dashboard's threads

    def _run(self) -> None:
        """What fails here ends the dashboard, and no round."""
        try:
            threading.Thread(target=self._read_history, name="dashboard-history", daemon=True).start()
            self._server.run([self._socket])
        except Exception:
            log.exception("the dashboard has ended; rounds go on")

    def _read_history(self) -> None:
        try:
            self._history.read(HistoryFiles(self._folder).records())
        except (OSError, EdgeFLError) as error:
            log.warning("the dashboard can't read the rounds before this start: %s", error)

    def _look(self) -> View | None:
        return self._window.look()

    def _summary(self) -> Summary | None:
        view = self._look()
        return None if view is None else view.summary

    def _rows(self) -> list[DeviceRow]:
        view = self._look()
        return [] if view is None else view.rows

    def overview(self) -> views.Overview | None:
        summary = self._summary()
        if summary is None:
            return None
        newest = self._history.look(lambda past: past.newest)
        return views.overview(summary, time.time(), newest, connected=self._online())

    def devices(self, show: str, search: str, offset: int, limit: int) -> views.Devices:
        return views.devices(self._rows(), show=show, search=search, offset=offset, limit=limit)

    def device(self, name: str) -> views.Device | None:
        return views.find(self._rows(), name)

    def rounds(self, before: int, limit: int) -> Rounds:
        return self._history.look(lambda past: past.rounds(before, limit))

    def curves(self) -> Curves:
        return self._history.look(lambda past: past.curves())

    def versions(self) -> views.Versions:
        with opened(self._folder) as versions:
            kept = versions.kept()
        tags = {one.version: one.tags for one in kept}
        return self._history.look(lambda past: views.versions(list(tags), past.version, tags))

    def model(self, version: int) -> tuple[str, bytes] | None:
        with opened(self._folder) as versions:
            if version not in [one.version for one in versions.kept()]:
                return None
            return f"{versions.meta('federation') or 'model'}-v{version}.onnx", b"".join(versions.file(version))

    def order(self, order: orders.Order) -> orders.Answer | None:
        return orders.give(self._folder, order)

    def metrics(self) -> bytes:
        return self._metrics()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = http_limits.BoundedSocket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen(http_limits.MOST)  # connections wait until the thread serves them
    except OSError as error:
        made.close()
        text = f"[dashboard] can't listen at {host}:{port}: {error.strerror}"
        if error.errno in (errno.EADDRNOTAVAIL, errno.EADDRINUSE):  # which may pass: the unit tries again
            raise TransportError(f"{text}: end what listens there, or choose an address of this machine") from None
        raise UsageError(f"{text}: choose another port") from None
    return made
