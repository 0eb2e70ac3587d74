"""EmbeddedBroker: an MQTT broker from PyPI (iotcore, which is rumqttd) as a child process on the loopback.

For the demo, the simulator and tests, which so need nothing but pip. Not for production: it has no authentication and
keeps nothing on disk. How it behaves, measured with iotcore 0.4.0 (rumqttd 0.20):
  a) A client that resumes a session and subscribes again receives no retained message (rumqtt issue 1069). Clients
     that need retained messages connect with `session_expiry_s=0`, or unsubscribe first on a standing connection.
  b) Each of a client's overlapping filters delivers the message, which MQTT 5 allows.
  c) An empty payload clears a retained message, even when published without the retain flag.
  d) It names no MaximumPacketSize and hangs up on packets above `MAX_PACKET_BYTES`.
  e) It keeps one log of messages for each filter that was ever subscribed to or, without a subscriber, for each topic.
     A message is freed only when its log is full, so memory grows with what was published.
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
# The capacity of one log; a subscriber that is further behind loses messages. 256 MiB are three rounds of 100 devices
# with 800 kB each.
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
# The broker cannot be stopped from inside, and it logs every packet as an error. So it has a process of its own,
# without logs, which ends when its parent does, for whatever reason.
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

    `url` speaks only MQTT 5 and `url_v3` only 3.1.1; both share topics, sessions and retained messages. Raises
    TransportError if iotcore is missing or does not start.
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
        """Stop the broker, and drop its sessions and retained messages."""
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
        folder, quiet = Path(self._folder.name), subprocess.DEVNULL
        return subprocess.Popen(command(folder, *self._ports), stdin=quiet, stdout=quiet, cwd=folder)

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


def command(folder: Path, port: int, port_v3: int) -> list[str]:
    """The command that runs a broker on these ports, with its configuration in `folder`; it ends with this process."""
    config = folder / "rumqttd.toml"
    listeners = (
        _LISTENER.format(version=version, port=port, max_packet_bytes=MAX_PACKET_BYTES)
        for version, port in (("v5", port), ("v4", port_v3))
    )
    config.write_text(_ROUTER + "".join(listeners))
    return [sys.executable, "-c", _CHILD, str(config), str(os.getpid())]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listening(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5):
        return True
    return False
