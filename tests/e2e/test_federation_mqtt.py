"""Real agents and a real aggregator over real brokers: the whole way once, and what happens when something breaks."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from brokers import Mosquitto, eventually
from daemons import Federation, blobs
from edgefl_agent.agent import Agent
from edgefl_agent.config import AgentConfig
from mqtt_fixtures import TestLink

import edgefl
from edgefl.data import Dataset
from edgefl.errors import StoreError
from edgefl.onnx import zoo
from edgefl.protocol.messages import Status, decode, encode
from edgefl.protocol.round import Round
from edgefl.protocol.topics import Topics
from edgefl.settings import files
from edgefl.transports.mqtt import Message

NUMBERS = itertools.count(1)


def test_three_rounds_on_both_brokers_and_versions(
    wire: tuple[str, str], federation: Callable[..., Federation]
) -> None:
    fleet = federation(*wire)
    aggregator = fleet.aggregator()
    for device in ("dev-a", "dev-b"):
        fleet.agent(device)
    assert aggregator.join(), "the rounds did not end"
    assert aggregator.error is None
    history = aggregator.host.history
    assert [(r.round, r.state, r.devices) for r in history.rounds] == [
        (n, "committed", ["dev-a", "dev-b"]) for n in (1, 2, 3)
    ]
    assert history.final.accuracy is not None and history.final.accuracy > 0.9
    # What went over the wire: two updates of P params and their headers a round, and the model down to each.
    size = 4 * len(history.params)
    assert all(2 * size < r.bytes_up < 2 * size + 400 for r in history.rounds)
    assert all(2 * size < r.bytes_down < 2 * size + 8000 for r in history.rounds)


def test_the_file_that_comes_out_is_the_model_that_was_averaged(
    embedded: object, federation: Callable[..., Federation]
) -> None:
    fleet = federation(embedded.url)  # type: ignore[attr-defined]
    aggregator = fleet.aggregator()
    fleet.agent("dev-a")
    fleet.agent("dev-b")
    assert aggregator.join()
    out = fleet.folder / "aggregator" / "model.onnx"
    model = edgefl.load(out)
    np.testing.assert_array_equal(model.params, aggregator.host.machine.params)
    x, _ = blobs(50, seed=5)
    theirs = onnxruntime.InferenceSession(out.read_bytes()).run(None, {"input": x})[0]
    np.testing.assert_allclose(theirs, edgefl.Trainer(model.plan).predict(model.params, x), atol=1e-5)


def test_csv_and_python_data_train_beside_npz(
    embedded: object, federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = federation(embedded.url)  # type: ignore[attr-defined]
    x, y = blobs(40, seed=3)
    rows = "\n".join(",".join(map(str, [*features, label])) for features, label in zip(x, y, strict=True))
    (fleet.folder / "data.csv").write_text("a,b,c,d,label\n" + rows + "\n")
    (fleet.folder / "sensor_data_for_test.py").write_text(
        "from daemons import blobs\ndef read():\n    return blobs(30, seed=4)\n"
    )
    monkeypatch.syspath_prepend(str(fleet.folder))
    aggregator = fleet.aggregator(rounds={"rounds": 1, "deadline_s": 10.0, "min_reports": 3, "expect": 3})
    fleet.agent("dev-npz")
    fleet.agent("dev-csv", f"csv:{fleet.folder}/data.csv?target=label&kind=classes")
    fleet.agent("dev-python", "python:sensor_data_for_test:read")
    assert aggregator.join()
    (record,) = aggregator.host.history.rounds
    assert record.devices == ["dev-csv", "dev-npz", "dev-python"]
    assert record.num_examples == 60 + 40 + 30


def test_the_aggregator_goes_on_where_it_stopped(embedded: object, federation: Callable[..., Federation]) -> None:
    fleet = federation(embedded.url)  # type: ignore[attr-defined]
    rounds = {"deadline_s": 10.0, "min_reports": 2}
    first = fleet.aggregator(rounds=rounds)
    fleet.agent("dev-a")
    fleet.agent("dev-b")
    eventually(lambda: len(first.host.history.rounds) >= 2)
    first.die()
    before = first.host.history.rounds
    second = fleet.aggregator(rounds={**rounds, "rounds": len(before) + 3})
    assert second.host.history.rounds == before
    assert second.join()
    records = second.host.history.rounds
    assert [r.round for r in records] == list(range(1, len(before) + 4))
    versions = [r.version for r in records]
    assert versions == sorted(set(versions))
    assert (fleet.folder / "aggregator" / "history.jsonl").read_bytes().count(b"\n") == len(records)


def test_federations_with_long_names_do_not_take_each_others_sessions(
    embedded: object, federation: Callable[..., Federation]
) -> None:
    ids = set()
    for name in ("fleet", "the-fleet-of-the-north", "the-fleet-of-the-south"):
        fleet = federation(embedded.url)  # type: ignore[attr-defined]
        fleet.name = name
        state = str(fleet.folder / name)
        ids.add(fleet.aggregator(state_dir=state).host.link._settings.client_id)
    assert len(ids) == 3 and all(len(one) <= 23 for one in ids)


def test_a_state_folder_of_another_model_is_refused(embedded: object, federation: Callable[..., Federation]) -> None:
    fleet = federation(embedded.url)  # type: ignore[attr-defined]
    fleet.aggregator().stop()
    (fleet.folder / "start.onnx").write_bytes(edgefl.onnx.zoo.mlp([4, 9, 3]).SerializeToString())
    with pytest.raises(StoreError, match="another model: give this federation a state_dir of its own"):
        fleet.aggregator()


def test_what_dies_says_no_goodbye(mosquitto: Mosquitto, federation: Callable[..., Federation]) -> None:
    """Of the test's own means: the broker must send the will, as it does for a process that is killed."""
    fleet = federation(mosquitto.url)
    aggregator = fleet.aggregator(rounds={"deadline_s": 60.0, "min_reports": 2})
    agent = fleet.agent("dev-a")
    presence = aggregator.host.machine.presence
    eventually(lambda: presence.is_present("dev-a"))
    agent.die()
    eventually(lambda: presence.statuses["dev-a"].state == "lost")


