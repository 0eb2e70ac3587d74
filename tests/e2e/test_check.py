"""`--check` of both daemons and `edgefl doctor`, beside daemons that run: they find faults, and disturb nobody."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest
from brokers import Mosquitto, eventually, password_file
from daemons import Federation
from enrolled import unpack
from keyed_fleet import KeyedFleet

from edgefl.keys import enrolment
from edgefl.keys.enrolment import USUAL
from edgefl.transports.mqtt import Message

ROUNDS = {"rounds": 10**6, "deadline_s": 5.0, "min_reports": 1, "expect": 1, "interval_s": 0.5}  # no hurry
CREDENTIALS = {"ca": "ca.crt", "cert": "device.crt", "key": "device.key"}


def check(program: str, *words: object, trusted: bool = True) -> tuple[int, dict[str, list[dict[str, str]]], str]:
    """The exit code, and what was found, by the name of the check."""
    env = {"PATH": "/usr/bin:/bin", "EDGEFL_TRUST_CLOCK": "1" if trusted else "0"}
    done = subprocess.run(
        [sys.executable, "-m", program, *map(str, words)], capture_output=True, text=True, timeout=90, env=env
    )
    found: dict[str, list[dict[str, str]]] = {}
    if done.stdout.startswith("{"):
        for line in json.loads(done.stdout)["checks"]:
            found.setdefault(line["check"], []).append(line)
    return done.returncode, found, done.stdout + done.stderr


def states(found: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    """The worst state of each check."""
    order = ["ok", "skipped", "warning", "problem"]
    return {name: max((line["state"] for line in lines), key=order.index) for name, lines in found.items()}


def texts(found: dict[str, list[dict[str, str]]], name: str) -> str:
    return "\n".join(f"{line['text']} -> {line.get('do', '')}" for line in found[name])


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """Keys, TLS, the guard; aggregator and dev-a run, dev-b does not."""
    with KeyedFleet(tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.enrol("dev-a", "dev-b")
        fleet.reload()
        aggregator = fleet.aggregator("rounds.min_reports=1", "rounds.deadline_s=5", "rounds.interval_s=0.5")
        agent = fleet.agent("dev-a")
        fleet.wait(2)
        yield fleet, aggregator, agent


def words(fleet: KeyedFleet, name: str) -> list[str]:
    return ["--config", str(fleet.home(name) / "agent.toml"), "--set", f"state_dir={fleet.home(name)}/state"]


def test_a_device_that_is_not_running_is_checked_whole_under_its_own_name(fleet):
    fleet, _, _ = fleet
    code, found, text = check("edgefl_agent", *words(fleet, "dev-b"), "--check", "--json")
    expected = dict.fromkeys(found, "ok") | {"temperature": "skipped"}
    assert states(found) | {"temperature": "skipped"} == expected, text
    assert code == 0
    assert "MQTT 5" in texts(found, "mqtt") and "may publish" in texts(found, "access")
    assert "the model takes them" in texts(found, "fit") and "a step of" in texts(found, "training")
    assert not (fleet.home("dev-b") / "state").exists(), "a check leaves nothing behind"
    time.sleep(1.0)
    assert not any("dev-b" in record.devices or "dev-b" in record.missed for record in fleet.records())


def test_beside_a_running_agent_its_client_id_and_status_are_left_alone(fleet):
    fleet, _, agent = fleet
    boot = agent.host.boot
    eventually((fleet.home("dev-a") / "state" / "manifest.json").exists)
    code, found, text = check("edgefl_agent", *words(fleet, "dev-a"), "--check", "--json")
    assert code == 0, text
    assert states(found)["mqtt"] == "skipped" and "the agent runs here" in texts(found, "mqtt")
    assert states(found)["broker"] == "ok" and "TLS" in texts(found, "broker")
    assert "the model takes them" in texts(found, "fit"), "by the last manifest that it has believed"
    known = len(fleet.records())
    fleet.wait(known + 2)
    assert agent.host.boot == boot, "the agent lost its connection"
    assert all("dev-a" in record.devices for record in fleet.records()[known:])


def test_beside_a_running_aggregator(fleet):
    fleet, aggregator, _ = fleet
    config = fleet.keys / "aggregator" / "aggregator.toml"
    sets = ["--set", f"model={fleet.folder}/start.onnx", "--set", f"state_dir={fleet.folder}/state"]
    boot = aggregator.host.boot
    code, found, text = check("edgefl_broker", "--config", config, *sets, "--check", "--json")
    assert code == 0, text
    assert "the aggregator runs here" in texts(found, "mqtt") and states(found)["keys"] == "ok"
    assert states(found)["training"] == "ok" and aggregator.host.boot == boot
    code, again, _ = check("edgefl", "doctor", "--config", config, *sets, "--json")
    assert (code, states(again)) == (0, states(found))


def test_a_certificate_of_another_device(fleet):
    fleet, _, _ = fleet
    theirs = [f"mqtt.{name}={fleet.home('dev-a')}/{file}" for name, file in CREDENTIALS.items()]
    sets = [word for text in theirs for word in ("--set", text)]
    code, found, _ = check("edgefl_agent", *words(fleet, "dev-b"), *sets, "--check", "--json")
    assert code == 1 and states(found)["certificate"] == "problem"
    assert "is the certificate of 'dev-a', and must be that of 'dev-b'" in texts(found, "certificate")


@pytest.fixture(scope="module")
def open_fleet(tmp_path_factory):
    """No keys and no user names: client ids are free."""
    with Mosquitto() as broker:
        federation = Federation(tmp_path_factory.mktemp("open"), broker.url, "open")
        federation.aggregator(rounds=ROUNDS)
        agent = federation.agent("dev-a")
        eventually((federation.folder / "dev-a" / "manifest.json").exists)
        yield federation, broker, agent
        federation.close()


def changed(fleet: Federation, source: str = "", **tables: Any) -> str:
    """The file of another agent, dev-b, which does not run."""
    return str(fleet.write_agent("dev-b", source, **tables))


def test_where_client_ids_are_free_a_running_agent_is_checked_whole(open_fleet):
    federation, broker, agent = open_fleet
    boot = agent.host.boot
    path = federation.folder / "dev-a" / "agent.toml"
    code, found, text = check("edgefl", "doctor", "--config", path, "--json")
    assert code == 0, text
    assert json.loads(text)["running"] and states(found)["mqtt"] == "ok" and "may publish" in texts(found, "access")
    assert states(found)["keys"] == "skipped", "an open federation is said to be one, and is no fault"
    assert agent.host.boot == boot
    log = broker.log
    assert "already connected" not in log and " check-" in log


def test_what_a_check_sends_changes_nothing_for_others(open_fleet, link):
    federation, broker, _ = open_fleet
    watcher = link(broker.url, "watcher")
    watcher.up()
    watcher.subscribe([f"edgefl/2/{federation.name}/#"])
    check("edgefl_agent", "--config", changed(federation), "--check")
    code, _, text = check("edgefl_broker", "--config", federation.folder / "aggregator.toml", "--check")
    assert code == 0, text
    check("edgefl", "doctor", "--broker", broker.url)
    seen = [event for event in watcher.inbox.quiet(Message) if "/dev-b/" in event.topic or "/65534/" in event.topic]
    kinds = {(event.topic.partition(f"{federation.name}/")[2], bool(event.payload), event.retain) for event in seen}
    assert ("d/dev-b/u/0/0", False, False) in kinds
    assert not any(topic.endswith("status") for topic, _, _ in kinds)
    later = link(broker.url, "later")
    later.up()
    later.subscribe(["#"])
    left = {event.topic for event in later.inbox.quiet(Message) if event.retain}
    assert not any("dev-b" in topic or "65534" in topic or "doctor" in topic for topic in left)


@pytest.mark.parametrize(
    ("tables", "name", "words"),
    [
        ({"mqtt": {"url": "mqtt://127.0.0.1:1"}}, "broker", "Connection refused -> check [mqtt] url"),
        ({"federation": "opem"}, "federation", "nothing is retained on 'edgefl/2/opem/manifest' -> check `federation`"),
        ({"limits": {"max_model_mb": 0.0001}}, "federation", "too many -> raise [limits] max_model_mb"),
        ({"policy": {"max_lr": 0.01}}, "owner", "its lr is 0.1, at most 0.01 is allowed -> change [policy]"),
        ({"policy": {"plans": "ask"}}, "owner", "waits for its owner -> edgefl-agent approve"),
        ({"policy": {"max_seconds": 1e-9}}, "training", "rounds last 1e-09 s -> raise rounds.deadline_s"),
        ({"limits": {"min_free_disk_mb": 1e9}}, "owner", "pause this device now"),
        ({"pause_file": "/dev/null"}, "settings", "paused: /dev/null exists -> rm /dev/null"),
        ({"plugins": {"codecs": ["no_such:Codec"]}}, "settings", "no_such"),
    ],
)
def test_what_is_wrong_with_an_agent(open_fleet, tables, name, words):
    federation, _, _ = open_fleet
    code, found, text = check("edgefl_agent", "--config", changed(federation, **tables), "--check", "--json")
    assert code == 1 and states(found)[name] in ("warning", "problem"), text
    assert words in texts(found, name)


@pytest.mark.parametrize(
    ("lines", "name", "words"),
    [
        ("1,2,3,4,0", "data", "all examples have the same label -> see whether the target"),
        ("1,2,3,4,0\n1,2,3,4,7", "fit", "label 7 of sample 1 is out of range"),
        ("1,2,3,4,0\n1,,3,4,1", "data", "line 3, column 'b'"),
        ("1,2,3,4,0\n1,2,3,4000,1", "data", "columns are not scaled"),
        ("1,1,3,4,0\n1.001,9,-3,4.1,1\n1,9000,-3,4.2,1", "data", "times that of another -> standardise"),
        ("1,2,3,4,worn\n1,2,3,5,ok", "data", "column 'y'"),
    ],
)
def test_what_is_wrong_with_the_data(open_fleet, tmp_path, lines, name, words):
    federation, _, _ = open_fleet
    table = tmp_path / "data.csv"
    table.write_text(f"a,b,c,d,y\n{lines}\n")
    path = changed(federation, f"csv:{table}?target=y&kind=classes")
    code, found, _ = check("edgefl_agent", "--config", path, "--check", "--json")
    assert code == 1 and words in texts(found, name), texts(found, name)


def test_columns_that_are_not_the_models(open_fleet, tmp_path):
    federation, _, _ = open_fleet
    table = tmp_path / "data.csv"
    table.write_text("a,b,y\n1,2,0\n2,1,1\n")
    path = changed(federation, f"csv:{table}?target=y&kind=classes")
    _, found, text = check("edgefl_agent", "--config", path, "--check", "--json")
    assert "an example has shape (2,), 2 values, and the model's input (4,), 4" in texts(found, "fit"), text
    assert states(found)["training"] == "skipped"


def test_a_full_disk(open_fleet):
    """/dev/full can't be a folder, so a small file system is needed."""
    federation, _, _ = open_fleet
    small = federation.folder / "small"
    small.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no right to mount a small file system")
    try:
        path = changed(federation, state_dir=str(small))
        code, found, _ = check("edgefl_agent", "--config", path, "--check", "--json")
        assert code == 1
        assert states(found)["disk"] == "problem" and "No space left on device -> free some" in texts(found, "folder")
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_configuration_that_can_not_be_used(tmp_path):
    """Exit code 2; the machine is looked at all the same, and every mistake has a line."""
    path = tmp_path / "agent.toml"
    path.write_text('federation = "open"\ndevice_id = "dev-a"\nmqtt = {url = "mqtt://x", keepalive_s = 1}\nfoo = 1\n')
    for words in ["edgefl_agent", "--check"], ["edgefl", "doctor"]:
        code, found, text = check(*words, "--config", path, "--json")
        assert code == 2, text
        assert states(found)["memory"] == "ok"
        assert {"no key 'foo'", "keepalive_s", "[data]"} == {
            word for word in ("no key 'foo'", "keepalive_s", "[data]") if word in texts(found, "settings")
        }
    path.write_text("federation = ")
    assert check("edgefl", "doctor", "--config", path)[0] == 2
    assert check("edgefl_agent", "--check")[0] == 2
    assert check("edgefl_agent", "--config", path, "--config", path, "--check")[0] == 2
    assert check("edgefl_agent", "--config", path, "--json")[0] == 2
    assert check("edgefl_broker", "--config", path, "--json")[0] == 2
    assert check("edgefl", "doctor", "--set", "train.lr=1")[0] == 2
    assert check("edgefl", "doctor", "--cert", "own.pem")[0] == 2


