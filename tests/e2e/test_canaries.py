"""I22 on real processes: values planted in the data of agents are in no packet, log, ledger, database, history or model
of theirs, the aggregator's or the broker's; and an agent that crashes writes no core file."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
from brokers import Mosquitto, eventually
from canaries import CANARIES, assert_untold, traces
from daemons import Federation

DEVICES = ["dev-a", "dev-b", "dev-c"]
CORES = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


class Recorder:
    """Passes bytes on between clients and a broker, and keeps all of them in `heard`. A context manager."""

    def __init__(self, port: int) -> None:
        self.heard = bytearray()
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                broker = socket.create_connection(("127.0.0.1", self._target))
                for pair in ((client, broker), (broker, client)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        stream = bytearray()  # of one direction, so that no value is torn by the other one
        with suppress(OSError):
            while chunk := source.recv(65536):
                stream += chunk
                target.sendall(chunk)
        self.heard += stream
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.close()


def start(stack: ExitStack, module: str, config: Path) -> subprocess.Popen[bytes]:
    """A daemon that may leave a core file in the folder of its log, if nobody forbids it."""
    folder = config.parent / f"{config.stem}-run"
    folder.mkdir()
    command = [sys.executable, "-m", module, "--config", str(config), "--log-level", "debug"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, preexec_fn=allow_cores)
    stack.callback(process.wait, 10)
    stack.callback(process.kill)
    return process


def allow_cores() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, CORES)


def plant(path: Path, seed: int) -> str:
    """A table in which every row has canaries; its SPEC."""
    rng = np.random.default_rng(seed)
    rows = [f"{CANARIES[0]},{CANARIES[1]},{rng.normal():.3f},{CANARIES[2]},{rng.integers(3)}\n" for _ in range(60)]
    path.write_text("a,b,c,d,label\n" + "".join(rows))
    return f"csv:{path}?target=label&kind=classes"


@pytest.mark.parametrize("codec", ["raw32", "ecq"])
def test_i22_canaries_of_real_agents_are_nowhere_but_in_their_data(tmp_path, codec):
    rounds = {"rounds": 4, "deadline_s": 20.0, "min_reports": 3, "expect": 3}
    data = []
    with ExitStack() as stack:
        broker = stack.enter_context(Mosquitto("allow_anonymous true\nlog_type all\n", persistence=True))
        recorder = stack.enter_context(Recorder(broker.port))
        federation = Federation(tmp_path, recorder.url, "canaries")
        config = federation.write_aggregator(
            rounds=rounds, codec={"name": codec}, evaluate={"holdout": 0.2}, journal=str(tmp_path / "journal")
        )
        aggregator = start(stack, "edgefl_broker", config)
        agents = []
        for i, device in enumerate(DEVICES):
            (tmp_path / device).mkdir()
            data.append(tmp_path / device / "data.csv")
            agents.append(start(stack, "edgefl_agent", federation.write_agent(device, plant(data[-1], i))))
        assert aggregator.wait(90) == 0, (tmp_path / "aggregator-run" / "log").read_text()
        told = sent(tmp_path / DEVICES[0] / "agent.toml")
        for agent in agents:
            agent.send_signal(signal.SIGABRT if agent is agents[0] else signal.SIGTERM)
            agent.wait(10)
        broker.stop()
        kept = {str(path): path.read_bytes() for path in broker._config.parent.iterdir()}
        eventually(lambda: recorder.heard.count(b"disconnected") >= 2)  # the streams have ended
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path not in data]
    assert {"agent.db", "aggregator.db", "history.jsonl", "model.onnx", "run.json", "log", "journal"} <= {
        path.name for path in files
    }
    assert len(recorder.heard) > 5000 and told.count(b'"sha256"') >= 4
    assert any(path.endswith("mosquitto.db") for path in kept)
    for path in files:
        assert_untold(path.read_bytes(), str(path))
    for where, content in {"packets": bytes(recorder.heard), "edgefl-agent sent": told, **kept}.items():
        assert_untold(content, where)
    assert any(trace in data[0].read_bytes() for trace in traces(CANARIES[0])), "the search finds what is there"
    assert not [path for path in files if path.name.startswith("core")]


def sent(config: Path) -> bytes:
    command = [sys.executable, "-m", "edgefl_agent", "sent", "--json", "--config", str(config)]
    return subprocess.run(command, capture_output=True, check=True).stdout


def cores(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith("core")]


@pytest.mark.skipif(sys.platform != "linux", reason="core files of Linux")
@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV])
@pytest.mark.parametrize("module", ["edgefl_agent", "edgefl_broker"])
def test_i22_a_daemon_that_crashes_writes_no_core_file_without_systemd_too(tmp_path, shared_mosquitto, module, number):
    """In the same folder and with the same limits, another program does."""
    federation = Federation(tmp_path, shared_mosquitto.url, "crash")
    config = federation.write_aggregator() if module == "edgefl_broker" else federation.write_agent("dev-a")
    with ExitStack() as stack:
        daemon = start(stack, module, config)
        folder = config.parent / f"{config.stem}-run"
        eventually(lambda: b"connected to" in (folder / "log").read_bytes(), 20)
        limits = Path(f"/proc/{daemon.pid}/limits").read_text()
        assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")] == [["0", "0"]]
        daemon.send_signal(number)
        assert daemon.wait(10) == -number and cores(folder) == []
    if writes_cores_here():
        other = [sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(number)})"]
        assert subprocess.run(other, cwd=folder, preexec_fn=allow_cores).returncode == -number
        assert cores(folder), "the check finds a core file where one is written"


def writes_cores_here() -> bool:
    """Whether cores go to the process's own folder, under a name that begins so."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    return pattern.startswith("core") and hard == resource.RLIM_INFINITY and os.access(".", os.W_OK)
