"""What ships beside mosquitto for a federation without keys: its sample configuration and the ACL."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from brokers import Mosquitto, free_port, password_file
from enrolled import made

from edgefl.keys import broker_files
from edgefl.transports.mqtt import Message, Refused, TlsConfig

BROKER = Path(__file__).resolve().parent.parent.parent / "broker"


def shipped_config(folder: Path, *, tls_port: int) -> str:
    """The sample with its paths and port moved, as text to add to a test's own plain listener."""
    text = (BROKER / "mosquitto.conf").read_text()
    text = text.replace("listener 8883", f"listener {tls_port} 127.0.0.1")
    text = text.replace("/etc/mosquitto/certs/", f"{folder}/").replace("/etc/mosquitto/", f"{folder}/")
    text = re.sub(r"^#(password_file )", r"\1", text, flags=re.MULTILINE)
    shutil.copy(BROKER / "acl", folder / "edgefl.acl")
    (folder / "edgefl.acl").chmod(0o600)
    # Mosquitto.__init__ names these two for its own listener.
    return re.sub(r"^(persistence|max_packet_size) .*\n", "", text, flags=re.MULTILINE)


def settings_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_samples_say_what_the_generated_files_say():
    """Apart from the guard, the list of revoked certificates, and that they are for any federation."""
    conf, acl = ((BROKER / name).read_text() for name in ("mosquitto.conf", "acl"))
    generated = settings_of(broker_files.mosquitto_conf("fleet", "edgefl/2", home="/etc/mosquitto/certs"))
    ours = [line for line in generated if not re.match("plugin|crlfile|check_retain_source", line)]
    assert [line for line in settings_of(conf) if "acl_file" not in line] == [
        line for line in ours if "acl_file" not in line
    ]
    any_federation = settings_of(broker_files.acl("fleet", "edgefl/2").replace("edgefl/2/fleet", "edgefl/2/+"))
    assert settings_of(acl)[2:] == any_federation[2:]
    assert (settings_of(acl)[1], any_federation[1]) == ("topic readwrite edgefl/#", "topic readwrite edgefl/2/+/#")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `edgefl keys` makes for a broker called localhost and these clients, under the names that the sample has."""
    folder = tmp_path_factory.mktemp("certificates")
    keys = made(folder / "keys", "pi-01")
    for name, path in (("aggregator", keys / "aggregator" / "aggregator"), ("pi-01", keys / "pi-01" / "device")):
        for ending in ("crt", "key"):
            shutil.copy(f"{path}.{ending}", folder / f"{name}.{ending}")
    for path in (keys / "broker" / "server.crt", keys / "broker" / "server.key", keys / "root" / "ca.crt"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def broker(certificates: Path):
    """mosquitto as shipped: TLS with certificates on one port, password users on a plain one."""
    users = {"aggregator": "a", "pi-01": "b", "pi-02": "c"}
    password_file(certificates, users).rename(certificates / "edgefl.passwd")
    tls_port = free_port()
    with Mosquitto(shipped_config(certificates, tls_port=tls_port), persistence=True) as mosquitto:
        mosquitto.tls_url = f"mqtts://localhost:{tls_port}"
        mosquitto.users = users
        yield mosquitto


@pytest.fixture
def login(broker, link):
    """Links of password users, already up."""

    def make(user: str):
        one = link(broker.url.replace("//", f"//{user}:{broker.users[user]}@"), user, session_expiry_s=0)
        one.up()
        return one

    return make


def test_a_device_speaks_for_itself_only(login):
    aggregator, one = login("aggregator"), login("pi-01")
    aggregator.subscribe(["edgefl/#"])
    for topic in ("edgefl/2/f/d/pi-01/status", "edgefl/2/f/d/pi-01/u/3/0"):
        assert one.said(topic, b"mine").ok
        assert aggregator.heard(topic).payload == b"mine"
    denied = [
        "edgefl/2/f/d/pi-02/status",
        "edgefl/2/f/d/pi-02/u/3/0",
        "edgefl/2/f/manifest",
        "edgefl/2/f/round",
        "edgefl/2/f/model/1/0",
        "edgefl/2/f/device",
        "elsewhere",
    ]
    for topic in denied:
        published = one.said(topic, b"forged")
        assert (published.ok, published.reason) == (False, "Not authorized"), topic
    assert aggregator.inbox.quiet(Message) == []


def test_a_device_reads_what_is_for_all_and_its_own_inbox(login):
    aggregator, one, two = login("aggregator"), login("pi-01"), login("pi-02")
    one.subscribe(["edgefl/2/f/manifest", "edgefl/2/f/round", "edgefl/2/f/model/+/+"])
    one.subscribe(["edgefl/2/f/d/pi-01/inbox", "edgefl/2/f/d/pi-01/status"])
    two.subscribe(["edgefl/2/f/d/pi-01/inbox", "edgefl/2/f/d/+/u/#", "edgefl/2/f/d/+/status", "edgefl/#"])
    assert one.inbox.quiet(Refused) == []
    topics = ["manifest", "round", "model/1/0", "d/pi-01/inbox"]
    for topic in topics:
        assert aggregator.said(f"edgefl/2/f/{topic}", b"x").ok
        one.heard(f"edgefl/2/f/{topic}")
    assert one.said("edgefl/2/f/d/pi-01/status", b"here").ok
    one.heard("edgefl/2/f/d/pi-01/status")
    login("pi-01").said("edgefl/2/f/d/pi-01/u/1/0", b"private")
    heard = {message.topic for message in two.inbox.quiet(Message)}
    assert heard <= {f"edgefl/2/f/{topic}" for topic in topics[:3]}, "nothing of another device"


def test_certificates_of_edgefl_keys_let_a_client_in_under_its_name(broker, certificates, link):
    def files(name: str) -> TlsConfig:
        return TlsConfig(*(str(certificates / file) for file in ("ca.crt", f"{name}.crt", f"{name}.key")))

    device = link(broker.tls_url, "pi-01", tls=files("pi-01"))
    assert device.up().max_packet_bytes == 1 << 20
    assert device.said("edgefl/2/f/d/pi-01/status", b"here").ok
    assert not device.said("edgefl/2/f/d/pi-02/status", b"forged").ok
    big = bytes(range(256)) * 2048
    aggregator = link(broker.tls_url, "aggregator", tls=files("aggregator"))
    aggregator.up()
    aggregator.subscribe(["edgefl/2/f/d/+/u/#"])
    for part in range(8):
        device.publish(f"edgefl/2/f/d/pi-01/u/1/{part}", big)
    assert [aggregator.inbox.wait(Message).payload == big for _ in range(8)] == [True] * 8


@pytest.mark.parametrize("files", ["none", "ca only"])
def test_without_a_certificate_nobody_gets_in(broker, certificates, link, files):
    from edgefl.transports.mqtt import Down, Up

    tls = TlsConfig(ca=str(certificates / "ca.crt")) if files == "ca only" else None
    stranger = link(broker.tls_url, "stranger", tls=tls)
    stranger.start()
    down = stranger.inbox.wait(Down)
    assert stranger.inbox.quiet(Up) == []
    if files == "none":
        assert down.reason.startswith("TLS: "), "the system's authorities did not sign this broker"
