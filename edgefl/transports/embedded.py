"""EmbeddedBroker: an MQTT broker from PyPI (iotcore, which is rumqttd) as a child process on the loopback.

For demo, simulator and tests, so that they need nothing but pip. Not for production: no authentication and
nothing on disk. Its ways, measured with iotcore 0.4.0 (rumqttd 0.20):
  a) A resumed session gets no retained message on re-subscribing (rumqtt issue 1069). Clients that live by
     retained messages connect with `session_expiry_s=0`; on a standing connection unsubscribe first.
  b) Overlapping filters of one client bring a message once each, as in MQTT 5 they may.
  c) An empty payload clears a retained message, even when published without the retain flag.
  d) It names no MaximumPacketSize and hangs up on packets above `MAX_PACKET_BYTES`.
  e) Messages lie in one log per filter ever subscribed or, without a subscriber, per topic. None is freed
     before its log is full: memory follows what was published.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from ..errors import TransportError

MAX_PACKET_BYTES = 1 << 20
# The most that one log holds; a subscriber further behind loses messages. 256 MiB are three rounds of
# 100 devices with 800 kB each.
SEGMENT_BYTES = 16 << 20
SEGMENTS = 16
START_S = 15.0

_ROUTER = f"""id = 0
[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = 200
max_segment_size = {SEGMENT_BYTES}
max_segment_count = {SEGMENTS}
"""
_LISTENER = """
[{version}.1]
name = "{version}"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[{version}.1.connections]
connection_timeout_ms = 60000
max_payload_size = {max_packet_bytes}
max_inflight_count = 100
dynamic_filters = true
"""
# The broker has no way to be stopped from inside and logs every packet as an error, hence a process of its
# own without logs. It leaves when its parent does, however that came about.
_CHILD = """
import logging, os, sys, threading, time
def leave_with(parent):
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)
threading.Thread(target=leave_with, args=(int(sys.argv[2]),), daemon=True).start()
logging.disable()
from iotcore import IotCoreBroker
IotCoreBroker(config_path=sys.argv[1]).run_forever()
"""


class EmbeddedBroker:
    """A context manager: `with EmbeddedBroker() as broker: ... broker.url`.

    `url` speaks MQTT 5 only and `url_v3` 3.1.1 only; topics, sessions and retained messages are common to
    both. Raises TransportError where iotcore is missing or does not start.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("iotcore") is None:
            raise TransportError(
                'the embedded MQTT broker is not installed: pip install "edgefl-toolkit[demo]", '
                "or name a broker of your own"
            )
        self._folder = tempfile.TemporaryDirectory(prefix="edgefl-broker-")
        self._ports = (_free_port(), _free_port())
        self._process = self._spawn()
        try:
            self._await_ready()
        except TransportError:
            self.close()
            raise

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self._ports[0]}"

    @property
    def url_v3(self) -> str:
        return f"mqtt://127.0.0.1:{self._ports[1]}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """Stop the broker; its sessions and retained messages are gone."""
        self._process.terminate()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def __enter__(self) -> EmbeddedBroker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _spawn(self) -> subprocess.Popen[bytes]:
        config = Path(self._folder.name, "rumqttd.toml")
        listeners = (
            _LISTENER.format(version=version, port=port, max_packet_bytes=MAX_PACKET_BYTES)
            for version, port in zip(("v5", "v4"), self._ports, strict=True)
        )
        config.write_text(_ROUTER + "".join(listeners))
        command = [sys.executable, "-c", _CHILD, str(config), str(os.getpid())]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, stdin=quiet, stdout=quiet, cwd=config.parent)

    def _await_ready(self) -> None:
        until = time.monotonic() + START_S
        for port in self._ports:
            while not _listening(port):
                if self._process.poll() is not None:
                    raise TransportError(
                        f"the embedded MQTT broker ended with code {self._process.returncode}: start it again"
                    )
                if time.monotonic() > until:
                    raise TransportError(
                        f"the embedded MQTT broker was not ready within {START_S:.0f} s: lighten the machine's load"
                    )
                time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listening(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5):
        return True
    return False
