"""A loss that the file leaves open: the aggregator infers it from its test set, or says once what devices refuse."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from brokers import eventually
from daemons import Federation, blobs
from edgefl_broker.aggregator import Aggregator
from edgefl_broker.progress import Silent

from edgefl.errors import UsageError
from edgefl.hosting.config import AggregatorConfig
from edgefl.onnx import zoo
from edgefl.settings import files
from edgefl.transports.embedded import EmbeddedBroker

ROUNDS = {"rounds": 3, "deadline_s": 2.0, "min_reports": 2, "expect": 2}


@pytest.fixture
def four(tmp_path):
    """A federation whose model has four inputs and four outputs: of an autoencoder, or of a classifier."""
    with EmbeddedBroker() as broker:
        federation = Federation(tmp_path, broker.url, "four")
        (tmp_path / "start.onnx").write_bytes(zoo.mlp([4, 8, 4], seed=1).SerializeToString())
        yield federation
        federation.close()


def test_the_test_sets_labels_make_it_a_classifier(four, caplog):
    caplog.set_level(logging.INFO)
    for name in ("dev-a", "dev-b"):
        four.agent(name)
    aggregator = four.aggregator(rounds=ROUNDS)
    assert aggregator.join() and aggregator.error is None
    assert "loss: cross_entropy (inferred: the targets are labels, for 4 outputs)" in caplog.text
    assert aggregator.host.history.rounds[-1].accuracy > 0.8


def test_a_loss_that_the_test_set_contradicts_is_wrong_use(four):
    config = files.load(four.write_aggregator(loss="mse"), AggregatorConfig)
    with pytest.raises(UsageError, match=r"as `loss` says.*set loss = \"cross_entropy\""):
        Aggregator(config, Silent())


def test_without_a_test_set_the_devices_refusals_are_told_once_with_the_remedy(four, caplog):
    caplog.set_level(logging.INFO)
    for name in ("dev-a", "dev-b", "dev-c"):
        four.agent(name)
    four.aggregator(rounds={**ROUNDS, "rounds": 1, "deadline_s": 1.0}, evaluate={})
    machine = four._running[-1].host.machine
    eventually(lambda: [status.code for status in machine.presence.statuses.values()] == ["labels"] * 3, 20.0)
    (advice,) = [text for text in machine.summary(0.0).advice if "loss" in text]
    assert advice.startswith("3 devices can't train with loss 'mse'") and '"cross_entropy"' in advice
    lines = [r for r in caplog.records if r.name == "edgefl.aggregator" and "cross_entropy" in r.getMessage()]
    assert len(lines) == 1 and lines[0].levelname == "ERROR"
    assert "inferred: the output has the input's shape" in caplog.text


def test_data_that_come_right_are_trained_again(four, tmp_path):
    """The refusal belongs to the data as they were: numbers in their place are trained at once."""
    running = [four.agent(name) for name in ("dev-a", "dev-b")]
    aggregator = four.aggregator(rounds=ROUNDS, evaluate={})
    machine = aggregator.host.machine
    eventually(lambda: [s.code for s in machine.presence.statuses.values()] == ["labels"] * 2, 20.0)
    for name in ("dev-a", "dev-b"):
        x, _ = blobs(60, seed=3)
        np.savez(tmp_path / name / "data.npz", x=x, y=x)
    assert aggregator.join(60.0) and aggregator.error is None and running
    assert aggregator.host.history.rounds[-1].reported == 2
