"""The governor: each sensor on a tree of files, each rule on a table of readings, and an agent that obeys."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from brokers import eventually
from daemons import Federation
from edgefl_agent.config import LimitsConfig
from edgefl_agent.governor import HOLD_S, HUNG_S, LOOK_S, MB, Governor, Readings, Wanted, read_all, reasons
from msgspec.structs import replace

from edgefl import Trainer
from edgefl.hosting import sensors
from edgefl.hosting.programs import MAX_BYTES, Answer, run
from edgefl.protocol.trouble import CODES
from edgefl.transports.settings import PASSWORD

FREE = Wanted(Path("/nowhere"))


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


# Sensors

AC = {"sys/class/power_supply/AC/type": "Mains", "sys/class/power_supply/AC/online": "1"}
NO_AC = {**AC, "sys/class/power_supply/AC/online": "0"}
BATTERY = {"sys/class/power_supply/BAT0/type": "Battery", "sys/class/power_supply/BAT0/status": "Discharging"}
CHARGING = {**BATTERY, "sys/class/power_supply/BAT0/status": "Charging"}
MOUSE = {
    "sys/class/power_supply/hid/type": "Battery", "sys/class/power_supply/hid/scope": "Device",
    "sys/class/power_supply/hid/status": "Discharging",
}  # fmt: skip


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None), (AC, True), ({**NO_AC, **BATTERY}, False), ({**AC, **BATTERY}, True), (BATTERY, False),
        (CHARGING, True), ({**AC, **MOUSE}, True), (MOUSE, None), (NO_AC, None),
    ],
)  # fmt: skip
def test_power(tmp_path, files, expected):
    assert sensors.on_mains(tree(tmp_path, files)) is expected


def test_temperature_is_that_of_the_hottest_zone_that_answers(tmp_path):
    assert sensors.celsius(tmp_path) is None
    zones = {f"sys/class/thermal/thermal_zone{i}/temp": text for i, text in enumerate(["41500", "72900", "", "broken"])}
    assert sensors.celsius(tree(tmp_path, zones)) == 72.9
    (tmp_path / "sys/class/thermal/thermal_zone9/temp").mkdir(parents=True)  # a driver that answers with an error
    assert sensors.celsius(tmp_path) == 72.9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", ""), ("50005", "under-voltage, the processor is throttled"), ("0x4", "the processor is throttled"),
        ("50000", ""), ("what", None),
    ],
)  # fmt: skip
def test_throttling_from_the_kernel(tmp_path, text, expected):
    """The high bits only tell that it has happened since the start."""
    for bus in ("soc/soc", "soc@107c000000/soc@107c000000"):
        root = tmp_path / bus.partition("/")[0]
        assert sensors.throttled(tree(root, {f"sys/devices/platform/{bus}:firmware/get_throttled": text})) == expected


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_throttling_and_metered_links_from_programs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path, "vcgencmd", "echo throttled=0x1")
    assert sensors.throttled(tmp_path) == "under-voltage"
    program(tmp_path, "vcgencmd", "echo failed; exit 1")
    assert sensors.throttled(tmp_path) is None
    found = []
    for answer in ("u 1", "u 3", "u 4", "u 2", "u 0", "rubbish"):
        program(tmp_path, "busctl", f"echo {answer}")
        found.append(sensors.metered())
    assert found == [True, True, False, False, None, None]
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert (sensors.throttled(tmp_path), sensors.metered()) == (None, None)


def test_memory_of_the_machine_or_of_its_control_group(tmp_path):
    assert (sensors.memory(tmp_path), sensors.free_memory(tmp_path)) == (None, None)
    tree(tmp_path, {"proc/meminfo": "MemTotal:  437000 kB\nMemFree: 1 kB\nMemAvailable:  200000 kB"})
    assert (sensors.memory(tmp_path), sensors.free_memory(tmp_path)) == (437_000 * 1024, 200_000 * 1024)
    tree(tmp_path, {"proc/self/cgroup": "0::/system.slice/edgefl-agent.service"})
    limit = "sys/fs/cgroup/system.slice/edgefl-agent.service/memory.max"
    assert sensors.memory(tree(tmp_path, {limit: "max"})) == 437_000 * 1024
    assert sensors.memory(tree(tmp_path, {limit: "100000000"})) == 100_000_000


def test_disk():
    free, total = sensors.disk(Path("/"))
    assert 0 <= free <= total
    assert sensors.disk(Path("/nowhere/at/all")) is None


# Programs


def test_a_program_has_no_shell_no_password_little_to_say_and_no_time(tmp_path, monkeypatch):
    monkeypatch.setenv(PASSWORD, "s3kr1t")
    assert run(["echo", "$HOME; true"], 5.0) == Answer(0, "$HOME; true")
    assert "s3kr1t" not in run(["env"], 5.0).line + run(["sh", "-c", f"echo ${PASSWORD}"], 5.0).line
    assert run(["sh", "-c", "printf 'a\\033[1mb\\nnext'; exit 3"], 5.0) == Answer(3, "a [1mb")
    assert len(run(["sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x"], 5.0).line) == MAX_BYTES
    assert run([str(tmp_path / "none")], 5.0) == Answer(None, "can't be started: No such file or directory")
    began = time.monotonic()
    assert run(["sh", "-c", "sleep 60 & sleep 60"], 0.3) == Answer(None, "has not ended within 0.3 s")
    assert run(["yes"], 0.3).code is None
    assert time.monotonic() - began < 5


# The decision

MAINS, HOT = replace(FREE, mains_only=True), replace(FREE, max_celsius=75.0)
THROTTLED, UNMETERED = replace(FREE, pause_when_throttled=True), replace(FREE, unmetered_only=True)
ASKS = replace(FREE, pause_command=("ask",))


def why(wanted: Wanted, seen: Readings) -> tuple[str, str]:
    found = next(iter(reasons(wanted, seen, {}, 0.0).values()), None)
    return ("", "") if found is None else tuple(found.why)


@pytest.mark.parametrize(
    ("wanted", "seen", "code", "text"),
    [
        (FREE, Readings(), "", ""),
        (FREE, Readings(False, 99.0, "throttled", True, command=Answer(1, "no")), "", ""),  # none of it is wanted
        (MAINS, Readings(), "", ""),
        (MAINS, Readings(on_mains=True), "", ""),
        (MAINS, Readings(on_mains=False), "power", "on battery"),
        (HOT, Readings(celsius=75.0), "", ""),
        (HOT, Readings(celsius=75.6), "heat", "76 °C, the limit is 75"),
        (THROTTLED, Readings(throttled=""), "", ""),
        (THROTTLED, Readings(throttled="under-voltage"), "heat", "under-voltage"),
        (UNMETERED, Readings(metered=False), "", ""),
        (UNMETERED, Readings(metered=True), "metered", "its link is metered"),
        (FREE, Readings(free_disk=9 * MB, min_free_disk=9 * MB), "", ""),
        (FREE, Readings(free_disk=8 * MB, min_free_disk=9 * MB), "room", "8 MB of disk space are free, 9 are kept"),
        (FREE, Readings(free_memory=8 * MB, min_free_memory=9 * MB), "room", "8 MB of memory are free, 9 are kept"),
        (ASKS, Readings(command=Answer(0, "chatter")), "", ""),
        (ASKS, Readings(command=Answer(1, "film night")), "busy", "film night"),
        (ASKS, Readings(command=Answer(7, "")), "busy", "pause_command ended with 7"),
        (ASKS, Readings(command=Answer(None, "has not ended within 10 s")), "busy",
         "pause_command has not ended within 10 s"),
    ],
)  # fmt: skip
def test_decision(wanted, seen, code, text):
    assert why(wanted, seen) == (code, text)
    assert not code or code in CODES


def run_of(wanted: Wanted, seen: list[Readings], step_s: float) -> list[bool]:
    """Whether the device is paused after each reading."""
    found, last = [], {}
    for i, reading in enumerate(seen):
        last = reasons(wanted, reading, last, i * step_s)
        found.append(bool(last))
    return found


def test_heat_and_memory_and_disk_have_a_margin_and_a_minute():
    heat = [Readings(celsius=c) for c in (74, 76, 74, 71, 69.9, 74)]
    assert run_of(HOT, heat, HOLD_S) == [False, True, True, True, False, False]
    memory = [Readings(free_memory=mb * MB, min_free_memory=100 * MB) for mb in (100, 99, 149, 150, 100)]
    assert run_of(FREE, memory, HOLD_S) == [False, True, True, False, False]
    disk = [Readings(free_disk=mb * MB, min_free_disk=100 * MB) for mb in (99, 109, 111)]
    assert run_of(FREE, disk, HOLD_S) == [True, True, False]
    throttled = [Readings(throttled=text) for text in ("x", "", "", "")]
    assert run_of(THROTTLED, throttled, HOLD_S / 2) == [True, True, False, False]
    mains = [Readings(on_mains=on) for on in (False, True, False)]
    assert run_of(MAINS, mains, 1.0) == [True, False, True], "of what training does not change, nothing is held"


def test_a_reason_keeps_its_first_number_as_each_other_would_be_published():
    first = reasons(HOT, Readings(celsius=80), {}, 0.0)
    assert reasons(HOT, Readings(celsius=81), first, 5.0) == first
    first = reasons(ASKS, Readings(command=Answer(1, "film")), {}, 0.0)
    assert reasons(ASKS, Readings(command=Answer(1, "game")), first, 5.0)["command"].why.text == "game"


def test_a_sensor_that_hangs_pauses_and_holds_nobody_up():
    hang = [True]

    def read(wanted: Wanted) -> Readings:
        while hang[0]:
            time.sleep(0.01)
        return Readings(celsius=20)

    governor = Governor(HOT, read)
    began = time.monotonic()
    assert governor.look(0.0).code == "busy", "not before the first reading"
    assert governor.look(HUNG_S).text == "a sensor has not answered for 30 s"
    assert time.monotonic() - began < 1
    hang[0] = False
    eventually(lambda: governor.look(HUNG_S + 1) is None)


def test_sensors_are_read_every_few_seconds_only():
    seen = []
    governor = Governor(FREE, lambda wanted: seen.append(1) or Readings())
    for tenth in range(int(LOOK_S * 20)):
        governor.look(tenth / 10)
    assert len(seen) == 2


# Defaults


def test_defaults_are_shares_of_the_machine(tmp_path, monkeypatch):
    """A Pi Zero 2 has 512 MB, of which Linux has about 430."""
    root = tree(tmp_path, {"proc/meminfo": "MemTotal:  437000 kB\nMemAvailable:  200000 kB"})
    seen = read_all(Wanted(tmp_path), root)
    assert seen.min_free_memory == pytest.approx(26.7 * MB, rel=0.01) and seen.free_memory == 200_000 * 1024
    assert 0 < seen.min_free_disk <= 256 * MB
    limits = LimitsConfig()
    for total, model, arena in ((437_000, 26.7, 106.7), (900_000, 54.9, 219.7), (8_000_000, 64, 256)):
        monkeypatch.setattr(sensors, "memory", lambda total=total: total * 1024)
        assert limits.model_bytes() / MB == pytest.approx(model, abs=0.1)
        assert limits.arena_bytes() / MB == pytest.approx(arena, abs=0.1)
        needed = limits.arena_bytes() + 4 * limits.model_bytes()  # as the unit's MemoryMax says
        assert needed <= total * 1024 / 2 + MB
    assert LimitsConfig(max_model_mb=3, max_arena_mb=5).model_bytes() == 3 * MB


def test_a_machine_without_sensors_asks_no_driver_and_pauses_nothing(tmp_path):
    assert not Wanted(tmp_path).may_block
    assert reasons(Wanted(tmp_path), read_all(Wanted(tmp_path), tmp_path), {}, 0.0) == {}


# An agent


def test_an_agent_trains_only_while_the_owners_program_lets_it(tmp_path, shared_mosquitto, monkeypatch):
    """Its status says why not; and it goes on by itself."""
    shares = []
    monkeypatch.setattr(Trainer, "set_cpu_percent", lambda trainer, percent: shares.append(percent))
    gate = program(tmp_path, "gate", f"test -e {tmp_path}/open && exit 0; echo film night; exit 1")
    federation = Federation(tmp_path, shared_mosquitto.url, "governed")
    rounds = {"rounds": 1, "deadline_s": 10.0, "min_reports": 1, "expect": 1}
    try:
        aggregator = federation.aggregator(rounds=rounds)
        agent = federation.agent("a", limits={"pause_command": [str(gate)], "cpu_percent": 50})
        session = agent.host.machine
        eventually(lambda: session.status.paused and session.status.paused.code == "busy", 10)
        eventually(lambda: session.status.paused.text == "film night", 10)
        assert not aggregator.join(1.0)
        (tmp_path / "open").touch()
        assert aggregator.join(30.0) and aggregator.error is None
        assert session.status.paused is None and shares == [50]
    finally:
        federation.close()


def test_a_pause_gives_the_memory_of_training_back(tmp_path, shared_mosquitto):
    federation = Federation(tmp_path, shared_mosquitto.url, "released")
    pause = tmp_path / "pause"
    rounds = {"rounds": 1, "deadline_s": 10.0, "min_reports": 1, "expect": 1}
    try:
        aggregator = federation.aggregator(rounds=rounds)
        agent = federation.agent("a", pause_file=str(pause), limits={"threads": 2})
        assert aggregator.join(30.0)
        worker = agent.host._worker
        assert worker._trainer is not None and worker._source._dataset is not None
        assert worker._trainer.threads == 2
        pause.touch()
        eventually(lambda: worker._trainer is None and worker._source._dataset is None)
    finally:
        federation.close()
