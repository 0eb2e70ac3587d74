"""docs/security.md does what it says: from `keys init` to three agents that train over TLS, in its eight commands."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import eventually, free_port, require_mosquitto
from conftest import ROOT
from guarded import guard_plugin

from edgefl.cli.main import make_parser
from edgefl.history_files import read_records

PAGE = (ROOT / "docs" / "security.md").read_text()
CHAPTER = PAGE.split("## Try it")[1].split("\n## ")[0]


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", CHAPTER, re.MULTILINE | re.DOTALL)
    return found


def test_the_page_promises_eight_commands() -> None:
    assert len(block("sh").replace("\\\n", "").strip().splitlines()) <= 8


def test_every_command_on_the_page_is_one_that_edgefl_takes() -> None:
    words = PAGE.replace("\\\n", " ").replace("`--crl", "`edgefl keys renew keys --crl")
    commands = re.findall(r"(edgefl keys (?:init|add|revoke|renew|epoch|list|batch|claims|approve) [^\n`]+)", words)
    assert len(commands) > 15
    for command in commands:
        make_parser().parse_args(shlex.split(command)[1:])  # or it exits


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A shell that runs the page's commands in an empty folder; what it starts ends with the test."""
    guard = guard_plugin()
    path = f"{Path(sys.executable).parent}:{Path(require_mosquitto()).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "GUARD": str(guard), "EDGEFL_TRUST_CLOCK": "1"}
    with open(tmp_path / "log", "wb") as log:
        one = subprocess.Popen(
            ["sh", "-e"], stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=tmp_path, env=environment,
            start_new_session=True,
        )  # fmt: skip
    yield one
    os.killpg(one.pid, signal.SIGTERM)
    one.wait(20.0)


def test_eight_commands_lead_to_three_agents_that_train_over_tls(
    shell: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    pytest.importorskip("sklearn")
    port = free_port()
    commands = block("sh").replace("--broker localhost", f"--broker localhost --port {port}")
    assert commands.count(str(port)) == 1
    if os.geteuid() == 0:  # mosquitto would drop to a user who may not read this folder
        commands = commands.replace("mosquitto -c", "echo 'user root' >> keys/broker/mosquitto.conf; mosquitto -c")
    subprocess.run([sys.executable, "-c", block("python")], cwd=tmp_path, check=True, timeout=120)
    assert shell.stdin is not None
    shell.stdin.write(commands.encode() + b"wait\n")
    shell.stdin.flush()
    history = tmp_path / "state" / "history.jsonl"
    try:
        eventually(lambda: history.exists() and len(read_records(history)) >= 3, 120.0)
    except AssertionError:
        pytest.fail((tmp_path / "log").read_text())
    for record in read_records(history)[:3]:
        assert record.state == "committed"
        assert set(record.devices) <= {"pi-01", "pi-02", "pi-03"}
    assert {name for record in read_records(history) for name in record.devices} == {"pi-01", "pi-02", "pi-03"}
    said = (tmp_path / "log").read_text()
    assert said.count(f"connected to MQTT broker localhost:{port}") == 4, said
    assert "Traceback" not in said
