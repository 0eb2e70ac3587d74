"""Processes around a benchmark of the aggregator: mosquitto, a bare paho subscriber, a look at memory. Linux only."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SAMPLE_S = 0.02
# As broker/mosquitto.conf has them.
LIMITS = """set_tcp_nodelay true
max_queued_messages 100000
max_queued_bytes 268435456
max_packet_size 1048576
"""

SUBSCRIBER = """
import os, sys
from paho.mqtt.client import Client, MQTTProtocolVersion
from paho.mqtt.enums import CallbackAPIVersion

def count(client, userdata, message):
    os.write(1, b".")

client = Client(CallbackAPIVersion.VERSION2, client_id="bare", protocol=MQTTProtocolVersion.MQTTv5)
client.on_connect = lambda client, *rest: client.subscribe(sys.argv[2], qos=1)
client.on_subscribe = lambda *rest: os.write(1, b"!")
client.on_message = count
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_forever()
"""


@contextmanager
def mosquitto(folder: Path) -> Iterator[int]:
    """mosquitto on a loopback port of its own, with the limits that EdgeFL ships; yields the port."""
    port = free_port()
    with serving(folder, port, f"listener {port} 127.0.0.1\nallow_anonymous true\n{LIMITS}"):
        yield port


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def serving(folder: Path, port: int, text: str) -> Iterator[None]:
    """mosquitto, configured by `text`, from when it listens on `port`; its files are in `folder`."""
    binary = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")
    if binary is None:
        raise SystemExit("mosquitto is not installed: apt-get install mosquitto")
    config = folder / "mosquitto.conf"
    config.write_text(text)
    with open(folder / "mosquitto.log", "wb") as log:
        process = subprocess.Popen([binary, "-c", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        for _ in range(200):
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
                break
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def bare_subscriber(port: int, topic: str) -> Iterator[int]:
    """paho-mqtt and nothing else; yields the file descriptor from which a byte comes for each message that it took."""
    command = [sys.executable, "-c", SUBSCRIBER, str(port), topic]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.read(1) == b"!"
            yield process.stdout.fileno()
        finally:
            process.terminate()


class Resident:
    """The most that a process has resident from now on, in MB (10^6 bytes): the kernel's mark, read until it ends."""

    def __init__(self, pid: int) -> None:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the mark starts anew: proc(5)
        self._status = Path(f"/proc/{pid}/status")
        self.peak = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        with suppress(OSError):
            while marks := [row.split()[1] for row in self._status.read_text().splitlines() if row.startswith("VmHWM")]:
                self.peak = int(marks[0]) * 1024 / 1e6
                time.sleep(SAMPLE_S)