def test_what_is_wrong_with_an_aggregator(open_fleet, tmp_path):
    federation, _, _ = open_fleet
    config = federation.folder / "aggregator.toml"

    def found(*sets: str) -> dict[str, list[dict[str, str]]]:
        words = [word for text in (f"state_dir={tmp_path}/state", *sets) for word in ("--set", text)]
        code, lines, text = check("edgefl_broker", "--config", config, *words, "--check", "--json")
        assert code == 1, text
        return lines

    assert "no_such.onnx" in texts(found("model=no_such.onnx"), "model")
    assert "no_such.npz" in texts(found("evaluate.test_data=npz:no_such.npz"), "test data")
    assert "holdout" in texts(found("rounds.evaluate_every=2"), "settings")
    open_to_all = found("dashboard.listen=0.0.0.0:8090")
    assert "in the clear" in texts(open_to_all, "settings") and "starlette" in texts(open_to_all, "versions")
    assert "Connection refused" in texts(found("mqtt.url=mqtt://127.0.0.1:1"), "broker")
    assert "make /proc/none/state and give it to" in texts(found("state_dir=/proc/none/state"), "folder")


def test_doctor_on_a_machine_whose_clock_is_not_synchronised():
    code, found, _ = check("edgefl", "doctor", "--json", trusted=False)
    assert set(found) == {"versions", "processor", "memory", "disk", "folder", "clock", "temperature"}
    assert code == (1 if states(found)["clock"] == "warning" else 0)


