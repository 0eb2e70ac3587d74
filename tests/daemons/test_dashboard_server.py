"""The dashboard's server on real sockets: it is bounded, it can be reached as configured, and it can't stop a round."""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from board_fixture import NOW, past, records, rows, summary
from tls_files import Authority

pytest.importorskip("starlette", reason="pip install 'edgefl-toolkit[dashboard]'")
import httpx
from edgefl_broker import http_limits
from edgefl_broker.dashboard import Dashboard
from edgefl_broker.watcher import open_watcher
from edgefl_broker.window import View, Window

from edgefl.board import views
from edgefl.errors import TransportError, UsageError
from edgefl.hosting.config import AggregatorConfig
from edgefl.hosting.dashboard import DashboardConfig
from edgefl.protocol.fleet import DeviceRow
from edgefl.settings import files


class StillWindow(Window):
    """Shows what it was given; `delay_s` as if the aggregator were busy."""

    def __init__(self, view: View | None) -> None:
        self._still = view
        self.delay_s = 0.0

    def look(self, wait_s: float = 5.0) -> View | None:
        time.sleep(self.delay_s)
        return self._still


@pytest.fixture
def window() -> StillWindow:
    return StillWindow(View(summary(), rows()))


@pytest.fixture
def dashboard(tmp_path: Path, window: StillWindow) -> Iterator[Dashboard]:
    with open(tmp_path / "history.jsonl", "wb") as file:
        file.writelines(msgspec.json.encode(record) + b"\n" for record in records())
    made = Dashboard(DashboardConfig(listen="127.0.0.1:0"), tmp_path, window, lambda: True)
    made.start()
    yield made
    made.close()


def address(dashboard: Dashboard) -> tuple[str, int]:
    host, _, port = dashboard.url.rpartition("//")[2].rpartition(":")
    return host, int(port)


def get(dashboard: Dashboard, path: str, **more) -> httpx.Response:
    return httpx.get(dashboard.url + path, timeout=10, **more)


def test_it_shows_the_rounds_of_before_its_start_and_those_that_come(dashboard):
    assert get(dashboard, "/api/rounds").json()["rounds"][0]["round"] == 60
    dashboard.add(msgspec.structs.replace(records()[-1], round=61, version=59))
    assert get(dashboard, "/api/rounds?limit=1").json()["rounds"][0]["round"] == 61
    assert get(dashboard, "/api/curves").json()["round"][-1] == 61
    assert "edgefl_rounds_total" in get(dashboard, "/metrics").text  # the history is small, and has been read by now
    assert get(dashboard, "/api/overview").json()["summary"]["round"] == summary().round


def test_a_connection_that_asks_nothing_is_closed(dashboard, monkeypatch):
    monkeypatch.setattr(http_limits, "LOOK_S", 0.2)
    with socket.create_connection(address(dashboard)) as silent, socket.create_connection(address(dashboard)) as slow:
        slow.sendall(b"GET /api/overview HTTP/1.1\r\nHost: localhost\r\n")
        for one in (silent, slow):
            one.settimeout(5)
            assert one.recv(100) == b""
    assert get(dashboard, "/").status_code == 200


