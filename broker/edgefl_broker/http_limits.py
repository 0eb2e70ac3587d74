"""Limits of the dashboard's connections: how many there are, and how long a client may take over a request."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST = 64  # connections
HEAD_BYTES = 16 * 1024
LOOK_S = 10.0
ANSWER_LOOKS = 60  # of LOOK_S that an answer may take: a model over a slow link


class BoundedSocket(socket.socket):
    """A listening socket that closes a connection beyond MOST as soon as it accepts it. So a connection counts from its
    first byte: one that never ends its TLS handshake takes a file descriptor too, and rounds need those."""

    _open: tuple[socket.socket, ...] = ()

    def accept(self) -> tuple[socket.socket, Any]:
        made, address = super().accept()
        self._open = tuple(one for one in self._open if one.fileno() >= 0)
        if len(self._open) >= MOST:
            made.close()
            raise ConnectionAbortedError  # asyncio goes on with the next one
        self._open += (made,)
        return made, address


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it. A connection that begins no request, or does not read its answer, is closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._seen: Any = None
        self._looks = 0
        self.loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        is_new, self._seen = self.cycle is not self._seen, self.cycle
        is_busy = self.cycle is not None and not self.cycle.response_complete
        self._looks = 0 if is_new else self._looks + 1
        if (not is_busy and not is_new) or self._looks > ANSWER_LOOKS:
            self.transport.abort()
            return
        self.loop.call_later(LOOK_S, self._look)
