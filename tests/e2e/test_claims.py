"""Fleets that are flashed from one image, with a real mosquitto, the generated files, and the guard."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from brokers import Mosquitto, eventually, free_port, require_mosquitto
from daemons import Running
from edgefl_agent import claim as device_claim
from edgefl_agent.agent import Agent
from edgefl_agent.config import AgentConfig
from edgefl_broker.aggregator import Aggregator
from edgefl_broker.progress import Silent
from enrolled import unpack
from guarded import RawClient, guard_plugin

from edgefl.cli.main import main
from edgefl.errors import EdgeFLError
from edgefl.hosting.config import AggregatorConfig
from edgefl.keys import batches, enrolment
from edgefl.keys.federation import Federation
from edgefl.machine import Stop
from edgefl.onnx import zoo
from edgefl.protocol.enrol import TICKET, Ask, EnrolTopics, Ticket, read
from edgefl.protocol.topics import Topics
from edgefl.settings import files
from edgefl.transports.mqtt import TlsConfig
from edgefl.trust.ed25519 import SigningKey, new_seed


class Site(Mosquitto):
    """The operator's folder of keys, the broker with its files, and the aggregator's machine."""

    def __init__(self, folder: Path, *, guard: bool = True) -> None:
        self._binary = require_mosquitto()
        self.folder, self.keys = folder, folder / "keys"
        self.port, self.enrol_port = free_port(), free_port()
        home, plugin = folder / "broker", str(guard_plugin()) if guard else ""
        settings = Federation(
            federation="f", broker="localhost", port=self.port, enrol_port=self.enrol_port, home=str(home),
            guard=plugin or "absent",
        )  # fmt: skip
        enrolment.init(self.keys, settings)
        self._guard = bool(plugin)
        self._config = folder / "running.conf"
        self._process = None
        self._running: list[Running] = []
        shutil.copytree(self.keys / "aggregator", folder / "agg")
        (folder / "agg" / "start.onnx").write_bytes(zoo.mlp([4, 8, 3], seed=1).SerializeToString())

    def _ports(self) -> list[int]:
        return [self.port, self.enrol_port]

    def copy(self) -> None:
        """What the operator carries to the two machines."""
        shutil.copytree(self.keys / "broker", self.folder / "broker", dirs_exist_ok=True)
        ours = shutil.ignore_patterns("aggregator.toml")
        shutil.copytree(self.keys / "aggregator", self.folder / "agg", dirs_exist_ok=True, ignore=ours)
        text = "".join((self.folder / "broker" / name).read_text() for name in ("mosquitto.conf", "enrol.conf"))
        if not self._guard:
            text = re.sub(r"^plugin.*\n", "", text, flags=re.MULTILINE)
        text += f"persistence_location {self.folder}/\n" + ("user root\n" if os.geteuid() == 0 else "")
        self._config.write_text(text)

    def aggregator(self, *sets: str) -> Running:
        table = ["state_dir=" + str(self.folder / "state"), "rounds.min_reports=1", "rounds.interval_s=0.2", *sets]
        config = files.load(self.folder / "agg" / "aggregator.toml", AggregatorConfig, table)
        located = getattr(config, "located", lambda folder: config)(self.folder / "agg")
        model = str(self.folder / "agg" / "start.onnx")
        self._running.append(Running(Aggregator(msgspec.structs.replace(located, model=model), Silent())))
        return self._running[-1]

    def agent(self, folder: Path) -> Running:
        config = files.load(folder / "agent.toml", AgentConfig, [f"state_dir={folder / 'state'}"])
        self._running.append(Running(Agent(getattr(config, "located", lambda at: config)(folder))))
        return self._running[-1]

    def close(self) -> None:
        for running in self._running:
            running.host.post(Stop())
        for running in self._running:
            running.join(10.0)
        self.stop()

    @property
    def asked(self) -> Path:
        return self.folder / "state" / "claims"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


class Device(threading.Thread):
    """A device that was flashed from the batch's image, and asks."""

    def __init__(self, site: Site, archive: Path, name: str, wish: str | None = None) -> None:
        super().__init__(daemon=True)
        self.folder = site.folder / name
        self.folder.mkdir()
        unpack(archive, self.folder)
        self.wish, self.error = wish, None
        self.start()

    def run(self) -> None:
        try:
            device_claim.claim(self.folder, self.wish, 60.0)
        except EdgeFLError as error:
            self.error = error


