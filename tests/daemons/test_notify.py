"""systemd is told that a daemon is ready, alive and stopping; one loop that hangs is not hidden by the others."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from daemons import Federation

from edgefl.hosting.notify import BEATS, Notifier
from edgefl.transports.embedded import EmbeddedBroker


@pytest.fixture
def heard(tmp_path):
    """A socket as systemd's, with what was sent to it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(30)
        yield channel


def unit(folder: Path, watchdog_s: float = 30.0) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": str(int(watchdog_s * 1e6))}


def waiting(channel: socket.socket) -> list[bytes]:
    channel.setblocking(False)
    found = []
    try:
        while True:
            found.append(channel.recv(100))
    except BlockingIOError:
        return found


def test_a_loop_that_turns_is_ready_at_once_and_alive_at_a_third_of_the_time(heard, tmp_path):
    notifier = Notifier(unit(tmp_path))
    for now in range(100):
        notifier.turned("host", float(now))
    assert waiting(heard) == [b"READY=1"] + [b"WATCHDOG=1"] * (99 // (30 // BEATS))
    notifier.ended("host")
    notifier.ended("host")
    assert waiting(heard) == [b"STOPPING=1"]


def test_one_loop_that_hangs_is_not_hidden_by_another(heard, tmp_path):
    notifier = Notifier(unit(tmp_path))
    notifier.turned("hangs", 0.0)
    for now in range(100):
        notifier.turned("turns", float(now))
    assert waiting(heard) == [b"READY=1"]
    notifier.turned("hangs", 100.0)
    assert waiting(heard) == [b"WATCHDOG=1"]
    notifier.ended("hangs")
    notifier.turned("turns", 120.0)
    assert waiting(heard) == [b"WATCHDOG=1"]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "1000000"},
        {"NOTIFY_SOCKET": "/nonexistent/notify", "WATCHDOG_USEC": "1"},
        {"NOTIFY_SOCKET": "@nobody-listens", "WATCHDOG_USEC": "soon"},
    ],
)
def test_without_systemd_nothing_happens(environ):
    notifier = Notifier(environ)
    for now in range(5):
        notifier.turned("host", float(now))
    notifier.ended("host")


def test_a_watchdog_that_is_another_processs_gets_no_beats(heard, tmp_path):
    notifier = Notifier(unit(tmp_path) | {"WATCHDOG_PID": "1"})
    for now in range(100):
        notifier.turned("host", float(now))
    assert waiting(heard) == [b"READY=1"]


def test_an_agent_without_a_broker_is_ready_alive_and_stops(heard, tmp_path):
    with EmbeddedBroker() as broker:
        url = broker.url  # nobody answers there from here on
    config = Federation(tmp_path, url, "fleet").write_agent("dev-a")
    command = [sys.executable, "-m", "edgefl_agent", "--config", config]
    with subprocess.Popen(command, env=os.environ | unit(tmp_path, 0.5), stderr=subprocess.DEVNULL) as agent:
        try:
            assert [heard.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
            agent.send_signal(signal.SIGTERM)
            while (word := heard.recv(100)) == b"WATCHDOG=1":
                pass
            assert word == b"STOPPING=1"
            assert agent.wait(20) == 0
        finally:
            agent.kill()


def test_a_mistake_in_the_configuration_is_never_ready(heard, tmp_path):
    (tmp_path / "agent.toml").write_text("federation = 7\n")
    command = [sys.executable, "-m", "edgefl_agent", "--config", tmp_path / "agent.toml"]
    done = subprocess.run(command, env=os.environ | unit(tmp_path), stderr=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 2 and waiting(heard) == []
