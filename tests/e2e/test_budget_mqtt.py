"""A device with a small byte budget, over a real broker: it takes part while it may, then sits out and says so."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from brokers import eventually
from daemons import Federation

from edgefl.device.owner import budget
from edgefl.hosting import wall_clock
from edgefl.onnx import zoo

ROUNDS = {"deadline_s": 3.0, "min_reports": 1, "expect": 2}


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(wall_clock.TRUST, "1")


def spent(agent) -> int:
    return agent.host.machine.allowance._budget.today


def code(aggregator, device: str) -> str:
    status = aggregator.host.machine.presence.statuses.get(device)
    return "" if status is None else status.code


def test_a_device_whose_budget_is_spent_sits_out_and_the_record_says_so(
    mosquitto: object, federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "HEAD", 10**6)  # the day's limit may be spent at once
    fleet = federation(mosquitto.url)  # type: ignore[attr-defined]
    aggregator = fleet.aggregator(rounds=ROUNDS)
    fleet.agent("dev-a")
    poor = fleet.agent("dev-b", limits={"max_mb_per_day": 0.02})
    eventually(lambda: code(aggregator, "dev-b") == "budget", 30.0)
    records = aggregator.host.history.rounds
    assert any("dev-b" in record.devices for record in records), "it took part while it could"
    before = len(records)
    eventually(lambda: len(aggregator.host.history.rounds) >= before + 3, 30.0)
    last = aggregator.host.history.rounds[-1]
    assert last.devices == ["dev-a"] and last.budgets == {"dev-b": 0} and last.closed_at > 1.7e9
    time.sleep(1.0)
    assert 10_000 < spent(poor) <= 20_000, "control messages do not use more than the day's limit either"
    poor.die()
    again = fleet.agent("dev-b", limits={"max_mb_per_day": 0.02})
    time.sleep(2.0)
    ceiling = 20_000 + 20_000 // budget.STEPS + 1
    assert 10_000 < spent(again) <= ceiling, "a killed agent goes on where it was, as far as it is known"
    assert not any("dev-b" in record.devices for record in aggregator.host.history.rounds[before + 1 :])


def test_an_update_that_the_budget_shortens_is_in_the_model_and_in_the_record(
    mosquitto: object, federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setattr(budget, "HEAD", 10**6)
    caplog.set_level("INFO")
    fleet = federation(mosquitto.url)  # type: ignore[attr-defined]
    (fleet.folder / "start.onnx").write_bytes(zoo.mlp([4, 400, 3], seed=1).SerializeToString())  # 12.8 kB
    aggregator = fleet.aggregator(rounds=ROUNDS | {"rounds": 1}, codec={"name": "ecq:step=0.1"})
    fleet.agent("dev-a")
    fleet.agent("dev-b", limits={"max_mb_per_day": 0.0192})
    assert aggregator.join()
    (record,) = aggregator.host.history.rounds
    assert record.devices == ["dev-a", "dev-b"]
    sent = {device: up for device, (up, _) in record.traffic.items()}
    assert 0 < record.budgets["dev-b"] < sent["dev-a"] and sent["dev-b"] < record.budgets["dev-b"] + 200
    assert "is shortened to" in caplog.text


def test_without_a_trusted_clock_a_device_with_limits_waits_and_says_so(
    embedded: object, federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wall_clock, "is_trusted", lambda unix_s: False)
    fleet = federation(embedded.url)  # type: ignore[attr-defined]
    aggregator = fleet.aggregator(rounds=ROUNDS)
    fleet.agent("dev-a")
    fleet.agent("dev-b", limits={"hours": "00:00-12:00"})
    eventually(lambda: code(aggregator, "dev-b") == "clock", 20.0)
