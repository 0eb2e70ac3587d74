"""Hygiene: secrets are in files that nobody else reads, and in no message; nothing that daemons write is for others."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from brokers import Mosquitto, eventually, password_file
from conftest import ROOT
from daemons import Federation
from edgefl_agent.__main__ import main as agent_main
from edgefl_broker.__main__ import main as aggregator_main

from edgefl import private_files
from edgefl.errors import StoreError, UsageError
from edgefl.history_files import HistoryFiles
from edgefl.history_record import RoundRecord
from edgefl.hosting.store import Schema, claim, open_database
from edgefl.settings.render import dump
from edgefl.transports.endpoint import Endpoint, Login, TlsConfig
from edgefl.transports.settings import PASSWORD, MqttConfig

SECRET = "s3kr1t/w#ith?all@of:them"
UNITS = [
    "device_agent/edgefl-agent.service", "device_agent/edgefl-recorder.service", "broker/edgefl-aggregator.service",
    "broker/edgefl-helper.service",
]  # fmt: skip


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


# Passwords


def test_a_password_in_the_url_may_have_any_character():
    found = Endpoint.parse(f"mqtt://pi-01:{SECRET}@broker:7", None)
    assert (found.user, found.password, str(found)) == ("pi-01", SECRET, "broker:7")
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://u:{}@", "mqtt://u:{}@host:port", "mqtt://u:{}@host:99999", "http://u:{}@host", "mqtt://u:{}@host/path",
        "mqtt://u:{}@[::1", "mqtt:/u:{}@host", "u:{}@host", "mqtt://u:{}@host?x", "mqtt://u:{}@host#x",
        "mqtts://u:{}@host", "mqtt://u:s3kr1t", "mqtt://:{}@host",
    ],
)  # fmt: skip
def test_no_error_about_a_url_quotes_its_password(url):
    with pytest.raises(UsageError) as caught:
        Endpoint.parse(url.format(SECRET), TlsConfig(ca="/nowhere/ca.crt"))
    assert "s3kr1t" not in str(caught.value) and "them" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_login_comes_from_a_file_the_environment_or_systemd(tmp_path, monkeypatch):
    path = write(tmp_path / "broker-password", f"{SECRET}\nnot this\n")
    config = MqttConfig("mqtt://broker", username="pi-01", password_file=str(path))
    assert config.login == Login("pi-01", SECRET) and SECRET not in repr(config.login)
    monkeypatch.setenv(private_files.CREDENTIALS, str(tmp_path))
    path.chmod(0o440)  # as systemd's access control list looks
    assert MqttConfig("mqtt://broker", username="pi-01", password_file=path.name).login == Login("pi-01", SECRET)
    monkeypatch.setenv(PASSWORD, "from outside")
    assert MqttConfig("mqtt://broker", username="pi-01").login == Login("pi-01", "from outside")
    write(tmp_path / "own.key", "x", 0o440)
    assert MqttConfig("mqtts://broker", key="own.key").tls == TlsConfig(key=str(tmp_path / "own.key"))


@pytest.mark.parametrize(
    ("url", "login", "words"),
    [
        ("mqtt://u:p@host", Login("v"), "keep one of them"),
        ("mqtt://u:p@host", Login(None, "q"), "keep one of them"),
        ("mqtt://host", Login(None, "q"), "set \\[mqtt\\] username"),
    ],
)
def test_a_login_is_said_once_and_whole(url, login, words):
    with pytest.raises(UsageError, match=words):
        Endpoint.parse(url, None, login)
    assert Endpoint.parse("mqtt://u@host", None, Login(None, "q")).password == "q"


def agent_toml(folder: Path, **mqtt: str) -> Path:
    table = {
        "federation": "f", "device_id": "pi-01", "state_dir": str(folder / "state"),
        "mqtt": {"url": "mqtts://localhost:1", **mqtt}, "data": {"source": "npz:/nowhere.npz"},
    }  # fmt: skip
    return write(folder / "agent.toml", dump(table))


@pytest.mark.parametrize(
    ("mqtt", "words"),
    [
        ({"ca": "{}/none.crt"}, r"can't read the authority's certificate .*none\.crt \(No such file"),
        ({"cert": "{}/own.crt", "key": "{}/none.key"}, r"can't read the key .*none\.key \(No such file"),
        (
            {"cert": "{}/own.crt", "key": "{}/open.key"},
            r"open\.key can be read by other users \(mode 0640\): chmod 600",
        ),
        ({"cert": "{}/open.key"}, r"open\.key can be read by other users"),
        ({"cert": "{}/own.crt", "key": "{}/own.key"}, r"own\.crt and the key .*own\.key can't be used"),
        ({"username": "u", "password_file": "{}/none"}, r"can't read \[mqtt\] password_file .*none"),
        ({"username": "u", "password_file": "{}/open.key"}, "password_file .* can be read by other users"),
        ({"username": "u", "password_file": "{}/empty"}, "empty first line"),
    ],
)
def test_i21_a_daemon_whose_keys_cannot_be_used_ends_with_2(tmp_path, capsys, mqtt, words):
    """So that its unit does not start it for ever."""
    for name, mode in {"open.key": 0o640, "own.key": 0o600, "own.crt": 0o644}.items():
        write(tmp_path / name, "no key\n", mode)
    write(tmp_path / "empty", "\n")
    mqtt = {key: value.format(tmp_path) for key, value in mqtt.items()}
    assert agent_main(["--config", str(agent_toml(tmp_path, **mqtt))]) == 2
    assert re.search(words, capsys.readouterr().err)


@pytest.mark.parametrize("main", [agent_main, aggregator_main])
def test_a_password_on_the_command_line_is_refused_and_not_repeated(tmp_path, capsys, main):
    """Every user of the machine sees it there."""
    config = str(agent_toml(tmp_path))
    for key in ("mqtt.url", "mqtt.urll"):
        assert main(["--config", config, "--set", f"{key}=mqtt://u:{SECRET}@localhost"]) == 2
        assert "s3kr1t" not in capsys.readouterr().err
    assert main(["--print-config"]) == 0
    assert PASSWORD in capsys.readouterr().out


# What daemons leave behind


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    target, folder = write(tmp_path / "precious", "keep"), tmp_path / "state"
    folder.mkdir()
    (folder / "lock").symlink_to(target)
    with pytest.raises(StoreError, match="is a link"):
        claim(folder)
    assert target.read_text() == "keep"


def test_a_database_that_others_could_read_is_theirs_no_more(tmp_path):
    path = tmp_path / "x.db"
    schema = Schema(1, "CREATE TABLE IF NOT EXISTS t (n INTEGER);", {})
    first = open_database(path, schema, replaceable=False)
    first.execute("INSERT INTO t VALUES (1)")
    files = [path, tmp_path / "x.db-wal", tmp_path / "x.db-shm"]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 3
    for file in files:
        file.chmod(0o644)
    second = open_database(path, schema, replaceable=False)
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 3
    first.close(), second.close()


def test_a_history_that_others_could_read_is_theirs_no_more(tmp_path):
    old = write(tmp_path / "history.1.jsonl", "", 0o644)
    history = HistoryFiles(tmp_path, 1e9)
    history.mend([RoundRecord(1, "abandoned", 0, 0, [], 0, 0.0, 0, 0, 1.0)])
    assert [stat.S_IMODE(path.stat().st_mode) for path in (old, tmp_path / "history.jsonl")] == [0o600] * 2


LOOK = """
import ctypes, os, resource, sys
from {package} import __main__ as program
def look(*_, **__):
    umask = os.umask(0)
    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), oct(umask), resource.getrlimit(resource.RLIMIT_CORE))
