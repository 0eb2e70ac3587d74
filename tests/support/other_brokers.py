"""MQTT brokers as processes of a test's own: each can be killed with SIGKILL and started again on the same port.

`OTHERS` has one class for each broker. A class says why its broker is not installed, or None. Nothing here needs root,
systemd or a configuration of the system: every broker has a temporary folder and loopback ports of its own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

from brokers import free_port

from edgefl.transports import embedded

# Where `make brokers-install` puts what no Debian package has.
FOLDER = Path(os.environ.get("EDGEFL_BROKERS", Path.home() / ".cache" / "edgefl-brokers"))
START_S = 60.0  # RabbitMQ takes ten seconds on an idle machine


class Broker:
    """A broker on the loopback. Subclasses say how to start it, `protocols` what it speaks, `link` what agents need."""

    name = ""
    needs = ""  # how to install it
    link: Mapping[str, object] = MappingProxyType({})

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix=f"broker-{self.name}-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.prepare()

    @classmethod
    def installed(cls) -> bool:
        """Whether it can be started here."""
        raise NotImplementedError

    @classmethod
    def version(cls) -> str:
        """As it calls itself."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Write its configuration to `folder`."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "broker.log").read_text(errors="replace")

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with open(self.folder / "broker.log", "ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env={**os.environ, **self.environment()}, start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=0.5).close()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"{self.name} did not start:\n{self.log[-2000:]}")

    def kill9(self) -> None:
        """SIGKILL, to the broker and to the processes that it has started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10.0)
            self._process = None

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill9()
        self._temporary.cleanup()


def _said(*command: str | Path) -> str:
    """The first line that a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return next(iter((done.stdout + done.stderr).strip().splitlines()), "?")


def _found(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


class Mosquitto(Broker):
    """Keeps sessions and retained messages over a restart, and loses what is newer than its last save."""

    name, needs = "mosquitto", "apt-get install mosquitto"

    @classmethod
    def installed(cls) -> bool:
        return _found("mosquitto") is not None

    @classmethod
    def version(cls) -> str:
        return _said(str(_found("mosquitto")), "-h").removeprefix("mosquitto version ")

    def prepare(self) -> None:
        text = f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_packet_size 1048576\n"
        text += (
            f"persistence true\npersistence_location {self.folder}/\nautosave_interval 10\nautosave_on_changes true\n"
        )
        user = "user root\n" if os.geteuid() == 0 else ""  # else it drops to a user that may not read this folder
        (self.folder / "mosquitto.conf").write_text(text + user)

    def command(self) -> list[str]:
        return [str(_found("mosquitto")), "-c", str(self.folder / "mosquitto.conf")]


class Embedded(Broker):
    """rumqttd from PyPI, as the demo starts it; it keeps nothing."""

    name, needs = "embedded (rumqttd)", 'pip install "edgefl-toolkit[demo]"'
    link = MappingProxyType({"session_expiry_s": 0})  # see embedded.py, a)

    @classmethod
    def installed(cls) -> bool:
        return importlib.util.find_spec("iotcore") is not None

    @classmethod
    def version(cls) -> str:
        return f"iotcore {version('iotcore')}"

    def command(self) -> list[str]:
        return embedded.command(self.folder, self.port, free_port())


class RabbitMQ(Broker):
    """3.1.1 alone before 3.13. It gives no retained message to a client that subscribes with a wildcard."""

    name, needs = "RabbitMQ", "apt-get install rabbitmq-server"
    _server = "/usr/lib/rabbitmq/bin/rabbitmq-server"

    @classmethod
    def installed(cls) -> bool:
        return Path(cls._server).exists()

    @classmethod
    def version(cls) -> str:
        return _said("dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server").split("-")[0]

    def prepare(self) -> None:
        self._dist, self._epmd = free_port(), free_port()
        (self.folder / "enabled_plugins").write_text("[rabbitmq_mqtt].\n")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp = none\nmqtt.listeners.tcp.1 = 127.0.0.1:{self.port}\nmqtt.allow_anonymous = true\n"
            "mqtt.default_user = guest\nmqtt.default_pass = guest\nloopback_users = none\n"
        )

    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.folder), "RABBITMQ_NODENAME": f"edgefl{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._dist), "ERL_EPMD_PORT": str(self._epmd), "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"), "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"), "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
        }  # fmt: skip

    def command(self) -> list[str]:
        return [self._server]

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        epmd = _found("epmd")  # Erlang's daemon of names stays; it is ours, on a port of its own
        if epmd is not None:
            environment = {**os.environ, "ERL_EPMD_PORT": str(self._epmd)}
            subprocess.run([epmd, "-kill"], env=environment, capture_output=True, timeout=10)


class Nats(Broker):
    """nats-server with JetStream: 3.1.1 alone."""

    name, needs = "NATS", "apt-get install nats-server"

    @classmethod
    def installed(cls) -> bool:
        return _found("nats-server") is not None

    @classmethod
    def version(cls) -> str:
        return _said(str(_found("nats-server")), "--version").removeprefix("nats-server: v")

    def prepare(self) -> None:
        (self.folder / "nats.conf").write_text(
            f'server_name: edgefl\nlisten: "127.0.0.1:{free_port()}"\njetstream {{ store_dir: "{self.folder}/data" }}\n'
            f"mqtt {{ host: 127.0.0.1, port: {self.port} }}\n"
        )

    def command(self) -> list[str]:
        return [str(_found("nats-server")), "-c", str(self.folder / "nats.conf")]


class Aedes(Broker):
    """A broker in JavaScript, in memory: 3.1.1 alone."""

    name, needs = "aedes", "apt-get install nodejs npm, then make brokers-install"
    _script = """
const {{ Aedes }} = require("aedes")
const serve = broker => require("net").createServer(broker.handle).listen({port}, "127.0.0.1")
Aedes.createBroker ? Aedes.createBroker().then(serve) : serve(new Aedes())
"""

    @classmethod
    def installed(cls) -> bool:
        return _found("node") is not None and (FOLDER / "node_modules" / "aedes").is_dir()

    @classmethod
    def version(cls) -> str:
        return str(json.loads((FOLDER / "node_modules" / "aedes" / "package.json").read_text())["version"])

    def prepare(self) -> None:
        (self.folder / "broker.js").write_text(self._script.format(port=self.port))

    def environment(self) -> dict[str, str]:
        return {"NODE_PATH": str(FOLDER / "node_modules")}

    def command(self) -> list[str]:
        return [str(_found("node")), str(self.folder / "broker.js")]


class Amqtt(Broker):
    """A broker in Python, in memory: 3.1.1 alone."""

    name, needs = "amqtt", "make brokers-install"
    _python = FOLDER / "amqtt" / "bin" / "python"

    @classmethod
    def installed(cls) -> bool:
        return (FOLDER / "amqtt" / "bin" / "amqtt").exists()

    @classmethod
    def version(cls) -> str:
        return _said(cls._python, "-c", "from importlib.metadata import version; print(version('amqtt'))")

    def prepare(self) -> None:
        (self.folder / "amqtt.yaml").write_text(
            f"listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:{self.port}\n"
            "plugins:\n  amqtt.plugins.authentication.AnonymousAuthPlugin:\n    allow_anonymous: true\n"
        )

    def command(self) -> list[str]:
        return [str(FOLDER / "amqtt" / "bin" / "amqtt"), "-c", str(self.folder / "amqtt.yaml")]


OTHERS: tuple[type[Broker], ...] = (Mosquitto, Embedded, RabbitMQ, Nats, Aedes, Amqtt)