def begin(site: Site, count: int = 2, **terms) -> Path:
    source = "npz:data.npz"
    archive = batches.begin(site.keys, count, 30, enrolment.Terms(source, {"plans": "any"}, **terms), "pi-")
    site.copy()
    site.start()
    return archive


def ids(site: Site) -> list[str]:
    return [one.id for one in batches.claims(site.keys, site.asked) if one.state == "waiting"]


def test_two_devices_from_one_image_are_enrolled_and_train(site: Site, capsys, monkeypatch) -> None:
    monkeypatch.setattr(device_claim, "ASK_EVERY_S", 0.3)
    archive = begin(site)
    aggregator = site.aggregator()
    first, second = Device(site, archive, "one", "kitchen"), Device(site, archive, "two")
    eventually(lambda: site.asked.exists() and len(ids(site)) == 2)
    assert main(["keys", "claims", str(site.keys), str(site.asked)]) == 0
    listed = capsys.readouterr().out
    assert "kitchen" in listed and listed.count("waiting") == 2
    shown = re.search(r"([0-9a-f]{4}(?:-[0-9a-f]{4}){3})  kitchen", listed)[1]
    assert main(["keys", "approve", str(site.keys), str(site.asked), shown]) == 0
    assert main(["keys", "approve", str(site.keys), str(site.asked), "--all"]) == 0
    site.copy()
    first.join(30.0)
    second.join(30.0)
    assert first.error is None and second.error is None
    for device in (first, second):
        assert (device.folder / "device.key").stat().st_mode & 0o077 == 0
        x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
        np.savez(device.folder / "data.npz", x=x, y=np.argmax(x[:, :3], 1))
        monkeypatch.chdir(device.folder)
        site.agent(device.folder)
        eventually(lambda: aggregator.host.machine.presence.count >= 1)
    version = aggregator.host.machine.version
    eventually(lambda: aggregator.host.machine.version > version)
    eventually(lambda: aggregator.host.machine.presence.count == 2)
    names = set(aggregator.host.machine.presence.statuses)
    assert "kitchen" in names and len(names) == 2
    device_claim.claim(first.folder, None, 0.0)  # a second start finds that it is enrolled


def test_enrolled_canaries_sign_their_verdicts_and_a_model_is_committed_by_them(site: Site, monkeypatch) -> None:
    enrolment.add(site.keys, ["pi-1", "pi-2"], enrolment.Terms("npz:data.npz", {"plans": "any"}, canary=True))
    begin(site)  # for enrol.conf
    gate = ("gate.judge=canaries", "gate.quorum=2", "evaluate.holdout=0.3", "gate.max_accuracy_drop=1.0")
    aggregator = site.aggregator(*gate, "rounds.min_reports=2", "rounds.expect=2")
    for name in ("pi-1", "pi-2"):
        (site.folder / name).mkdir()
        folder = unpack(site.keys / "devices" / f"{name}.tar", site.folder / name)
        x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
        np.savez(folder / "data.npz", x=x, y=np.argmax(x[:, :3], 1))
        monkeypatch.chdir(folder)
        site.agent(folder)
        eventually(lambda: aggregator.host.machine.presence.count >= 1)
    eventually(lambda: aggregator.host.machine.version >= 3, 60.0)
    assert {r.state for r in aggregator.host.history.rounds} == {"committed"}
    assert set(aggregator.host.machine.jury._known) == {"pi-1", "pi-2"} and not aggregator.host.machine.dropped


