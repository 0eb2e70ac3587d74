"""`--log-format json` of both daemons: every line is an object that says which round and device it is about."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from brokers import Mosquitto, eventually
from daemons import Federation

from edgefl.hosting.log_lines import JsonLines

FIELDS = {"time", "level", "logger", "message", "federation"}


class Logged:
    """A daemon in a process of its own, and the lines of its log so far."""

    def __init__(self, module: str, config: Path, *sets: str) -> None:
        words = [sys.executable, "-m", module, "--config", str(config), "--log-format", "json", "--log-level", "debug"]
        self._file = config.with_suffix(".log")
        with open(self._file, "wb") as log:
            self.process = subprocess.Popen([*words, *sets], stdout=log, stderr=log, env=os.environ)

    def lines(self) -> list[dict[str, object]]:
        """Whole lines only; each must be JSON."""
        return [json.loads(line) for line in self._file.read_text().split("\n")[:-1]]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


def test_every_line_of_a_federation_is_an_object_with_its_round_and_device(tmp_path: Path) -> None:
    with Mosquitto() as broker:
        fleet = Federation(tmp_path, broker.url, "logs")
        rounds = {"deadline_s": 10.0, "min_reports": 1, "interval_s": 0.2}
        good, bad = fleet.write_agent("dev-a"), fleet.write_agent("dev-b", f"npz:{tmp_path}/missing.npz")
        listen = {"listen": "127.0.0.1:0"}
        aggregator = Logged("edgefl_broker", fleet.write_aggregator(rounds=rounds, dashboard=listen))
        agents = [Logged("edgefl_agent", good), Logged("edgefl_agent", bad)]
        try:
            eventually(lambda: any("committed" in str(line["message"]) for line in aggregator.lines()), 30)
            eventually(lambda: any(line.get("device") == "dev-b" for line in aggregator.lines()), 30)
            eventually(lambda: any(line.get("round") for line in agents[0].lines()), 30)
        finally:
            codes = [daemon.stop() for daemon in (*agents, aggregator)]
    assert codes == [0, 0, 0]
    for daemon in (aggregator, *agents):
        assert daemon.lines() and all(line.keys() >= FIELDS for line in daemon.lines())
    assert {line.get("device") for line in agents[0].lines()} == {"dev-a"}
    told = [line for line in aggregator.lines() if re.match(r"round \d", str(line["message"]))]
    assert told and all(line["round"] == int(str(line["message"]).split()[1].rstrip(":")) for line in told)
    (trouble, *_) = [line for line in aggregator.lines() if "in trouble" in str(line["message"])]
    assert (trouble["device"], trouble["level"]) == ("dev-b", "warning")


def run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)


def test_what_python_would_print_by_itself_is_an_object_too() -> None:
    """A warning, a thread that breaks, and an error that nobody catches."""
    code = """
import threading, warnings
from edgefl.hosting.log_lines import always, log_to_stderr
log_to_stderr("info", "json")
always(federation="f")
warnings.warn("old")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise RuntimeError("inside")
"""
    done = run(code)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1 and [line["level"] for line in lines] == ["warning", "critical", "critical"]
    assert "ZeroDivisionError" in lines[1]["traceback"] and "RuntimeError: inside" in lines[2]["traceback"]
    assert all(line["federation"] == "f" for line in lines)


def test_wrong_use_is_an_object_too() -> None:
    for module in ("edgefl_agent", "edgefl_broker"):
        for words in (["--log-format", "json", "--confg", "x"], ["--log-format=json"]):
            done = subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True, timeout=60)
            (line,) = done.stderr.splitlines()
            assert done.returncode == 2 and json.loads(line)["level"] == "error"
            assert "--help" in json.loads(line)["message"]


def test_a_name_that_is_not_utf_8_costs_no_line() -> None:
    """A file may be called anything; Python has such bytes as halves of surrogate pairs, which JSON has not."""
    record = logging.LogRecord("edgefl", logging.INFO, "", 0, "can't read %s", ("a\udcffb\nc",), None)
    record.round = 7
    line = JsonLines().format(record)
    assert json.loads(line) | {"time": ""} == {
        "time": "", "level": "info", "logger": "edgefl", "message": "can't read a\\udcffb\nc", "round": 7,
    }  # fmt: skip
    assert "\n" not in line
