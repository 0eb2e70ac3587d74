"""The agent's training thread, whatever the owner's code does in it: hang, raise, end the thread."""

from __future__ import annotations

import importlib
import queue
import threading
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from brokers import eventually
from daemons import Federation
from edgefl_agent import watchdog
from edgefl_agent.source import Source
from edgefl_agent.watchdog import MIN_PATIENCE_S, Watchdog
from edgefl_agent.worker import Worker
from machines import make_manifest, make_round

from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Trainer
from edgefl.data import Dataset
from edgefl.device.events import DataStamp, Failed, Trained, TrainJob, Unable
from edgefl.device.slots import no_slots
from edgefl.errors import DataError, EdgeFLError, UsageError
from edgefl.protocol.trouble import SEE_LOG

WIDE = Plan([2500], [Node("dense", [0], [0, 1])], [Param("w", [2500, 100]), Param("b", [100])], "cross_entropy", 1, 1)
MANIFEST = make_manifest(plan=WIDE)
MODEL_BYTES = 4 * WIDE.num_params
DATA = Dataset(np.ones((3, 2500), np.float32), np.zeros(3, np.int64))


class Owner:
    """A data source that does what `act` does."""

    stamp = 7

    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.act = act
        self.reads = 0

    def read(self) -> Dataset:
        self.reads += 1
        self.act()
        return DATA


class Bench:
    """A worker with such a source. `events` is what it has posted."""

    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.owner = Owner(act)
        self.events: queue.Queue[Trained | Failed | DataStamp] = queue.Queue()
        self.worker = Worker(
            "dev-a", self.owner, max_arena_bytes=2**26, nice=0, load_slot=no_slots, post=self.events.put
        )  # type: ignore[arg-type]

    def start(self, round: int) -> TrainJob:
        params = np.zeros(WIDE.num_params, "<f4")
        round_message = make_round(round, 0, params=params, manifest=MANIFEST)
        job = TrainJob(MANIFEST, round_message, params.tobytes(), 0)
        self.worker.start(job)
        return job

    def event(self) -> Trained | Failed | DataStamp:
        return self.events.get(timeout=20)


@pytest.fixture
def bench(request: pytest.FixtureRequest):
    made: list[Bench] = []

    def make(act: Callable[[], None] = lambda: None) -> Bench:
        made.append(Bench(act))
        return made[-1]

    yield make
    for each in made:
        each.worker.close()


def test_a_job_is_trained_and_a_cancelled_one_posts_nothing(bench):
    go = threading.Event()
    b = bench(go.wait)
    b.start(1)
    b.worker.cancel()
    go.set()
    job = b.start(2)
    event = b.event()
    assert isinstance(event, Trained) and event.job is job
    assert b.events.empty()


def test_a_cancel_that_comes_just_before_training_begins_is_repeated(bench, monkeypatch):
    """The core forgets it when `fit` begins: an owner's pause would last from the next round only."""
    trains = threading.Event()

    def fit(trainer: Trainer, *args: object, **options: object) -> None:
        b.worker.cancel()
        trains.set()
        return real_fit(trainer, *args, **(options | {"epochs": 10**6}))

    real_fit = Trainer.fit
    monkeypatch.setattr(Trainer, "fit", fit)
    b = bench()
    b.start(1)
    assert trains.wait(20)
    time.sleep(0.2)
    b.worker.look(time.monotonic())
    b.worker.look_at_data()
    assert isinstance(b.event(), DataStamp), "the thread is free again, and the cancelled job has posted nothing"


def test_i13_a_data_source_that_hangs_keeps_one_job_in_memory(bench):
    """It hangs for 60 rounds, each with a model of its own; then only the newest is trained."""
    go, inside = threading.Event(), threading.Event()
    b = bench(lambda: (inside.set(), go.wait()))
    b.start(0)
    inside.wait(20)
    tracemalloc.start()
    try:
        for round in range(1, 61):
            newest = b.start(round)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2.5 * MODEL_BYTES  # the newest, beside the copy that this test makes of it
    go.set()
    assert b.event().job is newest
    assert b.events.empty() and b.owner.reads == 1


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), GeneratorExit(), ValueError("row 7: secret")])
def test_whatever_the_owners_code_raises_is_reported_and_the_thread_lives_on(bench, error, caplog):
    def fail() -> None:
        raise error

    b = bench(fail)
    job = b.start(1)
    event = b.event()
    assert event == Failed(job, f"{type(error).__name__}: {SEE_LOG}")
    assert "training broke" in caplog.text
    b.owner.act = lambda: None
    b.start(2)
    assert isinstance(b.event(), Trained)
    assert b.worker.look(time.monotonic()) is None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DataError("row 7: 'secret' is no number", "row 7: not a number"), "row 7: not a number"),
        (DataError("row 7: 'secret' is no number"), SEE_LOG),
        (UsageError("add target=COL; columns: secret, 5"), SEE_LOG),  # a table without a header: these are data
    ],
)
def test_data_that_cant_be_used_say_so_and_nothing_else_leaves_the_device(bench, caplog, error, told):
    def fail() -> None:
        raise error

    b = bench(fail)
    job = b.start(1)
    assert b.event() == Failed(job, f"its data can't be used: {told}", "data")
    assert "secret" in caplog.text


