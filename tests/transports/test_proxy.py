"""The proxy that other tests are made with does to a stream what it says, and nothing else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from proxy import Bad, Proxy

LONG = bytes(range(256)) * 100


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(peer,), daemon=True).start()

    def answer(peer: socket.socket) -> None:
        with peer, suppress(OSError):
            while data := peer.recv(4096):
                peer.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def send(link: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        link.sendall(data)


def talk(proxy: Proxy, data: bytes, patience_s: float = 5.0) -> tuple[bytes, float]:
    """What comes back of `data`, and the seconds until all of it had, or the connection broke, or nothing came."""
    began, back = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=patience_s) as link:
        sender = threading.Thread(target=send, args=(link, data))
        sender.start()
        with suppress(OSError):
            while len(back) < len(data) and (more := link.recv(65536)):
                back += more
        with suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)
        sender.join()
    return back, time.monotonic() - began


def test_a_good_link_changes_nothing(echo: int) -> None:
    with Proxy(echo) as proxy:
        assert talk(proxy, LONG)[0] == LONG
        assert talk(proxy, b"x")[0] == b"x"
        assert proxy.seen == {"connections": 2, "up": len(LONG) + 1, "down": len(LONG) + 1}


@pytest.mark.parametrize("bad", [Bad(delay_s=(0.1, 0.15)), Bad(loss=0.1), Bad(rate=2 * len(LONG), buffer=4096)])
def test_a_bad_link_takes_time_and_loses_nothing(echo: int, bad: Bad) -> None:
    with Proxy(echo, bad, seed=1) as proxy:
        back, seconds = talk(proxy, LONG, 20.0)
    assert back == LONG and seconds >= 0.2


def test_losses_depend_on_the_seed_alone(echo: int) -> None:
    losses = []
    for seed in (1, 1, 2, 3):
        with Proxy(echo, Bad(loss=0.4), seed) as proxy:
            for _ in range(2):
                talk(proxy, b"x")
            losses.append(proxy.seen["losses"])
    assert losses[0] == losses[1] and len(set(losses)) > 1


def test_it_cuts_after_so_many_bytes(echo: int) -> None:
    with Proxy(echo, Bad(cut_bytes=1000)) as proxy:
        back, _ = talk(proxy, LONG)
        assert back == LONG[: len(back)] and len(back) <= 1000
        assert proxy.seen["cuts"] == 1


def test_it_cuts_after_a_time_and_on_demand(echo: int) -> None:
    with Proxy(echo, Bad(cut_s=0.2, rate=100.0)) as proxy:
        back, seconds = talk(proxy, LONG)
        assert len(back) < len(LONG) and 0.1 <= seconds < 1.0
        proxy.bad = Bad(rate=100.0)
        threading.Timer(0.2, proxy.cut).start()
        assert talk(proxy, LONG)[1] < 1.0
        assert proxy.seen["cuts"] == 2


def test_a_black_hole_says_nothing_and_gives_back_what_it_held(echo: int) -> None:
    with Proxy(echo) as proxy:
        proxy.black_hole = True
        assert talk(proxy, b"x", 0.2)[0] == b""
        threading.Timer(0.2, lambda: setattr(proxy, "black_hole", False)).start()
        assert talk(proxy, b"x")[0] == b"x"


def test_only_pubacks_are_swallowed(echo: int) -> None:
    publish, puback, ping = b"\x32\x83\x01" + bytes(131), b"\x40\x02\x00\x07", b"\xc0\x00"
    with Proxy(echo, Bad(swallow=1.0)) as proxy:
        assert talk(proxy, publish + puback + ping + puback, 0.3)[0] == publish + ping
        assert proxy.seen["swallowed"] == 2


def test_a_broker_that_is_down_is_a_broken_connection() -> None:
    with Proxy(1) as proxy:
        assert talk(proxy, b"x")[0] == b""