def test_private_keys_never_leave_the_device(site: Site, monkeypatch) -> None:
    archive = begin(site)
    site.aggregator()
    device = Device(site, archive, "one")
    eventually(lambda: site.asked.exists() and ids(site))
    secret = (device.folder / "device.key").read_text().splitlines()[1]
    seed = (device.folder / "signing.key").read_text().strip()
    for path in [*site.asked.iterdir(), *(site.folder / "state").iterdir()]:
        data = path.read_bytes() if path.is_file() else b""
        assert secret.encode() not in data and seed.encode() not in data


def test_a_token_enrols_no_more_devices_than_its_count(site: Site, monkeypatch, capsys) -> None:
    monkeypatch.setattr("edgefl_broker.enrolment.MARGIN", 1)
    archive = begin(site, count=1)
    site.aggregator()
    devices = [Device(site, archive, name) for name in ("one", "two")]
    eventually(lambda: site.asked.exists() and len(ids(site)) == 2)
    third = Device(site, archive, "three")
    third.join(30.0)
    assert "too many requests" in str(third.error)
    assert main(["keys", "approve", str(site.keys), str(site.asked), "--all"]) == 2
    assert "made for 1 device, and 2 would be enrolled" in capsys.readouterr().err
    one, other = ids(site)
    assert main(["keys", "approve", str(site.keys), str(site.asked), one]) == 0
    assert main(["keys", "approve", str(site.keys), str(site.asked), other]) == 2
    assert main(["keys", "approve", str(site.keys), str(site.asked), one]) == 0, "an approval that was lost"
    assert len(devices) == 2


def test_devices_that_wait_for_the_operator_take_nobodys_place(site: Site, monkeypatch) -> None:
    """The listener has one place here, and three devices ask; in earnest it has twenty, for hundreds."""
    monkeypatch.setattr("edgefl.keys.broker_files.ENROL_CONNECTIONS", 1)
    monkeypatch.setattr(device_claim, "ASK_EVERY_S", 0.3)
    archive = begin(site, count=3)
    site.aggregator()
    devices = [Device(site, archive, name) for name in ("one", "two", "three")]
    eventually(lambda: site.asked.exists() and len(ids(site)) == 3, 30.0)
    batches.approve(site.keys, site.asked, [], every=True)
    site.copy()
    for device in devices:
        device.join(30.0)
    assert [device.error for device in devices] == [None] * 3


def test_a_batch_that_has_ended_enrols_nobody(site: Site, capsys) -> None:
    archive = begin(site)
    site.aggregator()
    waiting = Device(site, archive, "one")
    eventually(lambda: site.asked.exists() and ids(site))
    (id,) = ids(site)
    batches.end(site.keys, archive.stem)
    site.copy()
    assert main(["keys", "approve", str(site.keys), str(site.asked), id]) == 2
    assert "has ended" in capsys.readouterr().err
    waiting.join(30.0)
    assert "enrols no more devices" in str(waiting.error)


def test_another_name_and_what_is_no_request(site: Site, capsys) -> None:
    archive = begin(site)
    site.aggregator()
    Device(site, archive, "one", "same")
    Device(site, archive, "two", "same")
    eventually(lambda: site.asked.exists() and len(ids(site)) == 2)
    one, other = ids(site)
    approve = ["keys", "approve", str(site.keys), str(site.asked)]
    assert main([*approve, "same"]) == 2 and "give the id of one" in capsys.readouterr().err
    assert main([*approve, "--all"]) == 2 and "which is taken" in capsys.readouterr().err
    assert main([*approve, one]) == 0
    assert main([*approve, other]) == 2 and "--name" in capsys.readouterr().err
    assert main([*approve, other, "--name", "viewer-x"]) == 2
    assert main([*approve, other, "--name", "pi-9"]) == 0
    forged = (site.asked / f"{one}.json").read_bytes().replace(b'"same"', b'"evil"')
    (site.asked / f"{other}.json").write_bytes(forged)
    (site.asked / "batch-0000000000000000.json").write_bytes(b"batch-00000000\n{}")
    (bad,) = [c for c in batches.claims(site.keys, site.asked) if c.why]
    assert bad.why == "its file has another name"


