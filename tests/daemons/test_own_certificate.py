"""A daemon looks at its own certificate before it connects: what a restart can't mend ends it with exit code 2."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from brokers import eventually
from edgefl_broker.aggregator import Aggregator
from edgefl_broker.progress import Silent
from enrolled import DAY_S, made, tls, unpack

from edgefl.errors import UsageError
from edgefl.hosting import own_certificate
from edgefl.hosting.config import AggregatorConfig
from edgefl.hosting.own_certificate import check
from edgefl.keys.enrolment import Terms
from edgefl.onnx import zoo
from edgefl.settings import files
from edgefl.transports.endpoint import TlsConfig
from edgefl.trust.key_files import read_file


@pytest.fixture(autouse=True)
def trusted_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFL_TRUST_CLOCK", "1")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("certificates") / "keys", "pi-01", "pi-02", days=100)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("certificates") / "others", "pi-01", days=100)


def test_a_certificate_of_ours_is_accepted(keys: Path) -> None:
    assert check(tls(keys / "pi-01"), "pi-01") == ""
    assert check(tls(keys / "aggregator", "aggregator"), "aggregator") == ""
    assert check(TlsConfig(), "pi-01") == check(None, "pi-01") == "", "a client with a password"


@pytest.mark.parametrize(
    ("ca", "cert", "key", "text"),
    [
        ("keys", "keys/pi-02", "keys/pi-02", "is the certificate of 'pi-02', and must be that of 'pi-01'"),
        ("others", "keys/pi-01", "keys/pi-01", "is foreign: the authority of "),
        ("keys", "others/pi-01", "others/pi-01", "is foreign: the authority of "),
        ("keys", "keys/pi-01", "keys/pi-02", "do not belong together"),
        ("keys", "keys/pi-01", "nowhere", "can't read the key"),
        ("keys", "nowhere", "keys/pi-01", "can't read the certificate"),
        ("nowhere", "keys/pi-01", "keys/pi-01", "can't read the authority's certificate"),
    ],
)
def test_files_that_do_not_fit_are_named(
    keys: Path, others: Path, ca: str, cert: str, key: str, text: str, tmp_path: Path
) -> None:
    def find(name: str, file: str) -> str:
        folder, _, device = name.partition("/")
        return str({"keys": keys, "others": others}.get(folder, tmp_path / "nowhere") / (device or "pi-01") / file)

    mixed = TlsConfig(find(ca, "ca.crt"), find(cert, "device.crt"), find(key, "device.key"))
    with pytest.raises(UsageError) as caught:
        check(mixed, "pi-01")
    assert text in str(caught.value)
    assert any(str(folder) in str(caught.value) for folder in (keys, others, tmp_path)), "it names the file"


@pytest.mark.parametrize("name", ["ca.crt", "device.crt", "device.key"])
def test_noise_in_a_file_is_named(keys: Path, tmp_path: Path, name: str) -> None:
    for one in ("ca.crt", "device.crt", "device.key"):
        (tmp_path / one).write_bytes(read_file(keys / "pi-01" / one))
        (tmp_path / one).chmod(0o600)
    (tmp_path / name).write_bytes(b"\0noise")
    with pytest.raises(UsageError, match=f"{tmp_path}/{name}"):
        check(tls(tmp_path), "pi-01")


def test_a_key_that_others_can_read_is_refused(keys: Path, tmp_path: Path) -> None:
    unpack(keys / "devices" / "pi-01.tar", tmp_path)
    (tmp_path / "device.key").chmod(0o640)
    with pytest.raises(UsageError, match="can be read by other users"):
        check(tls(tmp_path), "pi-01")


def test_dates_count_once_the_clock_can_be_trusted(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, mine = time.time(), tls(keys / "pi-01")
    assert "expires on" in check(mine, "pi-01", now + 80 * DAY_S)
    with pytest.raises(UsageError, match="has expired on"):
        check(mine, "pi-01", now + 101 * DAY_S)
    assert "no connection until the clock is set" in check(mine, "pi-01", now - DAY_S), "a Pi that boots in the past"
    monkeypatch.setattr(own_certificate, "is_trusted", lambda unix_s: False)
    assert "expires on" in check(mine, "pi-01", now + 101 * DAY_S), "and one that boots in the future"


def test_without_keys_only_the_dates_of_a_certificate_count(keys: Path, others: Path) -> None:
    mixed = TlsConfig(str(others / "pi-01" / "ca.crt"), tls(keys / "pi-01").cert, tls(keys / "pi-01").key)
    assert check(mixed, None) == "", "AWS IoT Core has other authorities for brokers and for devices"
    with pytest.raises(UsageError, match="has expired on"):
        check(mixed, None, time.time() + 101 * DAY_S)


# ---- both programs


def ends_with(words: list[str]) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


def enrolled_agents(folder: Path, *names: str, at: float | None = None) -> Path:
    """A folder of keys with these devices, whose agents find their examples."""
    np.savez(folder / "data.npz", x=np.eye(4, dtype=np.float32), y=np.arange(4) % 2)
    return made(folder / "keys", *names, at=at, terms=Terms(f"npz:{folder}/data.npz"))


def agent_of(home: Path) -> list[str]:
    return ["edgefl_agent", "--config", str(home / "agent.toml"), "--set", f"state_dir={home / 'state'}"]


def test_an_agent_with_an_expired_certificate_says_so_and_stays_down(tmp_path: Path) -> None:
    keys = enrolled_agents(tmp_path, "pi-01", at=time.time() - 900 * DAY_S)
    began = time.monotonic()
    code, said = ends_with(agent_of(keys / "pi-01"))
    assert (code, "device.crt has expired on" in said) == (2, True), said
    assert time.monotonic() - began < 30.0


@pytest.mark.parametrize(("whose", "text"), [("pi-02", "must be that of 'pi-01'"), ("foreign", "is foreign")])
def test_an_agent_with_the_certificate_of_another_stays_down(tmp_path: Path, whose: str, text: str) -> None:
    keys = enrolled_agents(tmp_path, "pi-01", "pi-02")
    theirs = keys / "pi-02" if whose == "pi-02" else made(tmp_path / "others", "pi-01") / "pi-01"
    for name in ("device.crt", "device.key"):
        (keys / "pi-01" / name).write_bytes((theirs / name).read_bytes())
    code, said = ends_with(agent_of(keys / "pi-01"))
    assert (code, text in said) == (2, True), said


@pytest.mark.parametrize("missing", ["device.crt", "device.key", "ca.crt", "root.pub", "signing.key"])
def test_an_agent_that_lacks_a_file_of_its_bundle_stays_down(tmp_path: Path, missing: str) -> None:
    home = enrolled_agents(tmp_path, "pi-01") / "pi-01"
    (home / missing).unlink()
    code, said = ends_with(agent_of(home))
    assert (code, missing in said) == (2, True), said


AGGREGATORS = ["ca.crt", "aggregator.crt", "aggregator.key", "root.pub", "signer.key", "signer.json", "roster.json"]


@pytest.mark.parametrize("damage", ["missing", "noise", "another"])
@pytest.mark.parametrize("name", AGGREGATORS)
def test_an_aggregator_with_a_bad_file_stays_down(
    keys: Path, others: Path, tmp_path: Path, name: str, damage: str
) -> None:
    home = tmp_path / "aggregator"
    shutil.copytree(keys / "aggregator", home)
    (tmp_path / "start.onnx").write_bytes(zoo.mlp([2, 2]).SerializeToString())
    if damage == "missing":
        (home / name).unlink()
    else:
        (home / name).write_bytes((others / "aggregator" / name).read_bytes() if damage == "another" else b"\0noise")
    sets = [f"model={tmp_path}/start.onnx", f"state_dir={tmp_path}/state"]
    with pytest.raises(UsageError) as caught:
        Aggregator(files.load(home / "aggregator.toml", AggregatorConfig, sets), Silent())
    assert str(home) in str(caught.value), "it names a file"


def test_an_aggregator_with_a_devices_certificate_stays_down(tmp_path: Path) -> None:
    keys = made(tmp_path / "keys", "pi-01")
    home = keys / "aggregator"
    for ending in ("crt", "key"):
        (home / f"aggregator.{ending}").write_bytes((keys / "pi-01" / f"device.{ending}").read_bytes())
    (tmp_path / "start.onnx").write_bytes(zoo.mlp([2, 2]).SerializeToString())
    sets = [f"model={tmp_path}/start.onnx", f"state_dir={tmp_path}/state"]
    words = [word for one in sets for word in ("--set", one)]
    code, said = ends_with(["edgefl_broker", "--config", str(home / "aggregator.toml"), *words])
    assert (code, "must be that of 'aggregator'" in said) == (2, True), said


def test_an_agent_on_a_machine_that_boots_in_the_past_goes_on_trying(tmp_path: Path) -> None:
    home = enrolled_agents(tmp_path, "pi-01", at=time.time() + 10 * DAY_S) / "pi-01"
    log = tmp_path / "log"
    with open(log, "wb") as out:
        agent = subprocess.Popen([sys.executable, "-m", *agent_of(home)], stderr=out)
    try:
        eventually(lambda: "no connection until the clock is set" in log.read_text(), 30.0)
        eventually(lambda: "cannot reach MQTT broker" in log.read_text(), 30.0)
        assert agent.poll() is None
    finally:
        agent.terminate()
        assert agent.wait(20.0) == 0


@pytest.mark.parametrize(
    "text",
    ["Jun  9 12:00:00 2027 GMT", "Dec 31 23:59:59 2049 GMT", "Feb 29 00:00:01 2028 GMT", "Jan  1 00:00:00 1970 GMT"],
)
def test_the_dates_of_a_certificate_are_read_as_by_ssl(text):
    assert own_certificate._unix_s(text) == ssl.cert_time_to_seconds(text)


def test_every_month_is_known():
    for month in range(1, 13):
        text = time.strftime("%b %d %H:%M:%S %Y GMT", (2030, month, 15, 6, 7, 8, 0, 0, 0))
        assert own_certificate._unix_s(text) == ssl.cert_time_to_seconds(text)