def test_doctor_at_a_broker(open_fleet, tmp_path):
    _, broker, _ = open_fleet
    code, found, text = check("edgefl", "doctor", "--broker", broker.url, "--json")
    assert code == 0 and "published, kept and read back" in texts(found, "access"), text
    code, _, text = check("edgefl", "doctor", "--broker", broker.url)
    assert code == 0 and text.startswith("ok       versions") and "ok, 1 skipped" in text.splitlines()[-1]
    _, found, _ = check("edgefl", "doctor", "--broker", "ftp://x", "--json")
    assert states(found)["broker"] == "problem" and "lacks a known scheme" in texts(found, "broker")


def test_an_aggregator_in_whose_session_earlier_checks_were(tmp_path):
    """The broker keeps the session of an aggregator that it knows by its name: a check leaves nothing there."""
    passwords = password_file(tmp_path, {"aggregator": "right"})
    with Mosquitto(f"allow_anonymous false\npassword_file {passwords}\n") as broker:
        federation = Federation(tmp_path, broker.url, "open")
        secret = tmp_path / "password"
        secret.touch(0o600)
        secret.write_text("right")
        mqtt = {"url": broker.url, "username": "aggregator", "password_file": str(secret)}
        path = federation.write_aggregator(mqtt=mqtt)
        for _ in range(3):
            _, found, text = check("edgefl_broker", "--config", path, "--check", "--json")
            assert "published, kept and read back" in texts(found, "access"), text


