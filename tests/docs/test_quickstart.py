"""docs/quickstart.md: from a newcomer's table to two agents that train over TLS, in at most twelve commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys

import onnxruntime
import pytest
from brokers import eventually, free_port, require_mosquitto
from conftest import ROOT
from own_table import as_root, commands, shell, write_table

from edgefl.history_files import read_records

PAGE = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
MOST = 12


def test_the_page_has_twelve_commands():
    told = [line for line in commands(PAGE).splitlines() if line and not line.startswith("kill ")]
    assert len(told) <= MOST, told


def test_its_commands_lead_to_two_agents_that_train_over_tls(tmp_path):
    require_mosquitto()
    write_table(tmp_path / "machines.csv")
    script = commands(PAGE.partition("## Make the federation")[2]).replace("interval_s=2", "interval_s=0.2")
    script = script.replace("/usr/sbin/mosquitto", require_mosquitto())
    script = script.replace("--split", f"--split --broker mqtts://localhost:{free_port()}")
    running, _, rest = script.partition("edgefl status ")
    watch = shlex.split(rest.partition("\n")[0])
    history, log = tmp_path / "fleet" / "state" / "history.jsonl", tmp_path / "log"
    with shell(as_root(running) if os.geteuid() == 0 else running, tmp_path, log):
        try:
            eventually(lambda: history.exists() and len(read_records(history)) >= 12, 120.0)
        except AssertionError:
            pytest.fail("\n".join(path.read_text() for path in [log, *(tmp_path / "fleet").glob("*.log")]))
        words = [sys.executable, "-m", "edgefl", "status", *watch]
        seen = subprocess.run(words, cwd=tmp_path / "fleet", capture_output=True, text=True, timeout=60)
        told = json.loads(subprocess.run([*words, "--json"], cwd=tmp_path / "fleet", capture_output=True).stdout)
    assert seen.returncode == 0 and re.search(r"pi-01 .*\n.*pi-02 ", seen.stdout), seen.stdout + seen.stderr
    assert told["summary"]["total"] == 2
    assert "DEVICE ACCURACY" in seen.stdout, "the page says that status has it"
    records = read_records(history)
    assert {name for record in records for name in record.devices} == {"pi-01", "pi-02"}
    assert records[-1].device_accuracy > 0.9, "on what the devices hold out"
    onnxruntime.InferenceSession(tmp_path / "fleet" / "state" / "model.onnx")
    assert not any("Traceback" in path.read_text() for path in (tmp_path / "fleet").glob("*.log"))
