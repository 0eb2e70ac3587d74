"""mosquitto as a federation with keys runs it: generated files, TLS, the guard; and a client that obeys the test."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from brokers import Mosquitto, eventually, free_port, password_file, require_mosquitto
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from tls_files import Authority

from edgefl.keys import broker_files
from edgefl.transports.mqtt import TlsConfig

ROOT = Path(__file__).resolve().parent.parent.parent
HEADERS = [Path("/usr/include", name) for name in ("mosquitto_plugin.h", "mosquitto.h")]


def guard_plugin() -> Path:
    """The plugin, built if need be; without mosquitto's headers the test is skipped, or fails where mosquitto is
    required."""
    if not all(header.exists() for header in HEADERS):
        reason = "mosquitto's headers are not installed: apt-get install mosquitto-dev libmosquitto-dev"
        (pytest.fail if os.environ.get("EDGEFL_REQUIRE_MOSQUITTO") == "1" else pytest.skip)(reason)
    subprocess.run(["make", "--silent", "guard"], cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
    return ROOT / "build/guard/guard.so"


class GuardedMosquitto(Mosquitto):
    """mosquitto with the generated files of one federation, on a loopback port; `url` is mqtts.

    `options` replaces values of mosquitto.conf, `extra` is added to it; `batches` has the tokens of those that may ask
    to be enrolled, on a port of their own. `files` has all that the generator and the authority wrote. A context
    manager.
    """

    def __init__(
        self, federation: str = "fleet", *, options: dict[str, str] | None = None, extra: str = "", guard: bool = True,
        viewers: tuple[str, ...] = (), helpers: tuple[str, ...] = (), batches: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._binary = require_mosquitto()
        self._folder = tempfile.TemporaryDirectory(prefix="mosquitto-")
        self.files = Path(self._folder.name)
        self.federation, self._viewers, self._helpers = federation, viewers, helpers
        self.base = f"edgefl/2/{federation}"
        self.authority = Authority(self.files)
        self.port, self.enrol_port = free_port(), free_port()
        self._batches = batches or {}
        self._guard, self._extra, self._options = guard, extra, options or {}
        self._config = self.files / "running.conf"
        self._process: subprocess.Popen[bytes] | None = None
        self.write()
        self.start()

    @property
    def url(self) -> str:
        return f"mqtts://localhost:{self.port}"

    def write(self, *, revoked: tuple[str, ...] = (), guard: bool | None = None) -> None:
        """Write the broker's files, as `edgefl keys` does. mosquitto reads its own at its next start or reload."""
        self._guard = self._guard if guard is None else guard
        plugin = str(guard_plugin()) if self._guard else "absent"
        broker_files.write(
            self.files, federation=self.federation, root="edgefl/2", revoked=revoked, viewers=self._viewers,
            helpers=self._helpers, home=str(self.files), guard=plugin, batches=self._hashed(),
            enrol_port=self.enrol_port if self._batches else None,
        )  # fmt: skip
        text = broker_files.mosquitto_conf(self.federation, "edgefl/2", home=str(self.files), guard=plugin)
        if not self._guard:
            text = re.sub(r"^plugin.*\n", "", text, flags=re.MULTILINE)
        text = text.replace("listener 8883", f"listener {self.port} 127.0.0.1")
        for key, value in self._options.items():
            text, found = re.subn(rf"^{key} .*$", f"{key} {value}", text, flags=re.MULTILINE)
            assert found == 1, key
        text += f"persistence_location {self.files}/\n{self._extra}\n"
        if self._batches:
            text += (self.files / "enrol.conf").read_text()
        if os.geteuid() == 0:
            text += "user root\n"
        self._config.write_text(text)

    def _ports(self) -> list[int]:
        return [self.port, self.enrol_port] if self._batches else [self.port]

    def _hashed(self) -> dict[str, str]:
        """The batches' tokens as mosquitto keeps them."""
        lines = password_file(self.files, self._batches).read_text().splitlines()
        return dict(line.split(":", 1) for line in lines)

    def restart_with(self, options: dict[str, str]) -> None:
        """Restart with other values in mosquitto.conf."""
        self.stop()
        self._options = options
        self.write()
        self.start()

    def refuses_to_start(self) -> bool:
        """Whether mosquitto ends instead of serving; it may listen for a moment before it reads all of its files."""
        with suppress(pytest.fail.Exception):
            self.start()
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(5.0) != 0
        return False

    def reload(self) -> None:
        """SIGHUP: mosquitto reads its ACL file and certificates again; it has when this returns."""
        before = self.log.count("Reloading config")
        os.kill(self.pid, signal.SIGHUP)
        eventually(lambda: self.log.count("Reloading config") > before)

    def client(self, name: str, **options: object) -> RawClient:
        """A connected client of this name; with its token, if it is a batch's."""
        if name in self._batches:
            user, ca = (name, self._batches[name]), TlsConfig(str(self.files / "ca.crt"))
            return RawClient(self.enrol_port, ca, user=user, **options)  # type: ignore[arg-type]
        return RawClient(self.port, self.authority.client(name), **options)  # type: ignore[arg-type]