def test_doctor_of_a_viewer(fleet):
    """It looks at what `edgefl status` needs, and asks for nothing that is a daemon's."""
    fleet, _, _ = fleet
    (bundle,) = enrolment.add(fleet.keys, ["wall"], USUAL, "viewer")
    home = unpack(bundle, fleet.home("wall"))
    words = ("edgefl", "doctor", "--config", home / "viewer.toml", "--json")
    code, found, text = check(*words)
    assert (code, states(found)["access"]) == (1, "skipped"), text
    assert "let this client read edgefl/2/f/summary" in texts(found, "federation")
    fleet.reload()
    tried: list[tuple[int, dict[str, list[dict[str, str]]], str]] = []
    eventually(lambda: tried.append(check(*words)) or tried[-1][0] == 0, 30.0)
    _, found, text = tried[-1]
    names = ("versions", "clock", "keys", "certificate", "broker", "mqtt", "access", "federation")
    assert states(found) == dict.fromkeys(names, "ok") and "model version" in texts(found, "federation"), text
    for name, other in (("ca.crt", "ca.crt"), ("viewer.crt", "device.crt"), ("viewer.key", "device.key")):
        (home / name).write_bytes((fleet.home("dev-b") / other).read_bytes())
    _, found, text = check(*words)
    assert "is the certificate of 'dev-b', which is no viewer" in texts(found, "certificate"), text


def test_doctor_of_a_viewer_where_no_aggregator_is(open_fleet, tmp_path):
    _, broker, _ = open_fleet
    path = tmp_path / "viewer.toml"
    path.write_text(f'federation = "elsewhere"\nmqtt = {{url = "{broker.url}"}}\n')
    code, found, text = check("edgefl", "doctor", "--config", path, "--json")
    assert code == 1 and states(found)["keys"] == "skipped", text
    assert "nothing of edgefl/2/elsewhere is on the broker -> start the aggregator" in texts(found, "federation")
    path.write_text('federation = "elsewhere"\nmqqt = {url = "mqtt://x"}\n')
    code, found, text = check("edgefl", "doctor", "--config", path, "--json")
    assert code == 2 and "no key 'mqqt'" in texts(found, "settings") and "model" not in texts(found, "settings"), text