def test_an_answer_that_nobody_reads_ends(dashboard, monkeypatch):
    monkeypatch.setattr(http_limits, "LOOK_S", 0.05)
    monkeypatch.setattr(http_limits, "ANSWER_LOOKS", 4)
    monkeypatch.setattr(dashboard, "devices", lambda *_: "x" * 50_000_000)
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(address(dashboard))
        stuck.sendall(b"GET /api/devices HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until = time.monotonic() + 10
        while dashboard._server.server_state.connections and time.monotonic() < until:
            time.sleep(0.05)
        assert not dashboard._server.server_state.connections


def test_more_connections_than_it_has_room_for_are_refused_and_the_others_go_on(dashboard):
    held = [socket.create_connection(address(dashboard)) for _ in range(http_limits.MOST)]
    try:
        until = time.monotonic() + 5
        while len(dashboard._server.server_state.connections) < http_limits.MOST and time.monotonic() < until:
            time.sleep(0.02)
        with pytest.raises(httpx.TransportError):
            get(dashboard, "/")
        held[0].sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        held[0].settimeout(5)
        assert held[0].recv(20).startswith(b"HTTP/1.1 200")
    finally:
        for one in held:
            one.close()


def test_handshakes_that_do_not_end_take_no_more_room_than_connections(tmp_path: Path, window):
    """File descriptors are the aggregator's too."""
    Authority(tmp_path)
    config = DashboardConfig(listen="127.0.0.1:0", cert=f"{tmp_path}/server.crt", key=f"{tmp_path}/server.key")
    made = Dashboard(config, tmp_path, window, lambda: True)
    made.start()
    held = [socket.create_connection(address(made)) for _ in range(http_limits.MOST + 40)]
    try:
        refused = 0
        for one in held[http_limits.MOST :]:
            one.settimeout(10)
            refused += one.recv(1) == b""
        assert refused == 40
        for one in held:
            one.close()
        trust = ssl.create_default_context(cafile=f"{tmp_path}/ca.crt")
        with held[0], httpx.Client(verify=trust, transport=httpx.HTTPTransport(verify=trust, retries=5)) as client:
            assert client.get(f"https://localhost:{address(made)[1]}/", timeout=10).status_code == 200
    finally:
        for one in held:
            one.close()
        made.close()


def test_a_head_that_does_not_end_is_refused(dashboard):
    with socket.create_connection(address(dashboard)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000)
        sock.settimeout(5)
        assert sock.recv(20).startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize("raw", [b"GET\r\n\r\n", b"\x00\r\n" * 100, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_what_is_no_request_of_http_1_changes_nothing(dashboard, raw):
    with socket.create_connection(address(dashboard)) as sock:
        sock.sendall(raw)
        sock.settimeout(5)
        assert sock.recv(100).startswith(b"HTTP/1.1 4")
    assert get(dashboard, "/").status_code == 200


def test_a_busy_aggregator_keeps_nobody_from_the_page_and_is_not_kept(dashboard, window):
    """Requests that wait for a view are in threads of their own, and the aggregator's calls return at once."""
    window.delay_s = 5.0
    waiting = [threading.Thread(target=get, args=(dashboard, "/api/overview")) for _ in range(20)]
    for one in waiting:
        one.start()
    began = time.monotonic()
    assert get(dashboard, "/").status_code == 200
    dashboard.add(msgspec.structs.replace(records()[-1], round=61))
    assert time.monotonic() - began < 4.0
    for one in waiting:
        one.join()


def test_a_fleet_of_five_thousand_is_a_page_at_a_time(dashboard, window):
    window._still = View(summary(), [DeviceRow(f"device-{i:05}", "ready", seen=NOW, counted=i) for i in range(5000)])
    began = time.monotonic()
    got = get(dashboard, "/api/devices?limit=1000000")
    assert time.monotonic() - began < 2.0
    assert (len(got.json()["devices"]), got.json()["total"]) == (views.MOST_DEVICES, 5000)
    assert len(got.content) < 100_000


def test_what_fails_inside_is_an_answer_and_a_line_of_the_log(dashboard, window, caplog):
    window.look = lambda wait_s=5.0: 1 / 0
    with caplog.at_level(logging.ERROR):
        got = get(dashboard, "/api/overview")
    assert got.status_code == 500 and "ZeroDivision" not in got.text
    assert "ZeroDivisionError" in caplog.text
    assert get(dashboard, "/api/rounds").status_code == 200


def test_a_port_that_is_taken_ends_the_start_and_the_unit_tries_again(dashboard, tmp_path, window):
    """So does an address that the machine does not have yet, as at boot. Exit code 2 would end the unit for good."""
    host, port = address(dashboard)
    (tmp_path / "other").mkdir()
    with pytest.raises(TransportError, match=f"can't listen at {host}:{port}") as caught:
        Dashboard(DashboardConfig(listen=f"{host}:{port}"), tmp_path / "other", window, lambda: True)
    assert caught.value.exit_code == 1
    away = DashboardConfig(listen="192.0.2.1:8090", trusted_proxy=["192.0.2.2"])
    with pytest.raises(TransportError, match="an address of this machine"):
        Dashboard(away, tmp_path / "other", window, lambda: True)


def test_it_ends_with_its_aggregator_and_leaves_the_port(dashboard):
    host, port = address(dashboard)
    dashboard.close()
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind((host, port))


def test_with_a_certificate_it_speaks_tls_alone(tmp_path: Path, window):
    Authority(tmp_path)
    config = DashboardConfig(listen="0.0.0.0:0", cert=f"{tmp_path}/server.crt", key=f"{tmp_path}/server.key")
    made = Dashboard(config, tmp_path, window, lambda: True)
    made.start()
    try:
        port = address(made)[1]
        trust = ssl.create_default_context(cafile=f"{tmp_path}/ca.crt")
        token = (tmp_path / "dashboard.token").read_text().strip()
        bearer = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"https://localhost:{port}/", verify=trust).status_code == 200
        assert httpx.get(f"https://localhost:{port}/api/overview", verify=trust).status_code == 401
        assert httpx.get(f"https://localhost:{port}/api/overview", verify=trust, headers=bearer).status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://localhost:{port}/")
    finally:
        made.close()


def test_without_the_extra_the_error_says_what_to_install(tmp_path: Path, monkeypatch, window):
    table = {"federation": "f", "model": "m", "mqtt": {"url": "mqtt://localhost"}}
    off = files.build(AggregatorConfig, table)
    for module in ("uvicorn", "edgefl_broker.dashboard"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    open_watcher(off, tmp_path, window, lambda: True).add(records()[0])  # nobody asks for it
    on = files.build(AggregatorConfig, {**table, "dashboard": {"listen": "127.0.0.1:0"}})
    with pytest.raises(UsageError, match=r"needs uvicorn: pip install 'edgefl-toolkit\[dashboard\]'"):
        open_watcher(on, tmp_path, window, lambda: True)
    assert past().last == 60