def test_a_thread_that_has_ended_all_the_same_ends_the_agent(bench, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    b = bench()
    assert b.worker.look(0.0) is None

    def broken(event: object) -> None:
        raise MemoryError

    b.worker._post = broken
    b.start(1)
    b.worker._thread.join(20)
    with pytest.raises(EdgeFLError, match="the training thread has ended"):
        b.worker.look(0.0)


def test_a_source_that_hangs_is_reported_once_and_so_is_its_answer(bench):
    go, inside = threading.Event(), threading.Event()
    b = bench(lambda: (inside.set(), go.wait()))
    b.start(1)
    inside.wait(20)
    began = time.monotonic()
    assert b.worker.look(began + MIN_PATIENCE_S - 1) is None  # the deadline is 60 s
    assert b.worker.look(began + 300) == Unable("its data source has not answered for 300 s")
    assert b.worker.look(began + 400) is None
    b.worker.cancel()
    go.set()
    until = time.monotonic() + 20
    while (answer := b.worker.look(began + 500)) is None and time.monotonic() < until:
        time.sleep(0.01)
    assert answer == Unable("")
    assert b.worker.look(began + 900) is None
    job = b.start(2)
    assert b.event().job is job


def test_a_stop_does_not_wait_for_a_source_that_hangs(bench):
    go, inside = threading.Event(), threading.Event()
    b = bench(lambda: (inside.set(), go.wait()))
    b.start(1)
    inside.wait(20)
    began = time.monotonic()
    b.worker.close()
    assert time.monotonic() - began < 2.5  # of the three seconds that SIGTERM may take
    go.set()


def test_patience_is_the_deadline_and_at_least_a_minute():
    dog = Watchdog()
    assert dog.look(1e9, 0.0) is None
    dog.began(100.0)
    assert dog.look(159.0, 1.0) is None
    assert dog.look(399.0, 300.0) is None
    assert dog.look(400.0, 300.0) == 300.0
    assert dog.look(401.0, 3000.0) is None  # a longer deadline does not make it well
    dog.ended()
    assert dog.look(402.0, 300.0) == 0.0
    assert dog.look(403.0, 300.0) is None


def test_sys_exit_while_the_agent_starts_is_an_error_not_a_clean_end(tmp_path, monkeypatch):
    (tmp_path / "leaves.py").write_text("import sys\ndef read():\n    sys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=r"sys\.exit\(0\)"):
        Source("python:leaves:read").read()


def test_a_device_whose_data_source_hangs_says_so_and_counts_again_when_it_answers(
    embedded: object, federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "MIN_PATIENCE_S", 0.5)
    fleet = federation(embedded.url)  # type: ignore[attr-defined]
    (fleet.folder / "hanging_for_test.py").write_text(
        "import threading\nfrom daemons import blobs\ngo = threading.Event()\ngo.set()\n"
        "def read():\n    go.wait(60)\n    return blobs(30, seed=4)\n"
    )
    monkeypatch.syspath_prepend(str(fleet.folder))
    go = importlib.import_module("hanging_for_test").go
    aggregator = fleet.aggregator(rounds={"deadline_s": 2.0, "min_reports": 1, "expect": 2})
    fleet.agent("dev-a")
    fleet.agent("dev-b", "python:hanging_for_test:read")

    def newest() -> list[str]:
        records = aggregator.host.history.rounds
        return records[-1].devices if records else []

    eventually(lambda: newest() == ["dev-a", "dev-b"], 20.0)
    go.clear()
    statuses = aggregator.host.machine.presence.statuses
    eventually(lambda: statuses["dev-b"].code == "hung", 20.0)
    assert statuses["dev-b"].state == "trouble" and "has not answered for" in statuses["dev-b"].reason
    eventually(lambda: newest() == ["dev-a"], 20.0)
    go.set()
    eventually(lambda: newest() == ["dev-a", "dev-b"], 20.0)
    assert statuses["dev-b"].code == ""
