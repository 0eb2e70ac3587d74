"""The owner's policy on a real device: its settings, plans that wait, and work that is stopped within a second."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable

import numpy as np
import pytest
from brokers import Mosquitto, eventually
from daemons import Federation
from edgefl_agent import agent as agent_module
from edgefl_agent.__main__ import main
from edgefl_agent.config import AgentConfig
from edgefl_agent.plans import PlanFolder
from edgefl_agent.worker import Worker
from machines import make_manifest, make_round

from edgefl.core.plan import Node, Param, Plan
from edgefl.data import Dataset
from edgefl.device.events import DataStamp, Failed, Trained, TrainJob
from edgefl.device.owner.policy import OPEN, STRICT, Policy
from edgefl.device.slots import no_slots
from edgefl.errors import UsageError
from edgefl.hosting.link_host import LONGEST_SLEEP_S
from edgefl.settings import TrainSettings, files

ID = "0123456789abcdef" * 4


# [policy]


def config_of(tmp_path, text: str) -> AgentConfig:
    path = tmp_path / "agent.toml"
    path.write_text(
        f'federation = "f"\ndevice_id = "a"\nstate_dir = "{tmp_path}"\n[mqtt]\nurl = "mqtt://localhost"\n'
        f'[data]\nsource = "npz:x.npz"\n{text}'
    )
    return files.load(path, AgentConfig, [])


def test_defaults_are_strict_with_keys_and_open_without(tmp_path):
    config = config_of(tmp_path, "")
    assert config.policy.policy(keys=False) == OPEN and config.policy.policy(keys=True) == STRICT
    assert (STRICT.plans, OPEN.plans) == ("ask", "any")


def test_each_setting_is_the_owners_with_keys_and_without(tmp_path):
    text = (
        f'[policy]\nplans = "pinned"\napproved = ["{ID}"]\nmin_examples = 3\nmin_steps = 4\nallow_gradient = true\n'
        "allow_full_batch = true\nmax_lr = 5\nmax_epochs = 6\nmax_flops = 7e9\nmax_seconds = 8\nclip = 9\n"
        "statistics = true\n"
    )
    policy = config_of(tmp_path, text).policy
    wanted = Policy("pinned", frozenset({ID}), 3, 4, True, True, 5, 6, 7e9, 8, 9, True)
    assert policy.policy(keys=True) == policy.policy(keys=False) == wanted
    assert OPEN.statistics and not STRICT.statistics, "with keys, no statistics leave unless the owner says so"


@pytest.mark.parametrize("line", ['plans = "some"', 'approved = ["abc"]', "clip = 0", "min_steps = 0", "max_lr = -1"])
def test_what_makes_no_sense_is_refused_at_the_start(tmp_path, line):
    with pytest.raises(UsageError):
        config_of(tmp_path, f"[policy]\n{line}\n")


# A running agent


def trouble_of(running) -> str:
    trouble = running.host.machine.status.trouble
    return "" if trouble is None else trouble.code


def test_agents_that_ask_wait_and_train_within_a_second_of_the_approval(
    shared_mosquitto: Mosquitto, federation: Callable[..., Federation], capsys
) -> None:
    fleet = federation(shared_mosquitto.url)
    aggregator = fleet.aggregator(rounds={"rounds": 2, "deadline_s": 10.0, "min_reports": 2})
    agents = {name: fleet.agent(name, policy={"plans": "ask"}) for name in ("dev-a", "dev-b")}
    for agent in agents.values():
        eventually(lambda agent=agent: trouble_of(agent) == "plan", 10.0)
    eventually(lambda: all(PlanFolder(fleet.folder / name).all() for name in agents), 2.0)
    (waiting,) = PlanFolder(fleet.folder / "dev-a").all()
    for name, agent in agents.items():
        assert main(["approve", waiting.id[:32], "--config", str(fleet.folder / name / "agent.toml")]) == 0
        eventually(lambda agent=agent: agent.host.machine.terms is not None, 10.0)
    assert LONGEST_SLEEP_S <= 1.0, "so often an agent looks at the least; a busy machine may take longer to let it"
    eventually(lambda: aggregator.host.machine.version >= 2, 20.0)


def test_an_agent_that_takes_the_first_plan_remembers_it_and_takes_no_other(
    shared_mosquitto: Mosquitto, federation: Callable[..., Federation]
) -> None:
    fleet = federation(shared_mosquitto.url)
    fleet.aggregator()
    agent = fleet.agent("dev-a", policy={"plans": "first"})
    eventually(lambda: agent.host.machine.terms is not None, 10.0)
    eventually(PlanFolder(fleet.folder / "dev-a").approved, 2.0)
    (plan,) = PlanFolder(fleet.folder / "dev-a").all()
    assert plan.approved and "dense" in plan.words
    (fleet.folder / "dev-a" / "plans" / f"{plan.id}.approved").unlink()
    eventually(lambda: trouble_of(agent) == "plan", 10.0)
    agent.stop()
    again = fleet.agent("dev-a", policy={"plans": "first"})
    eventually(lambda: trouble_of(again) == "plan", 10.0)


@pytest.mark.parametrize(
    ("policy", "code", "says"),
    [
        ({"max_epochs": 50}, "policy", "10000 epochs, at most 50"),
        ({"max_lr": 10}, "policy", "lr is 1000, at most 10"),
        ({"max_flops": 1e8}, "policy", "FLOPs with 60 examples, at most 1e+08"),
        ({"plans": "pinned", "approved": [ID]}, "policy", "is not one of its plans"),
        ({"plans": "ask"}, "plan", "waits for its owner: edgefl-agent approve"),
    ],
)
def test_i20_a_hostile_aggregator_is_refused_within_a_second_and_the_status_says_why(
    shared_mosquitto: Mosquitto, federation: Callable[..., Federation], policy, code, says
) -> None:
    fleet = federation(shared_mosquitto.url)
    aggregator = fleet.aggregator(train={"epochs": 10_000, "lr": 1000.0})
    agent = fleet.agent("dev-a", policy=policy)
    eventually(lambda: agent.host.machine._heard_manifest, 10.0)
    eventually(lambda: trouble_of(agent) == code, 1.0)
    assert says in agent.host.machine.status.trouble.text
    statuses = aggregator.host.machine.presence.statuses
    eventually(lambda: "dev-a" in statuses and statuses["dev-a"].code == code, 2.0)  # it stays connected


def test_the_off_switch_stops_training_within_about_a_second(
    shared_mosquitto: Mosquitto, federation: Callable[..., Federation], tmp_path
) -> None:
    fleet = federation(shared_mosquitto.url)
    fleet.aggregator(train={"epochs": 10_000, "lr": 0.001}, rounds={"rounds": 1, "deadline_s": 60.0, "min_reports": 1})
    x = np.random.default_rng(0).normal(size=(20_000, 4)).astype(np.float32)
    np.savez(tmp_path / "big.npz", x=x, y=np.zeros(len(x), np.int64))
    switch = tmp_path / "pause"
    agent = fleet.agent("dev-a", f"npz:{tmp_path / 'big.npz'}", pause_file=str(switch))
    eventually(lambda: agent.host._worker._began is not None, 10.0)
    assert agent.host.look_s == agent_module.BUSY_LOOK_S
    switch.touch()
    eventually(lambda: agent.host._worker._began is None, 1.0)
    assert agent.host.machine.status.paused and not agent.host._worker.busy


def test_i20_training_of_a_minute_is_bounded_and_the_status_says_why(
    shared_mosquitto: Mosquitto, federation: Callable[..., Federation], tmp_path
) -> None:
    fleet = federation(shared_mosquitto.url)
    aggregator = fleet.aggregator(train={"epochs": 10_000, "lr": 0.001}, rounds={"rounds": 1, "min_reports": 1})
    x = np.random.default_rng(0).normal(size=(20_000, 4)).astype(np.float32)
    np.savez(tmp_path / "big.npz", x=x, y=np.zeros(len(x), np.int64))
    agent = fleet.agent("dev-a", f"npz:{tmp_path / 'big.npz'}", policy={"max_seconds": 0.5})
    eventually(lambda: agent.host._worker._began is not None, 10.0)
    eventually(lambda: trouble_of(agent) == "policy", 1.5)
    assert "trains for more than 0.5 s" in agent.host.machine.status.trouble.text
    eventually(lambda: agent.host._worker._began is None, 1.0)
    statuses = aggregator.host.machine.presence.statuses
    eventually(lambda: "dev-a" in statuses and statuses["dev-a"].code == "policy", 2.0)


# The worker

CONV = [1, 1, 0, 0, 0, 0, 1, 1, 1]
SLOW = Plan(  # one step takes seconds, within the default limits of an agent
    [512, 512, 8],
    [Node("mul", [0], [0]), Node("conv", [1], [1], CONV), Node("mean", [2], [], [0, 1, 2])],
    [Param("s", [1]), Param("w", [64, 64, 8, 8])],
    "mse", 3, 3,
)  # fmt: skip


class Source:
    stamp = 1

    def __init__(self, n: int = 4) -> None:
        self.data = Dataset(np.ones((n, 512, 512, 8), np.float32), np.zeros(n, np.float32))

    def read(self) -> Dataset:
        return self.data

    def drop(self) -> None:
        pass


class Bench:
    def __init__(self, policy: Policy = OPEN, holdout: float = 0.0, **train) -> None:
        manifest = make_manifest(plan=SLOW, holdout=holdout, train=TrainSettings(batch_size=1, lr=1e-9, **train))
        self.job = TrainJob(
            manifest, make_round(manifest=manifest), np.full(SLOW.num_params, 1e-3, np.float32).tobytes(), 0
        )
        self.events: queue.Queue[Trained | Failed | DataStamp] = queue.Queue()
        self.worker = Worker(
            "dev-a", Source(6 if holdout else 2), max_arena_bytes=2**28, nice=0, load_slot=no_slots,
            post=self.events.put, policy=policy,
        )  # type: ignore[arg-type]  # fmt: skip

    def start(self) -> None:
        self.worker.start(self.job)
        eventually(lambda: self.worker._began is not None, 10.0)

    def is_idle(self) -> bool:
        """The agent looks every BUSY_LOOK_S: a cancel between evaluating and training is repeated then."""
        self.worker.look(time.monotonic())
        return self.worker._began is None

    def look_until(self, seconds: float) -> None:
        """As the agent does while it is busy."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.events.empty():
            self.worker.look(time.monotonic())
            time.sleep(agent_module.BUSY_LOOK_S)