def test_doctor_of_a_helper(fleet):
    fleet, _, _ = fleet
    (bundle,) = enrolment.add(fleet.keys, ["north"], USUAL, "helper")
    path = unpack(bundle, fleet.home("north")) / "helper.toml"
    sets = ("--set", f"state_dir={fleet.home('north')}/state")
    _, found, text = check("edgefl", "doctor", "--config", path, *sets, "--json")
    assert "does not run" in texts(found, "helper") and "least" in found, text
    code, _, text = check("edgefl_broker.helper", "--config", path, *sets, "--json")
    assert code == 2 and "--json goes with --check" in text


def test_plain_mqtt_at_a_port_of_tls(fleet):
    fleet, _, _ = fleet
    _, found, _ = check("edgefl", "doctor", "--broker", f"mqtt://127.0.0.1:{fleet.port}", "--json")
    assert "TLS is spoken there -> write mqtts://" in texts(found, "mqtt"), found


def test_user_and_password(tmp_path):
    passwords = password_file(tmp_path, {"dev-a": "right"})
    with Mosquitto(f"allow_anonymous false\npassword_file {passwords}\n") as broker:
        federation = Federation(tmp_path, broker.url, "open")
        secret = tmp_path / "password"
        secret.touch(0o600)
        for password, state in (("right", "ok"), ("wrong", "problem")):
            secret.write_text(password)
            mqtt = {"url": broker.url, "username": "dev-a", "password_file": str(secret)}
            path = federation.write_agent("dev-a", mqtt=mqtt)
            _, found, text = check("edgefl_agent", "--config", path, "--check", "--json")
            assert states(found)["mqtt"] == state, text
            assert "right" not in text and "wrong" not in text.replace("wrong use", "")
        assert "check user" in texts(found, "mqtt")


def test_on_the_embedded_broker_and_with_mqtt_3_1_1(wire, federation) -> None:
    url, protocol = wire
    fleet: Federation = federation(url, protocol)
    aggregator = fleet.aggregator(rounds=ROUNDS)
    agent = fleet.agent("dev-a")
    eventually((fleet.folder / "dev-a" / "manifest.json").exists, 20.0)
    boots = agent.host.boot, aggregator.host.boot
    code, found, text = check("edgefl_agent", "--config", fleet.folder / "dev-a" / "agent.toml", "--check", "--json")
    assert code == 0 and f"MQTT {protocol}" in texts(found, "mqtt"), text
    assert states(found)["access"] == ("ok" if protocol == "5" else "skipped"), "3.1.1 hides refusals"
    code, found, text = check("edgefl_broker", "--config", fleet.folder / "aggregator.toml", "--check", "--json")
    assert code == 0 and "read back" in texts(found, "access"), text
    code, found, text = check("edgefl", "doctor", "--broker", url, "--json")
    assert code == 0 and "kept and read back" in texts(found, "access"), text
    assert (agent.host.boot, aggregator.host.boot) == boots


def test_a_second_agent_that_can_not_start_says_nothing_in_the_name_of_the_first(open_fleet, link):
    """An agent tells the operator why it can't start; beside one that runs, that would be a lie."""
    fleet, broker, _ = open_fleet
    path = fleet.folder / "second.toml"
    path.write_text((fleet.folder / "dev-a" / "agent.toml").read_text().replace("npz:", "xls:"))
    done = subprocess.run([sys.executable, "-m", "edgefl_agent", "--config", path], capture_output=True, timeout=60)
    assert done.returncode == 2 and b"unknown kind of data" in done.stderr
    watcher = link(broker.url, "second-watcher")
    watcher.up()
    watcher.subscribe([f"edgefl/2/{fleet.name}/d/dev-a/status"])
    assert b"trouble" not in watcher.heard(f"edgefl/2/{fleet.name}/d/dev-a/status").payload
    path.write_text(path.read_text().replace("dev-a", "dev-c"))
    done = subprocess.run([sys.executable, "-m", "edgefl_agent", "--config", path], capture_output=True, timeout=60)
    watcher.subscribe([f"edgefl/2/{fleet.name}/d/dev-c/status"])
    told = watcher.heard(f"edgefl/2/{fleet.name}/d/dev-c/status")
    assert done.returncode == 2 and b"trouble" in told.payload and b"xls" not in told.payload
