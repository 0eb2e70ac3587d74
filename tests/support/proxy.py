"""A TCP proxy in user space that makes a loopback connection to an MQTT broker as bad as a link in the field.

One thread, one seed. What IP loses, TCP shows as a stall until it is sent again: so does `loss`. Kernels without netem
have nothing else for delay and loss; small socket buffers keep the kernel from hiding what is slow.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

SEGMENT = 1400  # bytes that travel together
RTO_S = 0.2  # the first retransmission; each further one takes twice as long (RFC 6298)
PUBACK = 4
DEFAULT_LIMIT = 64 * 1024  # of asyncio's readers
IN_FLIGHT = 64  # segments on the way, if nothing bounds the buffers


@dataclass(frozen=True)
class Bad:
    """What is wrong with a link, in both directions.

    delay_s: least and greatest latency; loss: share of segments lost; rate: bytes per second.
    cut_s: mean life of a connection; cut_bytes: bytes after which it is cut, in the middle of whatever it is.
    swallow: share of PUBACKs that vanish. buffer: bytes that wait at most in each of the proxy's buffers.
    """

    delay_s: tuple[float, float] = (0.0, 0.0)
    loss: float = 0.0
    rate: float | None = None
    cut_s: float | None = None
    cut_bytes: int | None = None
    swallow: float = 0.0
    buffer: int | None = None


class Proxy:
    """Listens on a port of its own at `host` and connects to the broker's `port`. A context manager.

    `bad` may be replaced at any time; it holds for connections that come. While `black_hole` is set nothing passes and
    nobody is told. `seen` counts connections, cuts, losses, swallowed, and the bytes that came from the client (up) and
    from the broker (down).
    """

    def __init__(self, port: int, bad: Bad | None = None, seed: int = 0, *, host: str = "127.0.0.1") -> None:
        self.bad = bad or Bad()
        self.black_hole = False
        self.seen: Counter[str] = Counter()
        self.host = host
        self._target, self._seed = port, seed
        self._cuts: set[Callable[[], None]] = set()
        self._listener = socket.create_server((host, 0))
        limit = self.bad.buffer or DEFAULT_LIMIT
        if self.bad.buffer:  # before the handshake, which promises the client a window
            _shrink_socket(self._listener, limit)
        self.port = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, sock=self._listener, limit=limit)
        )
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"mqtt://{self.host}:{self.port}"

    def cut(self) -> None:
        """Cut all connections, now."""
        for cut in list(self._cuts):
            self._loop.call_soon_threadsafe(cut)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(5.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        self.seen["connections"] += 1
        bad, name = self.bad, f"{self._seed} {self.seen['connections']}"
        try:
            limit = bad.buffer or DEFAULT_LIMIT
            broker, to_broker = await asyncio.open_connection("127.0.0.1", self._target, limit=limit)
        except OSError:
            to_client.transport.abort()
            return
        ends = [to_client, to_broker]
        for end in ends:
            _shrink(end, bad.buffer)
        broken = asyncio.get_running_loop().create_future()

        def cut() -> None:
            if not broken.done():
                self.seen["cuts"] += 1
                broken.set_result(None)

        self._cuts.add(cut)
        tasks = [
            asyncio.create_task(_Pipe(self, bad, name, "up", cut).run(client, to_broker)),
            asyncio.create_task(_Pipe(self, bad, name, "down", cut).run(broker, to_client)),
        ]
        life_s = None if bad.cut_s is None else bad.cut_s * random.Random(name).uniform(0.5, 1.5)
        timer = None if life_s is None else asyncio.get_running_loop().call_later(life_s, cut)
        try:
            await asyncio.wait([*tasks, broken], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass  # `_stop`; of a server's task that ends so, Python 3.11 makes a traceback
        finally:
            self._cuts.discard(cut)
            if timer is not None:
                timer.cancel()
            for task in tasks:
                task.cancel()
            for end in ends:
                end.transport.abort() if broken.done() else end.close()


class _Pipe:
    """One direction of one connection."""

    def __init__(self, proxy: Proxy, bad: Bad, name: str, way: str, cut: Callable[[], None]) -> None:
        self._proxy, self._bad, self._rng, self._cut = proxy, bad, random.Random(f"{name} {way}"), cut
        self._way = way
        room = max(1, bad.buffer // SEGMENT) if bad.buffer else IN_FLIGHT
        self._line: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue(maxsize=room)
        self._now = asyncio.get_running_loop().time

    async def run(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Until the source ends and all of it is out, or one of the two breaks."""
        read = self._chunk if not self._bad.swallow else self._packet
        delivery = asyncio.create_task(self._deliver(sink))
        try:
            await self._send(source, read)
            await delivery
        except OSError:
            pass
        finally:
            delivery.cancel()

    async def _send(
        self, source: asyncio.StreamReader, read: Callable[[asyncio.StreamReader], Awaitable[bytes | None]]
    ) -> None:
        due = self._now()
        while (data := await read(source)) is not None:
            self._proxy.seen[self._way] += len(data)
            if not data:
                continue
            latency = self._rng.uniform(*self._bad.delay_s) + self._stall()
            due = max(due, self._now() + latency) + (len(data) / self._bad.rate if self._bad.rate else 0.0)
            await self._line.put((due, data))
        await self._line.put(None)

    def _stall(self) -> float:
        seconds, rto = 0.0, RTO_S
        while self._rng.random() < self._bad.loss:
            self._proxy.seen["losses"] += 1
            seconds, rto = seconds + rto, 2 * rto
        return seconds

    async def _deliver(self, sink: asyncio.StreamWriter) -> None:
        left = self._bad.cut_bytes
        while (item := await self._line.get()) is not None:
            due, data = item
            while self._proxy.black_hole or self._now() < due:
                await asyncio.sleep(0.01 if self._proxy.black_hole else due - self._now())
            if left is not None and len(data) >= left:
                sink.write(data[:left])
                await sink.drain()
                self._cut()
                return
            left = None if left is None else left - len(data)
            sink.write(data)
            await sink.drain()

    async def _chunk(self, source: asyncio.StreamReader) -> bytes | None:
        return await source.read(SEGMENT) or None

    async def _packet(self, source: asyncio.StreamReader) -> bytes | None:
        """The next MQTT packet, empty if it is a PUBACK that vanishes, None at the end."""
        try:
            head = await source.readexactly(2)
            length, shift = head[1] & 0x7F, 7
            while head[-1] & 0x80:
                head += await source.readexactly(1)
                length |= (head[-1] & 0x7F) << shift
                shift += 7
            packet = head + await source.readexactly(length)
        except asyncio.IncompleteReadError:
            return None
        if packet[0] >> 4 == PUBACK and self._rng.random() < self._bad.swallow:
            self._proxy.seen["swallowed"] += 1
            return b""
        return packet


def _shrink(end: asyncio.StreamWriter, buffer: int | None) -> None:
    if buffer is not None:
        end.transport.set_write_buffer_limits(high=buffer)
        _shrink_socket(end.get_extra_info("socket"), buffer)


def _shrink_socket(sock: socket.socket, buffer: int) -> None:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, buffer)