@pytest.mark.parametrize("holdout", [0.0, 0.5])  # it evaluates first
def test_a_cancel_ends_a_step_that_takes_seconds(holdout):
    bench = Bench(holdout=holdout)
    bench.start()
    time.sleep(0.5)
    bench.worker.cancel()
    eventually(bench.is_idle, 1.0)
    bench.worker.close()


def test_training_beyond_max_seconds_is_stopped_within_a_second_and_told():
    bench = Bench(Policy(max_seconds=0.5), epochs=1000)
    bench.start()
    bench.look_until(1.5)
    failed = bench.events.get(timeout=0.1)
    assert isinstance(failed, Failed) and failed.job is bench.job
    assert failed.code == "policy" and failed.final and "more than 0.5 s" in failed.reason
    eventually(lambda: bench.worker._began is None, 1.0)
    assert bench.events.empty(), "the round is given up once"
    bench.worker.close()


def test_a_round_on_too_few_examples_never_begins():
    bench = Bench(Policy(min_examples=3))
    bench.worker.start(bench.job)
    failed = bench.events.get(timeout=5)
    assert isinstance(failed, Failed) and failed.code == "policy" and "2 examples, at least 3" in failed.reason
    assert failed.unfit == Source.stamp, "no model is fetched for these data again"
    bench.worker.close()