program.run = look
sys.argv = ["program", "--config", "none.toml"]
sys.exit(program.main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
@pytest.mark.parametrize("package", ["edgefl_agent", "edgefl_broker"])
def test_i22_before_a_program_reads_its_configuration_it_can_leave_no_core(package):
    """PR_GET_DUMPABLE is 3."""
    command = [sys.executable, "-c", LOOK.format(package=package)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == "0 0o77 (0, 0)\n", found.stderr


@pytest.mark.parametrize("unit", UNITS)
def test_units_say_so_too(unit):
    lines = (ROOT / unit).read_text().splitlines()
    assert {"UMask=0077", "LimitCORE=0", "RestartPreventExitStatus=2"} <= set(lines)


def test_processes_with_a_password_file_leave_nothing_to_others(tmp_path):
    """A federation of real processes: all that they write is 0600, and no line of theirs has the password."""
    users = {"agg": SECRET, "pi-01": SECRET}
    config = f"allow_anonymous false\npassword_file {password_file(tmp_path, users)}\n"
    secret = write(tmp_path / "secret", SECRET)
    old = os.umask(0o022)
    try:
        with Mosquitto(config) as broker:
            federation = Federation(tmp_path, broker.url, "hygiene")
            mqtt = {"url": broker.url, "reconnect_cap_s": 0.3, "password_file": str(secret)}
            rounds = {"rounds": 2, "deadline_s": 10.0, "min_reports": 1, "expect": 1}
            paths = [
                federation.write_aggregator(mqtt={**mqtt, "username": "agg"}, rounds=rounds),
                federation.write_agent("pi-01", mqtt={**mqtt, "username": "pi-01"}),
            ]
            (tmp_path / "pi-01").chmod(0o755)
            lines = run_processes(tmp_path, paths)
    finally:
        os.umask(old)
    assert "update counted" in lines and "s3kr1t" not in lines
    written = [
        *(tmp_path / "aggregator").iterdir(),
        *(tmp_path / "pi-01").glob("agent.db*"),
        tmp_path / "pi-01" / "lock",
    ]
    assert len(written) >= 6
    assert {path.name: oct(path.stat().st_mode & 0o077) for path in written if path.stat().st_mode & 0o077} == {}


def run_processes(folder: Path, paths: list[Path]) -> str:
    """Run an aggregator until its rounds are done, and an agent beside it; all that they have logged, at debug."""
    log = folder / "log"
    with open(log, "w") as file:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", module, "--config", str(path), "--log-level", "debug"], stdout=file, stderr=file
            )
            for module, path in zip(("edgefl_broker", "edgefl_agent"), paths, strict=True)
        ]
        try:
            for process in processes:
                eventually(lambda p=process: b"--config" in Path(f"/proc/{p.pid}/cmdline").read_bytes())
                assert b"s3kr1t" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
            assert processes[0].wait(60) == 0, log.read_text()
        finally:
            processes[1].terminate()
            processes[1].wait(10)
            processes[0].kill()
    return log.read_text()
