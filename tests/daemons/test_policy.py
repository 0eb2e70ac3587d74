"""The owner's policy on a real device: approvals on disk and by command, and work that is stopped within a second."""

from __future__ import annotations

import json
import os
import queue
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from brokers import Mosquitto, eventually
from daemons import Federation
from edgefl_agent import agent as agent_module
from edgefl_agent.__main__ import main
from edgefl_agent.config import AgentConfig
from edgefl_agent.plans import AGAIN_S, MOST, Offers, PlanFolder
from edgefl_agent.worker import Worker
from machines import make_manifest, make_round

from edgefl.core.plan import Node, Param, Plan
from edgefl.data import Dataset
from edgefl.device.events import DataStamp, Failed, Trained, TrainJob
from edgefl.device.policy import OPEN, STRICT, Policy
from edgefl.errors import StoreError, UsageError
from edgefl.settings import TrainSettings, files

ID = "0123456789abcdef" * 4


# On disk


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_plans_and_approvals_are_for_the_owner_alone_and_stay(tmp_path):
    folder = PlanFolder(tmp_path)
    assert folder.all() == [] and folder.approved() == frozenset()
    old = os.umask(0)
    try:
        folder.save(ID, "what it is")
        folder.approve(ID)
    finally:
        os.umask(old)
    assert mode(folder.path) == 0o700
    assert {mode(path) for path in folder.path.iterdir()} == {0o600}
    assert PlanFolder(tmp_path).approved() == {ID}
    assert PlanFolder(tmp_path).all() == [(ID, True, "what it is")]


def test_a_folder_of_plans_that_others_can_write_approves_nothing(tmp_path):
    folder = PlanFolder(tmp_path)
    folder.approve(ID)
    folder.path.chmod(0o770)
    with pytest.raises(StoreError, match="who could approve plans"):
        folder.approved()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
@pytest.mark.parametrize("is_link", [False, True])
def test_a_folder_of_plans_that_another_user_has_made_approves_nothing(tmp_path, is_link):
    own = tmp_path / "elsewhere" if is_link else tmp_path / "state" / "plans"
    (tmp_path / "state").mkdir()
    own.mkdir(mode=0o700)
    (own / f"{ID}.approved").touch()
    if is_link:
        (tmp_path / "state" / "plans").symlink_to(own)
    os.chown(tmp_path / "state" / "plans", 2, 2, follow_symlinks=False)
    with pytest.raises(StoreError, match="is another user's"):
        PlanFolder(tmp_path / "state").approved()


def test_waiting_plans_are_bounded_and_approvals_are_never_dropped(tmp_path):
    folder = PlanFolder(tmp_path)
    folder.save(ID, "the first")
    folder.approve(ID)
    for i in range(3 * MOST):
        folder.save(f"{i:064x}", f"plan {i}")
        os.utime(folder.path / f"{i:064x}.txt", (i + 1e9, i + 1e9))
    assert len(list(folder.path.iterdir())) == MOST + 1
    assert folder.approved() == {ID}


def test_an_aggregator_that_offers_plans_without_end_does_not_wear_out_the_disk(tmp_path, monkeypatch):
    folder = PlanFolder(tmp_path)
    saved = []
    monkeypatch.setattr(folder, "save", lambda id, words: saved.append(words))
    offers = Offers(folder)
    for second in range(600):
        for i in range(10):
            offers.offer(ID, f"{second}.{i}")
        offers.look(1000.0 + second)
    assert saved == [f"{second}.9" for second in range(0, 600, int(AGAIN_S))]


def test_a_plan_is_named_by_so_many_digits_that_nobody_finds_two_that_begin_so(tmp_path):
    folder = PlanFolder(tmp_path)
    folder.save(ID, "a")
    folder.save(ID[:32] + "f" * 32, "b")
    folder.save("f" * 64, "c")
    assert folder.find("f" * 32) == "f" * 64
    assert folder.find(ID) == ID
    assert folder.find("e" * 64) == "e" * 64, "a whole id may be approved before it is offered"
    for prefix, why in [
        (ID[:32], "2 plans' ids begin"),
        (ID[:12], "at least 32"),  # the plan whose words the owner has read may have made room for another one
        ("f" * 31, "at least 32"),
        ("e" * 32, "no plan"),
        ("x" * 32, "hex digits"),
    ]:
        with pytest.raises(UsageError, match=why):
            folder.find(prefix)


