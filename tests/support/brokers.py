"""MQTT brokers for tests: mosquitto, to be stopped, killed and restarted, and a fake one that obeys the test."""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest


def require_mosquitto() -> str:
    """Path of mosquitto; without it the test is skipped, or fails where EDGEFL_REQUIRE_MOSQUITTO=1."""
    found = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found:
        return found
    reason = "mosquitto is not installed: apt-get install mosquitto"
    if os.environ.get("EDGEFL_REQUIRE_MOSQUITTO") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Mosquitto:
    """mosquitto on one loopback port, which it keeps over restarts.

    `config` is added to the listener; with `persistence` sessions and retained messages survive a restart,
    and `autosave_on_changes` writes them at once. A context manager.
    """

    def __init__(self, config: str = "allow_anonymous true\n", *, persistence: bool = False) -> None:
        self._binary = require_mosquitto()
        self._folder = tempfile.TemporaryDirectory(prefix="mosquitto-")
        self.port = free_port()
        folder = Path(self._folder.name)
        text = f"listener {self.port} 127.0.0.1\nmax_packet_size 1048576\n{config}"
        if persistence:
            text += f"persistence true\npersistence_location {folder}/\n"
            text += "autosave_interval 1\nautosave_on_changes true\n"
        if os.geteuid() == 0:
            text += "user root\n"  # else mosquitto drops to a user who may not read this folder
        self._config = folder / "mosquitto.conf"
        self._config.write_text(text)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "mosquitto is stopped"
        return self._process.pid

    @property
    def log(self) -> str:
        return (self._config.parent / "log").read_text()

    def start(self) -> None:
        with open(self._config.parent / "log", "ab") as log:
            self._process = subprocess.Popen(
                [self._binary, "-c", str(self._config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until = time.monotonic() + 10.0
        while time.monotonic() < until:
            if self._process.poll() is not None:
                break
            try:
                for port in self._ports():
                    socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
                return
            except OSError:
                time.sleep(0.02)
        pytest.fail(f"mosquitto did not start:\n{self.log}")

    def _ports(self) -> list[int]:
        """The ports that it listens at."""
        return [self.port]

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill9(self) -> None:
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        until = time.monotonic() + 10.0
        while self._process.poll() is None and time.monotonic() < until:
            self._process.send_signal(how)  # again, since mosquitto loses one that comes before its main loop
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
        assert self._process.poll() is not None, "mosquitto does not end"
        self._process = None

    def __enter__(self) -> Mosquitto:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._folder.cleanup()


class FakeBroker:
    """Takes one MQTT 5 connection, answers CONNECT with these CONNACK properties, and else does as told.

    `behind` is sent in one piece with the CONNACK. `acks` has the packet ids that the client has acknowledged, `left`
    is set when it has gone, and `disconnects` counts its DISCONNECT packets.
    """

    def __init__(self, connack_properties: bytes, behind: bytes = b"") -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._properties, self._behind = connack_properties, behind
        self.acks: list[int] = []
        self.disconnects, self.left = 0, threading.Event()
        self._mids: queue.Queue[int] = queue.Queue()
        self._subscribes: queue.Queue[int] = queue.Queue()
        self._peer: socket.socket | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}"

    def publishes(self, count: int, patience_s: float = 5.0) -> list[int]:
        """The packet ids of the next `count` PUBLISH packets; fewer where they do not come in time."""
        mids: list[int] = []
        with suppress(queue.Empty):
            while len(mids) < count:
                mids.append(self._mids.get(timeout=patience_s))
        return mids

    def subscribed(self) -> int:
        """The packet id of the next SUBSCRIBE packet."""
        return self._subscribes.get(timeout=5.0)

    def acknowledge(self, mid: int, code: int | None = None) -> None:
        answer = mid.to_bytes(2, "big") + (b"" if code is None else bytes([code]))
        self.send(bytes([0x40, len(answer)]) + answer)

    def send(self, packet: bytes) -> None:
        assert self._peer is not None
        self._peer.sendall(packet)

    def disconnect(self, reason_code: int) -> None:
        assert self._peer is not None
        self._peer.sendall(b"\xe0\x02" + bytes([reason_code, 0]))

    def hang_up(self) -> None:
        self._listener.close()
        with suppress(OSError):  # the client may have left first
            if self._peer is not None:
                self._peer.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        self._peer, _ = self._listener.accept()
        with self._peer, self._peer.makefile("rb") as stream, suppress(OSError, IndexError):
            while True:
                kind, length, shift = stream.read(1)[0], 0, 0
                while (byte := stream.read(1)[0]) & 0x80:
                    length, shift = length | (byte & 0x7F) << shift, shift + 7
                body = stream.read(length | byte << shift)
                if kind & 0xF0 == 0x10:
                    rest = bytes([0, 0, len(self._properties)]) + self._properties
                    self._peer.sendall(bytes([0x20, len(rest)]) + rest + self._behind)
                elif kind & 0xF0 == 0x40:
                    self.acks.append(int.from_bytes(body[:2], "big"))
                elif kind & 0xF0 == 0x80:
                    self._subscribes.put(int.from_bytes(body[:2], "big"))
                elif kind & 0xF0 == 0x30:
                    after_topic = 2 + int.from_bytes(body[:2], "big")
                    self._mids.put(int.from_bytes(body[after_topic : after_topic + 2], "big"))
                elif kind == 0xE0:
                    self.disconnects += 1
        self.left.set()


class DeafProxy:
    """Passes connections on to a broker's port, except those of MQTT 5: it accepts them, and never answers.

    `versions` has the protocol level of each CONNECT so far. A context manager.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.versions: list[int] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        """End all connections."""
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        first = client.recv(4096)
        self.versions.append(first[8])  # after the fixed header and the name "MQTT"
        if first[8] == 5:
            client.recv(1)
            return
        broker = socket.create_connection(("127.0.0.1", self._port))
        self._open.append(broker)
        broker.sendall(first)
        for source, target in ((client, broker), (broker, client)):
            threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> DeafProxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.close()
        self.cut()


def password_file(folder: Path, users: dict[str, str]) -> Path:
    """A mosquitto password file for these users."""
    path = folder / "passwords"
    path.touch(0o600)
    tool = shutil.which("mosquitto_passwd")
    if tool is None:
        pytest.skip("mosquitto_passwd is not installed: apt-get install mosquitto")
    for user, password in users.items():
        subprocess.run([tool, "-b", str(path), user, password], check=True, capture_output=True)
    return path


def running(pid: int) -> bool:
    """Whether a process lives (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def eventually(condition: Callable[[], object], patience_s: float = 20.0) -> None:
    """Wait until it is true. Patience is for a machine that is busy: a test that promises a time measures it."""
    until = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.01)


def resident_kb(pid: int) -> int:
    """Memory of a process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])