def client(site: Site, ticket: Ticket, client_id: str, password: str | None = None, **how: object) -> RawClient:
    """A client of the enrolment's listener."""
    user = (ticket.batch, ticket.token if password is None else password)
    return RawClient(
        site.enrol_port, TlsConfig(str(site.keys / "root" / "ca.crt")), client_id=client_id, user=user, **how
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("guard", [True, False], ids=["guard", "acl alone"])
def test_what_a_token_is_good_for(tmp_path: Path, guard: bool) -> None:
    """It asks, under its own id, and nothing else. The one thing that takes the guard is that it takes no client id."""
    site = Site(tmp_path, guard=guard)
    try:
        archive = begin(site)
        ticket = read(Ticket, (unpack(archive, tmp_path / "image") / TICKET).read_bytes())
        me, other = "batch-0123456789abcdef", "batch-fedcba9876543210"
        topics, base = EnrolTopics(Topics("f")), "edgefl/2/f"
        with pytest.raises(ConnectionRefusedError):
            client(site, ticket, me, password="wrong")
        if guard:
            with pytest.raises(ConnectionRefusedError):
                client(site, ticket, "pi-01")
            for lasting in ({"v5": True}, {"v5": True, "session_s": 3600}, {"session_s": 3600}):
                with pytest.raises(ConnectionRefusedError):
                    client(site, ticket, me, **lasting)
            with pytest.raises(ConnectionRefusedError):
                client(site, ticket, me + "0")
        mine = [str(site.keys / "aggregator" / name) for name in ("ca.crt", "aggregator.crt", "aggregator.key")]
        with RawClient(site.port, TlsConfig(*mine)) as aggregator, client(site, ticket, me) as device:
            aggregator.subscribe(f"{base}/#")
            assert device.subscribe(topics.answer(ticket.batch, me)) == 1
            for topic in (topics.ask(ticket.batch, other), f"{base}/d/pi-01/status", f"{base}/manifest",
                          f"{base}/d/{ticket.batch}/status", f"{base}/d/{me}/status"):  # fmt: skip
                device.publish(topic)
            if guard:
                device.publish(topics.ask(ticket.batch, me), b"retained", retain=True)
                device.publish(topics.ask(ticket.batch, me), b"x" * 9000)
                for topic in (f"{base}/manifest", f"{base}/round", "#"):
                    assert device.subscribe(topic) >= 128, topic
            device.publish(topics.ask(ticket.batch, me), b"good")
            assert aggregator.wait_for(topics.ask(ticket.batch, me), b"good")
            assert len(aggregator.messages) == 1
            device.subscribe(topics.answer(ticket.batch, other))  # mosquitto grants that, and delivers nothing
            assert aggregator.publish(f"{base}/round", b"r") in (0, 16)
            assert aggregator.publish(topics.answer(ticket.batch, other), b"theirs") in (0, 16)
            assert aggregator.publish(topics.answer(ticket.batch, me), b"mine") in (0, 16)
            assert device.wait_for(topics.answer(ticket.batch, me), b"mine")
            assert len(device.messages) == 1
            batches.end(site.keys, archive.stem)
            site.copy()
            os.kill(site.pid, signal.SIGHUP)
            assert device.left.wait(5.0), "mosquitto asks for passwords again when it reads them again"
    finally:
        site.close()


def test_a_request_of_other_keys_than_its_id_is_dropped(tmp_path: Path) -> None:
    key = SigningKey(new_seed())
    ask = Ask.of("csr", key, "pi-1", "f")
    ask.check("f")
    for bad in (msgspec.structs.replace(ask, csr="other"), msgspec.structs.replace(ask, key=ask.signature[:44])):
        with pytest.raises(EdgeFLError):
            bad.check("f")
    with pytest.raises(EdgeFLError):
        ask.check("g")
    assert msgspec.structs.replace(ask, csr="other").id != ask.id
