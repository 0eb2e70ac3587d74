"""What newcomers get wrong: the log of the device names each mistake, and within a minute the aggregator's log and
`edgefl status` do, with what to do.

All devices of a fleet make a mistake of their own, at once. Agents are processes, since each has a log of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from brokers import Mosquitto, eventually, password_file
from conftest import ROOT
from daemons import Federation
from enrolled import unpack
from keyed_fleet import KeyedFleet

from edgefl.keys import enrolment
from edgefl.keys.enrolment import USUAL

MINUTE_S = 60.0
ROWS = ("5,1,2,3,0", "1,5,2,3,1", "1,2,5,3,2") * 8
CHECK = "edgefl-agent --check"
CORRECT = "correct the device's [data] source, or its file"


class Mistake(NamedTuple):
    """A device that is right but for its table, its SPEC (behind `csv:FILE?`, or whole) or its configuration.

    `device`: what its own log says. `why` and `do`: what the operator reads in the row of `edgefl status`; the
    aggregator's log has both too, in a line that names the device. `exits`: the agent ends so.
    """

    device: str
    why: str
    do: str
    state: str = "trouble"
    code: str = "data"
    spec: str = "target=y&kind=classes"
    head: str = "a,b,c,d,y"
    rows: tuple[str, ...] = ROWS
    tables: dict[str, Any] = MappingProxyType({})  # type: ignore[assignment]
    exits: int | None = None


MISTAKES = {
    "text-labels": Mistake(
        "'worn' is not a class label (0, 1, 2, ...)", "line 2, column 'y': not a class label", "add labels=A,B",
        rows=("5,1,2,3,worn", "1,5,2,3,ok"),
    ),
    "blanks": Mistake(
        "for blanks, add missing=mean or missing=skip", "line 2, column number 2: not a finite number", "add missing=",
        rows=("5,,2,3,0", ",5,2,3,1", "1,2,5,,0"),
    ),
    "column": Mistake("has no column 'z': known: a, b, c, d, y", "has no column 'z'", CORRECT, spec="target=z"),
    "no-target": Mistake(
        "add target=COL, the column to learn", "its [data] source can't be used as it is written", CORRECT,
        spec="kind=classes", exits=2,
    ),
    "features": Mistake(
        "choose other features or another model", "an example has shape (3,), 3 values, and the model's input (4,), 4",
        CORRECT, head="a,b,c,y", rows=("5,1,2,0", "1,5,2,1"),
    ),
    "label": Mistake(
        "label 7 of sample 1 is out of range 0..2", "a label or a token is out of the model's range", CORRECT,
        rows=("5,1,2,3,0", "1,5,2,3,7"),
    ),
    "numbers": Mistake(
        "kind=classes in a data SPEC", "y is float32, loss 'cross_entropy' takes integer labels", CORRECT,
        spec="target=y&kind=values", rows=("5,1,2,3,0.5", "1,5,2,3,0.7"),
    ),
    "no-file": Mistake("check the path", "no data at", CORRECT, spec="csv:/no/such.csv?target=y"),
    "small": Mistake(
        "raise [limits] max_model_mb", "its model takes 268 bytes", "raise max_model_mb on the device", code="model",
        tables={"limits": {"max_model_mb": 0.0001}},
    ),
    "clock": Mistake(
        "its clock is not synchronised", "its clock is not synchronised", "timedatectl", code="clock",
        tables={"limits": {"hours": "00:00-24:00"}},
    ),
    "plan": Mistake(
        "edgefl-agent approve", "edgefl-agent approve", "ask its owner", code="plan",
        tables={"policy": {"plans": "ask"}},
    ),
    "paused": Mistake(
        "paused: /dev/null exists", "/dev/null exists", "its owner wishes it", state="paused", code="",
        tables={"pause_file": "/dev/null"},
    ),
    "full-disk": Mistake(
        "paused: ", "disk", "free memory or disk space", state="paused", code="room",
        tables={"limits": {"min_free_disk_mb": 1e9}},
    ),
    "plug-in": Mistake(
        "'no_such:Codec' can't be imported", "it can't start: codec 'no_such:Codec' can't be imported", CHECK,
        code="settings", tables={"plugins": {"codecs": ["no_such:Codec"]}}, exits=2,
    ),
}  # fmt: skip
# What the broker does not let in, nobody else hears of: the operator sees that fewer devices come than are expected.
SILENT = {
    "port": (Mistake("cannot reach MQTT broker 127.0.0.1:1 (Connection refused)", "", "")),
    "password": (Mistake("check user, password or certificate here", "", "")),
    "misspelt": (Mistake("there is no manifest on 'edgefl/2/mistake/manifest': check `federation`", "", "")),
}
EXPECTED = len(MISTAKES) + len(SILENT) + 1


class Fleet:
    """Daemons in processes with logs of their own, and what `edgefl status` shows."""

    def __init__(self, viewer: list[str]) -> None:
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.logs: dict[str, Path] = {}
        self._viewer = viewer
        self.began = time.monotonic()

    def start(self, name: str, program: str, config: Path, *words: str, **env: str) -> None:
        self.logs[name] = config.with_suffix(".log")
        environment = {key: value for key, value in os.environ.items() if key != "EDGEFL_TRUST_CLOCK"} | env
        with open(self.logs[name], "ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", program, "--config", str(config), *words], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env=environment,
            )  # fmt: skip

    def log(self, name: str) -> str:
        return self.logs[name].read_text()

    def says(self, name: str, text: str) -> None:
        """Within a minute of the fleet's start."""
        left_s = max(0.5, self.began + MINUTE_S - time.monotonic())
        with suppress(AssertionError):
            eventually(lambda: text in self.log(name), left_s)
        assert text in self.log(name)

    def status(self) -> dict[str, Any]:
        words = [sys.executable, "-m", "edgefl", "status", "--json", *self._viewer]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30)
        return (
            json.loads(done.stdout) if done.returncode == 0 else {"devices": [], "summary": {"advice": [done.stderr]}}
        )

    def started(self) -> None:
        """The minute begins when all programs have begun to log, which takes a busy machine a while."""
        eventually(lambda: all(path.stat().st_size for path in self.logs.values()), MINUTE_S)
        self.began = time.monotonic()

    def end(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(10.0)
            process.kill()


def within_a_minute(fleet: Fleet, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What `edgefl status` shows once that is `done`, a minute after the fleet's start at the latest."""
    while not done(shown := fleet.status()) and time.monotonic() < fleet.began + MINUTE_S:
        time.sleep(1.0)
    return shown


@pytest.fixture(scope="module")
def open_fleet(tmp_path_factory) -> Iterator[Fleet]:
    """An open federation whose broker wants passwords, with a right device and one of each mistake."""
    folder = tmp_path_factory.mktemp("mistakes")
    names = ["right", *MISTAKES, *SILENT]
    users = password_file(folder, {name: "pw" for name in ["aggregator", "disk", *names]})
    for name, password in ("pw", "pw\n"), ("wrong", "no\n"):
        (folder / name).touch(0o600)
        (folder / name).write_text(password)
    with Mosquitto(f"allow_anonymous false\npassword_file {users}\nacl_file {ROOT}/broker/acl\n") as broker:
        federation = Federation(folder, broker.url, "mistakes")
        mqtt = {"url": broker.url, "password_file": str(folder / "pw"), "reconnect_cap_s": 2.0}
        sets = ["mqtt.username=aggregator", f"mqtt.password_file={folder}/pw"]
        where = ["--broker", broker.url, "--federation", "mistakes"]
        fleet = Fleet([*where, *(word for text in sets for word in ("--set", text))])
        rounds = {"rounds": 10**6, "deadline_s": 20.0, "min_reports": 1, "expect": EXPECTED, "interval_s": 1.0}
        config = federation.write_aggregator(mqtt=mqtt | {"username": "aggregator"}, rounds=rounds)
        fleet.start("aggregator", "edgefl_broker", config)
        try:
            for name in names:
                start(fleet, federation, name, mqtt | {"username": name})
            fleet.started()
            yield fleet
        finally:
            fleet.end()


def start(fleet: Fleet, federation: Federation, name: str, mqtt: dict[str, Any]) -> None:
    mistake = {**MISTAKES, **SILENT, "right": Mistake("", "", "")}[name]
    home = federation.folder / name
    home.mkdir()
    (home / "data.csv").write_text("\n".join([mistake.head, *mistake.rows]) + "\n")
    source = mistake.spec if ":" in mistake.spec else f"csv:{home}/data.csv?{mistake.spec}"
    changes: dict[str, dict[str, Any]] = {
        "port": {"mqtt": mqtt | {"url": "mqtt://127.0.0.1:1"}},
        "password": {"mqtt": mqtt | {"password_file": str(federation.folder / "wrong")}},
        "misspelt": {"federation": "mistake"},
    }
    path = federation.write_agent(name, source, **({"mqtt": mqtt} | dict(mistake.tables) | changes.get(name, {})))
    fleet.start(name, "edgefl_agent", path)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_where_it_was_made_and_where_the_operator_looks(fleet, name: str) -> None:
    fleet, shown = fleet
    mistake = MISTAKES[name]
    rows = {row["id"]: row for row in shown["devices"]}
    row = rows[name]
    assert (row["state"], row.get("code", "")) == (mistake.state, mistake.code), row
    assert mistake.why in row["problem"]
    assert mistake.do in row["remedy"] or mistake.do in row["problem"], row
    fleet.says(name, mistake.device)
    if mistake.state == "trouble":
        lines = fleet.log("aggregator").splitlines()
        line = next((line for line in lines if f" {name} is in trouble: " in line), "no line")
        assert mistake.why in line and mistake.do in line
    if mistake.exits is not None:
        assert fleet.processes[name].wait(10.0) == mistake.exits


def test_the_right_device_goes_on(fleet) -> None:
    fleet, shown = fleet
    (row,) = (row for row in shown["devices"] if row["id"] == "right")
    assert row["state"] in ("ready", "training") and not row["problem"]
    assert shown["summary"]["last"][0]["state"] == "committed"


@pytest.mark.parametrize("name", SILENT)
def test_a_device_that_can_not_be_heard_knows_why_and_is_missed(fleet, name: str) -> None:
    fleet, shown = fleet
    fleet.says(name, SILENT[name].device)
    assert name not in {row["id"] for row in shown["devices"]}
    wanted = f"{EXPECTED - len(SILENT)} of {EXPECTED} expected devices have ever announced themselves"
    assert any(wanted in text and CHECK in text for text in shown["summary"]["advice"]), shown["summary"]["advice"]
    fleet.says("aggregator", wanted)


def test_an_agent_whose_disk_is_full_when_it_starts_tells_before_it_ends(fleet, tmp_path) -> None:
    fleet, _ = fleet
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        config = tmp_path / "agent.toml"
        config.write_text(fleet.logs["right"].with_suffix(".toml").read_text().replace('"right"', '"disk"'))
        fleet.start("disk", "edgefl_agent", config, "--set", f"state_dir={small}")
        assert fleet.processes["disk"].wait(30.0) == 1
    finally:
        subprocess.run(["umount", small], check=True)
    fleet.began = time.monotonic()
    fleet.says("aggregator", "disk is in trouble: ")
    shown = within_a_minute(fleet, lambda shown: any(row["id"] == "disk" for row in shown["summary"]["troubled"]))
    (row,) = (row for row in shown["summary"]["troubled"] if row["id"] == "disk")
    assert row["code"] == "disk" and "agent.db" in row["reason"]
    assert "make room on the device's disk" in fleet.log("aggregator")
    assert "check the folder, its owner and the space left" in fleet.log("disk")


# With keys


def make_swapped(fleet: KeyedFleet, name: str) -> None:
    for file in ("device.crt", "device.key"):
        shutil.copy(fleet.home("right") / file, fleet.home(name) / file)


def make_foreign(fleet: KeyedFleet, name: str) -> None:
    from enrolled import made

    made(fleet.folder / "others", guard=None, port=fleet.port)
    (bundle,) = enrolment.add(fleet.folder / "others", [name], enrolment.Terms(f"npz:{fleet.folder}/{name}.npz"))
    shutil.rmtree(fleet.home(name))
    unpack(bundle, fleet.home(name))


KEYED: dict[str, tuple[tuple[str, ...], str, Callable[[KeyedFleet, str], None] | None]] = {
    "port": (("mqtt.url=mqtts://localhost:1",), "cannot reach MQTT broker localhost:1 (Connection refused)", None),
    "plain": (("mqtt.url=mqtt://localhost:{port}",), "cannot reach MQTT broker", None),
    "host": (("mqtt.url=mqtts://127.0.0.2:{port}",), "the broker's certificate is for another address", None),
    "misspelt": (("federation=tset",), "of federation 'f', not 'tset'", None),
    "root": (("mqtt.root=edgefl/3",), "[mqtt] root", None),
    "swapped": ((), "is the certificate of 'right', and must be that of 'swapped'", make_swapped),
    "foreign": ((), "the broker's certificate is not from the authority of [mqtt] ca", make_foreign),
    "readable": ((), "can be read by other users", lambda fleet, name: (fleet.home(name) / "device.key").chmod(0o644)),
    "no-root": ((), "root.pub", lambda fleet, name: (fleet.home(name) / "root.pub").unlink()),
}


@pytest.fixture(scope="module")
def keyed_fleet(tmp_path_factory) -> Iterator[Fleet]:
    """A federation with keys, whose devices can't be heard, each for another reason."""
    with KeyedFleet(tmp_path_factory.mktemp("keyed")) as made:
        made.enrol("right", *KEYED)
        (bundle,) = enrolment.add(made.keys, ["wall"], USUAL, "viewer")
        made.reload()
        fleet = Fleet(["--config", str(unpack(bundle, made.home("wall")) / "viewer.toml")])
        sets = (f"model={made.folder}/start.onnx", f"state_dir={made.folder}/state", "rounds.min_reports=1")
        words = [word for text in sets for word in ("--set", text)]
        fleet.start("aggregator", "edgefl_broker", made.keys / "aggregator" / "aggregator.toml", *words)
        made.agent("right")
        try:
            for name, (sets, _, make) in KEYED.items():
                if make is not None:
                    make(made, name)
                chosen = [f"state_dir={made.home(name)}/state", *(text.format(port=made.port) for text in sets)]
                words = [word for text in chosen for word in ("--set", text)]
                fleet.start(name, "edgefl_agent", made.home(name) / "agent.toml", *words)
            fleet.started()
            yield fleet
        finally:
            fleet.end()


@pytest.fixture(scope="module")
def fleet(open_fleet: Fleet, keyed_fleet: Fleet) -> tuple[Fleet, dict[str, Any]]:
    """The open fleet and its status; both fleets start together, since each takes its minute."""

    def seen(shown: dict[str, Any]) -> bool:
        rows = {row["id"]: row for row in shown["devices"]}
        told = all(name in rows and rows[name]["problem"] for name in MISTAKES)
        return told and bool(shown["summary"].get("last"))

    return open_fleet, within_a_minute(open_fleet, seen)


@pytest.fixture(scope="module")
def keyed(open_fleet: Fleet, keyed_fleet: Fleet) -> tuple[Fleet, dict[str, Any]]:
    """The fleet with keys and its status."""
    return keyed_fleet, within_a_minute(keyed_fleet, lambda shown: len(shown["devices"]) == 1 + len(KEYED))


@pytest.mark.parametrize("name", KEYED)
def test_an_enrolled_device_that_can_not_be_heard_is_named(keyed, name: str) -> None:
    fleet, shown = keyed
    fleet.says(name, KEYED[name][1])
    (row,) = (row for row in shown["devices"] if row["id"] == name)
    if name == "no-root":  # TLS alone lets it tell
        assert row["code"] == "settings" and "root.pub" in row["problem"]
    else:
        assert (row["state"], row["problem"]) == ("absent", "enrolled, and never heard")
    assert CHECK in row["remedy"]


def test_the_aggregators_log_names_enrolled_devices_that_were_never_heard(keyed) -> None:
    fleet, _ = keyed
    fleet.says(
        "aggregator",
        f"enrolled, and never heard: {', '.join(sorted({*KEYED} - {'no-root'}))}: start their agents; {CHECK}",
    )


# At the aggregator


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (("model=no_such.onnx",), "no_such.onnx"),
        (("model=aggregator.toml",), "aggregator.toml"),
        (("evaluate.test_data=csv:no_such.csv?target=y",), "no_such.csv"),
        (("rounds.gaol=3",), "did you mean"),
    ],
)
def test_an_aggregator_that_can_not_start_says_why(fleet, tmp_path, sets, said) -> None:
    fleet, _ = fleet
    config = shutil.copy(fleet.logs["aggregator"].with_suffix(".toml"), tmp_path / "aggregator.toml")
    words = [word for text in (f"state_dir={tmp_path}/state", *sets) for word in ("--set", text)]
    done = subprocess.run(
        [sys.executable, "-m", "edgefl_broker", "--config", config, *words], capture_output=True, text=True, timeout=60,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode in (1, 2) and done.stderr.splitlines()[-1].startswith("error: ") and said in done.stderr
    check = subprocess.run(
        [sys.executable, "-m", "edgefl_broker", "--config", config, "--check", *words], capture_output=True, text=True,
        timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert (check.returncode in (1, 2) and "-> " in check.stdout) or "error: " in check.stderr