class RawClient:
    """A connected client that does what it is told, good or bad, in MQTT 5 or 3.1.1. A context manager.

    `user` is a name and its password; with it, MQTT 3.1.1 is spoken unless `v5` says otherwise, as the guard demands.
    `messages` has (topic, payload, retain) of all that came. `left` is set when the
    connection is over.
    """

    def __init__(
        self, port: int, tls: TlsConfig | None, *, client_id: str = "any",
        will: tuple[str, bytes, bool] | None = None, will_delay_s: int = 0, session_s: int = 0,
        user: tuple[str, str] | None = None, v5: bool | None = None,
    ) -> None:  # fmt: skip
        v5 = user is None if v5 is None else v5
        self.messages: list[tuple[str, bytes, bool]] = []
        self.left = threading.Event()
        self._news = threading.Condition()
        self._answers: dict[int, int] = {}
        self._up: int | None = None
        version, clean = (paho.MQTTv5, None) if v5 else (paho.MQTTv311, session_s == 0)
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, clean_session=clean, protocol=version)
        self._client = client
        client.max_inflight_messages_set(1000)
        if tls is not None:
            client.tls_set(tls.ca, tls.cert, tls.key, tls_version=ssl.PROTOCOL_TLS_CLIENT)
        if user is not None:
            client.username_pw_set(*user)
        if will is not None:
            delay = Properties(PacketTypes.WILLMESSAGE)
            delay.WillDelayInterval = will_delay_s
            client.will_set(will[0], will[1], qos=1, retain=will[2], properties=delay if v5 else None)
        client.on_connect = lambda _c, _u, _f, code, _p: self._note(None, code.value)
        client.on_publish = lambda _c, _u, mid, code, _p: self._note(mid, code.value)
        client.on_subscribe = lambda _c, _u, mid, codes, _p: self._note(mid, codes[0].value)
        client.on_unsubscribe = lambda _c, _u, mid, _codes, _p: self._note(mid, 0)
        client.on_message = self._on_message
        client.on_disconnect = lambda *_: self.left.set()
        client.on_socket_register_write = lambda *_: None  # only our own thread writes
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = session_s
        options = {"clean_start": session_s == 0, "properties": session} if v5 else {}
        client.connect("localhost", port, keepalive=60, **options)
        self._over = False
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()
        assert self._wait(lambda: self._up is not None or self.left.is_set()), "no CONNACK"
        if self._up != 0:
            self.close()
            raise ConnectionRefusedError(f"CONNACK {self._up}")

    def _loop(self) -> None:
        while not self._over and self._client.loop(0.05) == paho.MQTT_ERR_SUCCESS:
            pass
        self.left.set()

    def _end(self) -> None:
        self._over = True
        self._thread.join()

    def _note(self, mid: int | None, code: int) -> None:
        with self._news:
            if mid is None:
                self._up = code
            else:
                self._answers[mid] = code
            self._news.notify_all()

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        with self._news:
            self.messages.append((message.topic, message.payload, message.retain))
            self._news.notify_all()

    def _wait(self, done, seconds: float = 10.0) -> bool:  # type: ignore[no-untyped-def]
        until = time.monotonic() + seconds
        with self._news:
            while not done():
                if time.monotonic() > until:
                    return False
                self._news.wait(0.05)
        return True

    def _answer(self, mid: int) -> int | None:
        """The broker's code for `mid`; None if the connection ended first."""
        assert self._wait(lambda: mid in self._answers or self.left.is_set()), "no answer from the broker"
        return self._answers.pop(mid, None)

    def send(self, topic: str, payload: bytes = b"x", *, retain: bool = False, qos: int = 1) -> int:
        """Publish without waiting; the packet id."""
        return self._client.publish(topic, payload, qos=qos, retain=retain).mid

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> int | None:
        """Publish at QoS 1; the broker's reason code (0 or 16: accepted), None if it hung up."""
        return self._answer(self.send(topic, payload, retain=retain))

    def subscribe(self, topic: str) -> int | None:
        """Subscribe at QoS 1; the broker's reason code (from 128 on: refused)."""
        mid = self._client.subscribe(topic, qos=1)[1]
        return self._answer(mid if mid is not None else -1)

    def unsubscribe(self, topic: str) -> None:
        mid = self._client.unsubscribe(topic)[1]
        self._answer(mid if mid is not None else -1)

    def wait_for(self, topic: str, payload: bytes, seconds: float = 10.0) -> bool:
        """Whether this message has come, or comes in time."""
        return self._wait(lambda: any(m[:2] == (topic, payload) for m in self.messages), seconds)

    def abort(self) -> None:
        """Cut the connection without a DISCONNECT: the broker publishes the will."""
        self._end()
        sock = self._client.socket()
        if sock is not None:
            sock.close()

    def close(self) -> None:
        self._end()
        self._client.disconnect()
        self._client.loop(0.05)

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
