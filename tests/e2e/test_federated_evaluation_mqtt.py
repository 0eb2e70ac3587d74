"""Federated evaluation over real brokers, and rounds that only evaluate through the death of both sides."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
from brokers import Mosquitto, eventually
from daemons import Federation, blobs
from mqtt_fixtures import TestLink

import edgefl
from edgefl.device.holdout import held_out
from edgefl.protocol.messages import Status, encode
from edgefl.protocol.topics import Topics

EVALUATE = {"holdout": 0.3}


def held_by(fleet: Federation, *devices: str) -> tuple[np.ndarray, np.ndarray]:
    """All that these agents hold out of their data."""
    held = []
    for device in devices:
        x, y = blobs(60, seed=sum(device.encode()))
        mask = held_out(device, 60, EVALUATE["holdout"])
        held.append((x[mask], y[mask]))
    return tuple(map(np.concatenate, zip(*held, strict=True)))  # type: ignore[return-value]


def test_devices_report_what_one_evaluation_of_all_that_they_hold_out_says(
    wire: tuple[str, str], federation: Callable[..., Federation], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fleet = federation(*wire)
    aggregator = fleet.aggregator(
        evaluate=EVALUATE, rounds={"rounds": 2, "deadline_s": 10.0, "min_reports": 2, "evaluate_every": 2}
    )
    for device in ("dev-a", "dev-b"):
        fleet.agent(device)
    assert aggregator.join(), "the rounds did not end"
    trained, evaluated = aggregator.host.history.rounds
    assert [(r.state, r.version) for r in (trained, evaluated)] == [("committed", 1), ("evaluated", 1)]
    x, y = held_by(fleet, "dev-a", "dev-b")
    model = edgefl.load(fleet.folder / "aggregator" / "model.onnx")
    whole = edgefl.Trainer(model.plan).evaluate(aggregator.host.machine.params, x, y)
    assert (trained.num_examples, trained.device_examples, evaluated.device_examples) == (120 - len(x), len(x), len(x))
    assert evaluated.device_loss == pytest.approx(whole.loss, rel=1e-6)
    assert evaluated.device_accuracy == pytest.approx(whole.accuracy, rel=1e-6)
    assert evaluated.bytes_up < 400, "two headers in two envelopes"
    line = next(message for message in caplog.messages if message.startswith("round 2 evaluated: 2 reported"))
    assert f"device accuracy {whole.accuracy:.4f}, device loss {whole.loss:.4g}" in line


def test_i11_a_round_that_only_evaluates_outlives_both_sides(
    mosquitto: Mosquitto, federation: Callable[..., Federation], link: Callable[..., TestLink]
) -> None:
    """Counted, not over, and then both die: the round is reopened as it was, and the report sent, not made, again."""
    fleet = federation(mosquitto.url)
    rounds = {"deadline_s": 60.0, "min_reports": 1}
    agent = fleet.agent("dev-a")
    assert fleet.aggregator(rounds={**rounds, "rounds": 1, "evaluate_every": 2}, evaluate=EVALUATE).join()
    silent = link(mosquitto.url, "dev-b")
    silent.up()
    silent.said(Topics(fleet.name).status("dev-b"), encode(Status("ready", 1)), retain=True)
    aggregator = fleet.aggregator(
        rounds={"deadline_s": 60.0, "min_reports": 2, "rounds": 2, "evaluate_every": 2}, evaluate=EVALUATE
    )
    eventually(lambda: aggregator.host.machine.snapshot().counted)
    agent.die()
    aggregator.die()
    saved = agent.host.machine._saved.outbox
    assert (saved.round, saved.mode) == (2, "evaluate")
    again = fleet.agent("dev-a")
    assert again.host.machine._saved.outbox.blob == saved.blob
    again.host._worker.start = lambda job: pytest.fail("evaluated again")  # type: ignore[method-assign]
    last = fleet.aggregator(rounds={**rounds, "rounds": 2, "goal": 1, "evaluate_every": 2}, evaluate=EVALUATE)
    params = last.host.machine.params.tobytes()
    assert last.join()
    first, record = last.host.history.rounds
    assert (record.round, record.state, record.version, record.devices) == (2, "evaluated", first.version, ["dev-a"])
    assert record.device_examples == len(held_by(fleet, "dev-a")[1])
    assert last.host.machine.params.tobytes() == params
