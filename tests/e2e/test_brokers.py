"""`make brokers` over the two brokers that every machine of a developer has; a kill -9 of the broker in the middle."""

from __future__ import annotations

from pathlib import Path

import pytest
from broker_matrix import AFTER, BEFORE, run
from brokers import require_mosquitto
from other_brokers import OTHERS, Broker, Embedded, Mosquitto


@pytest.mark.parametrize("kind", [Mosquitto, Embedded])
def test_rounds_go_on_after_the_broker_was_killed(tmp_path: Path, kind: type[Broker]) -> None:
    if kind is Mosquitto:
        require_mosquitto()
    elif not kind.installed():
        pytest.skip(f"{kind.name} is not installed: {kind.needs}")
    row = run(kind, tmp_path / "run")
    assert row.mqtt == "5" and row.rounds >= BEFORE + AFTER and row.accuracy > 0.9
    assert row.recovery_s < 30


def test_a_broker_that_is_not_installed_is_no_pass(monkeypatch, capsys) -> None:
    import broker_matrix

    monkeypatch.setattr("sys.argv", ["broker_matrix", "rabbit"])
    monkeypatch.setattr(OTHERS[2], "installed", lambda: False)
    assert broker_matrix.main() == 0
    out = capsys.readouterr().out
    assert "RabbitMQ" in out and "not installed: apt-get install rabbitmq-server" in out and "passed" not in out


def test_a_broker_that_fails_fails_the_run(monkeypatch, capsys) -> None:
    import broker_matrix

    def fail(kind: object, folder: object) -> None:
        raise AssertionError("no round")

    monkeypatch.setattr("sys.argv", ["broker_matrix", "mosq"])
    monkeypatch.setattr(broker_matrix, "run", fail)
    for name, value in (("installed", True), ("version", "2")):
        monkeypatch.setattr(Mosquitto, name, lambda value=value: value)
    assert broker_matrix.main() == 1
    assert "FAILED: no round" in capsys.readouterr().out