def test_i11_an_agent_that_died_unheard_sends_the_same_update_again(
    mosquitto: Mosquitto, federation: Callable[..., Federation], link: Callable[..., TestLink]
) -> None:
    """Counted, not committed, and then both die: the update is sent again, and not made anew."""
    fleet = federation(mosquitto.url)
    silent = link(mosquitto.url, "dev-b")
    silent.up()
    silent.said(Topics(fleet.name).status("dev-b"), encode(Status("ready", 1)), retain=True)
    aggregator = fleet.aggregator(rounds={"rounds": 1, "deadline_s": 60.0, "min_reports": 2})
    agent = fleet.agent("dev-a")
    eventually(lambda: agent.host.machine._saved.outbox is not None)
    saved = agent.host.machine._saved.outbox
    agent.die()
    aggregator.die()
    again = fleet.agent("dev-a")
    assert again.host.machine._saved.outbox == saved
    again.host._worker.start = lambda job: pytest.fail("trained again")  # type: ignore[method-assign]
    second = fleet.aggregator(rounds={"rounds": 1, "deadline_s": 20.0, "min_reports": 1, "goal": 1})
    assert second.join()
    (record,) = second.host.history.rounds
    assert (record.round, record.devices) == (1, ["dev-a"])


def test_an_agent_carries_what_its_codec_took_over_a_restart(
    mosquitto: Mosquitto, federation: Callable[..., Federation], caplog: pytest.LogCaptureFixture
) -> None:
    """It dies before it trains in round 3; the model is that of a simulated fleet on the same data."""
    caplog.set_level(logging.INFO)
    fleet = federation(mosquitto.url)
    codec, train = {"name": "ecq:exact=none"}, {"epochs": 2, "lr": 0.1, "seed": 3}
    rounds = {"rounds": 4, "deadline_s": 20.0, "min_reports": 1}
    aggregator = fleet.aggregator(rounds=rounds, codec=codec, train=train)
    agent = fleet.agent("dev-0")
    worker, held = agent.host._worker, []
    start = worker.start
    worker.start = lambda job: start(job) if job.round.round < 3 else held.append(job)  # type: ignore[method-assign]
    eventually(lambda: held)
    agent.die()
    fleet.agent("dev-0")
    assert aggregator.join()
    assert "residual" not in caplog.text
    assert [r.state for r in aggregator.host.history.rounds] == ["committed"] * 4
    x, y = blobs(60, seed=sum(b"dev-0"))
    data, model = Dataset(x, y, device_train=np.zeros(60, int)), edgefl.load(fleet.folder / "start.onnx")
    options = {"devices": 1, "rounds": 4, "partition": "natural", "codec": "ecq:exact=none"}
    options |= {"downlink": "raw32", "min_reports": 1}
    alike, without = (
        edgefl.simulate(model, data, error_feedback=feedback, **options, **train).params.tobytes()
        for feedback in (True, False)
    )
    assert aggregator.host.machine.params.tobytes() == alike != without