def test_what_is_no_plan_in_the_folder_is_ignored(tmp_path):
    folder = PlanFolder(tmp_path)
    folder.approve(ID)
    for name in ("README.approved", "ABC.approved", "x.txt", f".{ID}.approved.1.partial"):
        (folder.path / name).write_text("")
    assert folder.approved() == {ID} and len(folder.all()) == 1


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
    )
    policy = config_of(tmp_path, text).policy
    wanted = Policy("pinned", frozenset({ID}), 3, 4, True, True, 5, 6, 7e9, 8, 9)
    assert policy.policy(keys=True) == policy.policy(keys=False) == wanted


@pytest.mark.parametrize("line", ['plans = "some"', 'approved = ["abc"]', "clip = 0", "min_steps = 0", "max_lr = -1"])
def test_what_makes_no_sense_is_refused_at_the_start(tmp_path, line):
    with pytest.raises(UsageError):
        config_of(tmp_path, f"[policy]\n{line}\n")


# Commands


@pytest.fixture
def offline(tmp_path):
    """A device whose agent does not run, to which one plan was offered."""
    config_of(tmp_path, '[policy]\nplans = "ask"\n')
    PlanFolder(tmp_path).save(ID, "federation  f\nlayers      dense 4x3")
    return ["--config", str(tmp_path / "agent.toml")]


def test_the_owner_sees_a_plan_in_words_and_approves_it(tmp_path, offline, capsys):
    assert main(["plans", *offline]) == 0
    assert capsys.readouterr().out == f"{ID[:32]}  waits for approval\n    federation  f\n    layers      dense 4x3\n"
    assert main(["approve", ID[:32], *offline]) == 0
    assert f"plan {ID[:32]} may train" in capsys.readouterr().out
    assert PlanFolder(tmp_path).approved() == {ID}
    assert main(["plans", "--json", *offline]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found == {"plan": ID, "state": "approved", "words": "federation  f\nlayers      dense 4x3"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_what_root_approves_follows_no_link_of_the_agents_user(tmp_path, offline, capsys):
    with tempfile.TemporaryDirectory() as state_dir:  # tmp_path is closed to other users
        secret, plans = tmp_path / "shadow", Path(state_dir) / "plans"
        secret.write_text("root's own")
        plans.mkdir(mode=0o700)
        lead = [plans / f".{ID}.approved.{os.getpid()}.partial", plans / f"{ID}.approved"]
        for path in (Path(state_dir), plans):
            os.chown(path, 1, 1)
        for path in lead:
            path.symlink_to(secret)
            os.chown(path, 1, 1, follow_symlinks=False)
        where = [*offline, "--set", f"state_dir={state_dir}"]
        assert main(["approve", ID, *where]) == 1 and "Permission denied" in capsys.readouterr().err
        assert (secret.read_text(), secret.stat().st_uid, os.geteuid()) == ("root's own", 0, 0)
        lead[0].unlink(missing_ok=True)
        assert main(["approve", ID, *where]) == 0
        assert (secret.read_text(), secret.stat().st_uid) == ("root's own", 0)
        assert lead[1].lstat().st_uid == 1 and stat.S_ISREG(lead[1].lstat().st_mode)


def test_wrong_use_of_the_commands_ends_with_2_and_says_what_to_do(tmp_path, offline, capsys):
    assert main(["approve", "abcdef12" * 4, *offline]) == 2
    assert "edgefl-agent plans lists them" in capsys.readouterr().err
    assert main(["approve", ID[:32], "--config", str(tmp_path / "none.toml")]) == 2
    assert main(["plans", *offline, "--set", f"state_dir={tmp_path}/none"]) == 2
    assert main(["approve", ID[:32], *offline, "--set", "policy.plans=pinned"]) == 2
    assert "add the whole id to `approved`" in capsys.readouterr().err
    assert PlanFolder(tmp_path).approved() == frozenset()


def test_a_device_to_which_nothing_was_offered_says_so(tmp_path, capsys):
    config_of(tmp_path, "")
    assert main(["plans", "--config", str(tmp_path / "agent.toml")]) == 0
    assert 'no plan has asked to train here yet (plans = "any")' in capsys.readouterr().out


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
        eventually(lambda agent=agent: agent.host.machine.terms is not None, 1.5)
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
    eventually(lambda: trouble_of(agent) == "plan", 1.5)
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
            "dev-a", Source(6 if holdout else 2), max_arena_bytes=2**28, nice=0, load_residual=lambda: None,
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
