"""SIGHUP: what can change changes without losing the open round, the rest is named, and a bad file changes nothing."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brokers import Mosquitto, eventually
from daemons import Federation
from edgefl_agent.agent import Agent
from edgefl_agent.config import LIVE as AGENT_LIVE
from edgefl_agent.config import AgentConfig, DataConfig, LimitsConfig
from edgefl_broker.reload import LIVE
from msgspec.structs import replace

from edgefl.errors import StoreError, UsageError
from edgefl.hosting.config import AggregatorConfig
from edgefl.hosting.reload import Reload
from edgefl.settings import files, schema
from edgefl.transports.settings import MqttConfig


@pytest.mark.parametrize(("config", "live"), [(AggregatorConfig, LIVE), (AgentConfig, AGENT_LIVE)])
def test_every_setting_that_may_change_exists(config, live):
    keys = {setting.key for setting in schema.settings_of(config)}
    assert {key for key in live if key not in keys and not any(k.startswith(f"{key}.") for k in keys)} == set()


def test_what_changes_is_told_apart(caplog):
    caplog.set_level(logging.INFO)
    table = {"federation": "f", "model": "m", "mqtt": {"url": "mqtt://user:s3cret@x"}}
    build = lambda **more: files.build(AggregatorConfig, {**table, **more})  # noqa: E731
    reload, used = Reload(build(), LIVE, logging.getLogger("test")), []
    reload.look(used.append)
    assert (used, caplog.text) == ([], "")
    other = {"url": "mqtt://u:other@x"}
    reload.ask(lambda: build(rounds={"goal": 3}, gate={"quorum": 2}, train={"lr": 0.5}, mqtt=other))
    reload.look(used.append)
    assert used[0].rounds.goal == 3 and used[0].gate.quorum == 2 and used[0].train.lr == 0.1
    assert "in use now: rounds.goal, gate.quorum" in caplog.text
    assert "restart to change train.lr, mqtt.url" in caplog.text
    assert "s3cret" not in caplog.text and "other" not in caplog.text
    caplog.clear()
    reload.look(used.append)
    reload.ask(lambda: build(rounds={"goal": 3}, gate={"quorum": 2}))
    reload.look(used.append)
    assert len(used) == 1 and "nothing has changed" in caplog.text


def test_a_file_with_a_mistake_changes_nothing(caplog):
    table = {"federation": "f", "model": "m", "mqtt": {"url": "mqtt://x"}}
    reload = Reload(files.build(AggregatorConfig, table), LIVE, logging.getLogger("test"))

    def refuse(config: AggregatorConfig) -> None:
        raise UsageError("they do not go together: change one")

    for load, said in (
        (lambda: files.build(AggregatorConfig, {**table, "rounds": {"gaol": 3}}), "no key 'gaol'"),
        (lambda: files.load("no/such.toml", AggregatorConfig), "can't read no/such.toml"),
        (lambda: files.build(AggregatorConfig, {**table, "rounds": {"goal": 3}}), "do not go together"),
    ):
        caplog.clear()
        reload.ask(load)
        reload.look(refuse)
        (record,) = caplog.records
        assert record.levelname == "ERROR" and said in record.message and "stay as they are" in record.message
        assert reload.config.rounds.goal is None


def test_a_disk_that_refuses_while_settings_change_ends_the_daemon():
    table = {"federation": "f", "model": "m", "mqtt": {"url": "mqtt://x"}}
    reload = Reload(files.build(AggregatorConfig, table), LIVE, logging.getLogger("test"))

    def full(config: AggregatorConfig) -> None:
        raise StoreError("no space left: free some")

    reload.ask(lambda: files.build(AggregatorConfig, {**table, "rounds": {"goal": 3}}))
    with pytest.raises(StoreError, match="no space left"):
        reload.look(full)


class Process:
    """A daemon in a process of its own, and the lines of its log."""

    def __init__(self, program: str, config: Path) -> None:
        self.log = config.with_suffix(".log")
        with open(self.log, "ab") as log:
            words = [sys.executable, "-m", program, "--config", config]
            self.process = subprocess.Popen(words, stderr=log, stdout=log, stdin=subprocess.DEVNULL)

    def hang_up(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def says(self, text: str) -> None:
        eventually(lambda: text in self.log.read_text(), 20.0)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(10.0)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    with Mosquitto() as broker:
        federation = Federation(tmp_path, broker.url, "reload")
        running: list[Process] = []

        def start(program: str, config: Path) -> Process:
            running.append(Process(program, config))
            return running[-1]

        yield federation, start
        for process in running:
            process.end()


def test_running_daemons_take_new_settings(started):
    """The next round is an hour away until the settings say otherwise; none of this costs a connection or a round."""
    federation, start = started
    rounds = {"rounds": 1000, "deadline_s": 30.0, "min_reports": 1, "expect": 1, "interval_s": 3600.0}
    config = federation.write_aggregator(rounds=rounds)
    aggregator = start("edgefl_broker", config)
    pause = federation.folder / "pause"
    agent_config = federation.write_agent("dev-a")
    agent = start("edgefl_agent", agent_config)
    aggregator.says("round 1 committed")

    good = config.read_text()
    config.write_text(good.replace("interval_s = 3600.0", "interval_s = -1.0"))
    aggregator.hang_up()
    aggregator.says("the settings stay as they are")
    config.write_text(good.replace("interval_s = 3600.0", "interval_s = 0.0").replace("rounds = 1000", "rounds = 4")
                      .replace("lr = 0.1", "lr = 0.2"))  # fmt: skip
    aggregator.hang_up()
    aggregator.says("restart to change train.lr")
    aggregator.says("done: 4 rounds are done")
    assert aggregator.process.wait(10.0) == 0
    log = aggregator.log.read_text()
    assert "in use now: rounds.interval_s, rounds.rounds" in log
    assert "ERROR   configuration not read again: aggregator.toml: [rounds] interval_s is -1.0: give a number" in log, (
        log
    )
    assert '"interval_s": 0.0' in (federation.folder / "aggregator" / "run.json").read_text()

    pause.touch()
    agent_config.write_text(f'pause_file = "{pause}"\n{agent_config.read_text()}'.replace('dev-a"', 'dev-b"', 1))
    agent.hang_up()
    agent.says(f"paused: {pause} exists")
    agent.says("in use now: pause_file")
    agent.says("restart to change device_id")
    assert agent.process.poll() is None


def test_other_settings_do_not_begin_an_agents_limits_anew(tmp_path):
    """A new governor pauses the device until its first reading, which would stop training for nothing."""
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 2), np.float32), y=np.arange(3))
    config = AgentConfig(
        "reload", "dev-a", MqttConfig("mqtt://127.0.0.1:1"), DataConfig(f"npz:{tmp_path / 'data.npz'}"),
        str(tmp_path / "state"), limits=LimitsConfig(max_celsius=90.0),
    )  # fmt: skip
    agent = Agent(config)
    try:
        before = agent._governor
        agent._use(replace(config, limits=replace(config.limits, cpu_percent=50), pause_file="/nowhere"))
        assert agent._governor is before
        agent._use(replace(config, limits=replace(config.limits, max_celsius=80.0)))
        assert agent._governor is not before
    finally:
        agent._worker.close()
        agent._store.close()