def test_i15_random_bytes_on_any_topic_are_counted_and_dropped(
    broker_url: str,
    federation: Callable[..., Federation],
    link: Callable[..., TestLink],
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet = federation(broker_url)
    caplog.set_level(logging.WARNING)
    aggregator = fleet.aggregator(rounds={"rounds": 2, "deadline_s": 10.0, "min_reports": 2, "expect": 2})
    rng = np.random.default_rng(0)
    vandal = link(broker_url, "vandal")
    vandal.up()
    topics = Topics(fleet.name)
    places = [topics.update("vandal", 1, 0), topics.status("vandal"), f"{topics.base}/d/vandal/u/x/y"]
    aggregator_up = lambda: aggregator.host.machine.snapshot().held  # noqa: E731
    eventually(aggregator_up)
    for place, size in itertools.product(places, (1, 48, 5000)):
        vandal.said(place, rng.bytes(size))
    for device in ("dev-a", "dev-b"):
        fleet.agent(device)
        for place in (topics.inbox(device), topics.round, topics.manifest):
            vandal.said(place, rng.bytes(300))
    assert aggregator.join(), "the rounds did not end"
    assert [r.devices for r in aggregator.host.history.rounds] == [["dev-a", "dev-b"]] * 2
    assert aggregator.host.machine.dropped["vandal"] >= 6
    assert any("dropped from vandal on" in message for message in caplog.messages)


def test_presence_is_shown_and_a_clean_stop_says_so(
    broker_url: str, federation: Callable[..., Federation], link: Callable[..., TestLink]
) -> None:
    fleet = federation(broker_url)
    watcher = link(broker_url, f"watcher-{next(NUMBERS)}", session_expiry_s=0)
    watcher.up()
    topic = Topics(fleet.name).status("dev-a")
    watcher.subscribe([topic])
    agent = fleet.agent("dev-a")
    assert decode(Status, watcher.heard(topic).payload).state == "ready"
    agent.stop()
    assert decode(Status, watcher.heard(topic).payload).state == "disconnected"


def test_the_owner_can_pause(broker_url: str, federation: Callable[..., Federation]) -> None:
    fleet = federation(broker_url)
    switch = fleet.folder / "pause"
    switch.touch()
    rounds = {"rounds": 1, "deadline_s": 3.0, "min_reports": 1, "expect": 2}
    aggregator = fleet.aggregator(rounds=rounds)
    fleet.agent("dev-a", pause_file=str(switch))
    fleet.agent("dev-b")
    assert aggregator.join()
    assert aggregator.host.history.rounds[0].devices == ["dev-b"]
    status = aggregator.host.machine.presence.statuses["dev-a"]
    assert (status.state, status.reason) == ("paused", f"{switch} exists")


def test_the_connection_lives_while_training_is_long(
    mosquitto: Mosquitto, federation: Callable[..., Federation], link: Callable[..., TestLink]
) -> None:
    """A keep-alive of 5 s and a training of some 15 s: the broker must not declare the device lost."""
    fleet = federation(mosquitto.url)
    x, y = blobs(20000, seed=1)
    np.savez(fleet.folder / "big.npz", x=x, y=y)
    fleet._mqtt["keepalive_s"] = 5
    aggregator = fleet.aggregator(
        rounds={"rounds": 1, "deadline_s": 60.0, "min_reports": 1}, train={"epochs": 10_000, "batch_size": 20}
    )
    agent = fleet.agent("dev-a", f"npz:{fleet.folder}/big.npz")
    topic = Topics(fleet.name).status("dev-a")
    watcher = link(mosquitto.url, "watcher")
    watcher.up()
    watcher.subscribe([topic])
    states = [decode(Status, event.payload).state for event in watcher.inbox.quiet(Message, 12.0)]
    assert "training" in states and "lost" not in states
    assert agent.host.machine._part.online
    started = time.monotonic()
    agent.stop()  # and a stop does not wait for the end of the training
    assert time.monotonic() - started < 8
    aggregator.stop()


def test_an_absent_broker_is_waited_for(
    federation: Callable[..., Federation], caplog: pytest.LogCaptureFixture
) -> None:
    with Mosquitto() as broker:
        broker.stop()
        fleet = federation(broker.url)
        aggregator = fleet.aggregator()
        fleet.agent("dev-a")
        fleet.agent("dev-b")
        eventually(lambda: any("cannot reach MQTT broker" in m and "still trying" in m for m in caplog.messages))
        broker.start()
        assert aggregator.join(), "the rounds did not end"
        assert aggregator.host.history.final.committed == 3


def test_a_broker_of_small_packets_carries_a_larger_model(
    federation: Callable[..., Federation], tmp_path: Path
) -> None:
    with Mosquitto("allow_anonymous true\nmax_packet_size 2000\n") as broker:
        fleet = federation(broker.url)
        (tmp_path / "start.onnx").write_bytes(zoo.mlp([4, 300, 3], seed=1).SerializeToString())  # 9.6 kB
        aggregator = fleet.aggregator()
        fleet.agent("dev-a")
        fleet.agent("dev-b")
        assert aggregator.join(), "the rounds did not end"
        assert [r.state for r in aggregator.host.history.rounds] == ["committed"] * 3


def test_i10_a_broker_that_forgot_everything_is_healed(federation: Callable[..., Federation]) -> None:
    with Mosquitto() as broker:  # without persistence: kill -9 loses sessions and retained messages
        fleet = federation(broker.url)
        aggregator = fleet.aggregator(rounds={"rounds": 400, "deadline_s": 5.0, "min_reports": 2})
        fleet.agent("dev-a")
        fleet.agent("dev-b")
        for _ in range(2):
            before = len(aggregator.host.history.rounds)
            eventually(lambda before=before: len(aggregator.host.history.rounds) >= before + 5)  # type: ignore[misc]
            broker.kill9()
            broker.start()
        before = len(aggregator.host.history.rounds)
        eventually(lambda: len(aggregator.host.history.rounds) >= before + 5)


def test_a_device_that_cannot_train_says_so_and_others_go_on(
    embedded: object, federation: Callable[..., Federation], caplog: pytest.LogCaptureFixture
) -> None:
    fleet = federation(embedded.url)  # type: ignore[attr-defined]
    x, _ = blobs(30, seed=2)
    np.savez(fleet.folder / "bad.npz", x=x, y=np.full(30, 7))
    aggregator = fleet.aggregator(rounds={"rounds": 1, "deadline_s": 8.0, "min_reports": 1, "expect": 2})
    fleet.agent("dev-a")
    fleet.agent("dev-bad", f"npz:{fleet.folder}/bad.npz")
    assert aggregator.join()
    assert aggregator.host.history.rounds[0].devices == ["dev-a"]
    status = aggregator.host.machine.presence.statuses["dev-bad"]
    assert (status.state, status.code) == ("trouble", "data")
    assert status.reason == "its data can't be used: a label or a token is out of the model's range"
    assert "label 7 of sample 0 is out of range" in caplog.text


def test_i09_an_agent_whose_disk_fails_is_not_waited_for(
    broker_url: str, federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = federation(broker_url)
    aggregator = fleet.aggregator(rounds={"rounds": 3, "deadline_s": 60.0, "min_reports": 1, "expect": 2})

    def full(*update: object) -> None:
        raise StoreError("the disk is full")

    failing = fleet.agent("dev-a")
    monkeypatch.setattr(failing.host._store, "save", full)
    fleet.agent("dev-b")
    assert aggregator.join(20.0), "the rounds wait for a device that has gone"
    assert isinstance(failing.error, StoreError)
    status = aggregator.host.machine.presence.statuses["dev-a"]
    assert (status.state, status.code, status.reason) == ("trouble", "disk", "the disk is full")


def test_a_model_too_large_for_the_device_is_refused(embedded: object, federation: Callable[..., Federation]) -> None:
    fleet = federation(embedded.url)  # type: ignore[attr-defined]
    aggregator = fleet.aggregator(rounds={"rounds": 1, "deadline_s": 8.0, "min_reports": 1, "expect": 2})
    fleet.agent("dev-small", limits={"max_model_mb": 0.0001})
    fleet.agent("dev-a")
    assert aggregator.join()
    assert aggregator.host.history.rounds[0].devices == ["dev-a"]
    assert "max_model_mb" in aggregator.host.machine.presence.statuses["dev-small"].reason


def test_several_agents_and_the_round_message_are_readable(
    broker_url: str, federation: Callable[..., Federation], link: Callable[..., TestLink]
) -> None:
    fleet = federation(broker_url)
    aggregator = fleet.aggregator()
    for device in ("dev-a", "dev-b"):
        fleet.agent(device)
    assert aggregator.join()
    watcher = link(broker_url, f"watcher-{next(NUMBERS)}", session_expiry_s=0)
    watcher.up()
    topic = Topics(fleet.name).round
    watcher.subscribe([topic])
    last = decode(Round, watcher.heard(topic).payload)
    assert (last.state, last.round, last.version) == ("done", 4, 3)


def test_the_agent_counts_its_starts_and_keeps_its_boot_numbers_apart(
    embedded: object, federation: Callable[..., Federation]
) -> None:
    fleet = federation(embedded.url)  # type: ignore[attr-defined]
    path = fleet.write_agent("dev-a")
    boots = []
    for _ in range(2):
        agent = Agent(files.load(path, AgentConfig))
        boots.append(agent.boot)
        agent._worker.close()
        agent._store.close()
    assert boots[1] - boots[0] == 2**20
