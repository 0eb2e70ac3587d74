"""TLS that fails, on a real mosquitto with the files of `edgefl keys`: the link says why, in words for an operator."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Mosquitto, free_port
from enrolled import DAY_S, made, served, tls

from edgefl.keys import enrolment
from edgefl.transports.endpoint import TlsConfig
from edgefl.transports.mqtt import Down, Up


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ours`, whose device pi-02 is revoked; `theirs`, another federation; `old`, with expired certificates."""
    home, port = tmp_path_factory.mktemp("keys"), free_port()
    made(home / "ours", "pi-01", "pi-02", port=port)
    enrolment.revoke_names(home / "ours", ["pi-02"])
    made(home / "theirs", "pi-01")
    return home


@pytest.fixture(scope="module")
def broker(folders: Path) -> Iterator[Mosquitto]:
    with Mosquitto(served(folders / "ours")) as one:
        yield one


def url(folders: Path, host: str = "localhost") -> str:
    from edgefl.keys.folder import opened

    with opened(folders / "ours") as folder:
        return f"mqtts://{host}:{folder.settings.port}"


def test_an_enrolled_device_is_let_in(broker: Mosquitto, folders: Path, link: Any) -> None:
    assert link(url(folders), "pi-01", tls=tls(folders / "ours" / "pi-01")).up().protocol == "5"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize(
    ("whose", "authority", "text"),
    [
        ("ours/pi-02", "ours", "our certificate is revoked"),
        ("theirs/pi-01", "ours", "it belongs to another federation"),
        ("theirs/pi-01", "theirs", "not from the authority of [mqtt] ca"),
        (None, "ours", "the broker wants a certificate"),
    ],
)
def test_the_link_says_why_it_is_turned_away(
    broker: Mosquitto, folders: Path, link: Any, protocol: str, whose: str | None, authority: str, text: str
) -> None:
    ca = str(folders / authority / "root" / "ca.crt")
    mine = tls(folders / whose) if whose else TlsConfig()
    stranger = link(url(folders), "pi-01", tls=TlsConfig(ca, mine.cert, mine.key), protocol=protocol)
    began = time.monotonic()
    stranger.start()
    for _ in range(3):
        down = stranger.inbox.wait(Down)
        assert down.reason.startswith("TLS: ") and text in down.reason
    assert time.monotonic() - began < 30.0
    assert stranger.inbox.quiet(Up) == []


def test_a_refused_certificate_is_not_taken_for_a_broker_that_knows_no_mqtt_5(
    broker: Mosquitto, folders: Path, link: Any
) -> None:
    stranger = link(url(folders), "pi-02", tls=tls(folders / "ours" / "pi-02"))
    tried = []
    versions, learn = stranger._versions, stranger._versions.learn
    versions.learn = lambda **told: (tried.append(versions.current), learn(**told))
    stranger.start()
    for _ in range(3):
        stranger.inbox.wait(Down)
    assert set(tried) == {"5"}


def test_a_broker_with_another_name_is_not_trusted(broker: Mosquitto, folders: Path, link: Any) -> None:
    stranger = link(url(folders, "127.0.0.1"), "pi-01", tls=tls(folders / "ours" / "pi-01"))
    stranger.start()
    assert "for another address than that in [mqtt] url" in stranger.inbox.wait(Down).reason


@pytest.mark.parametrize(
    ("shift_days", "text"), [(-900, "the broker's certificate has expired"), (2, "not yet valid: is this machine's")]
)
def test_a_brokers_certificate_that_does_not_hold_is_named(
    tmp_path: Path, link: Any, shift_days: int, text: str
) -> None:
    port = free_port()
    keys = made(tmp_path / "keys", "pi-01", at=time.time() + shift_days * DAY_S, port=port)
    with Mosquitto(served(keys)):
        stranger = link(f"mqtts://localhost:{port}", "pi-01", tls=tls(keys / "pi-01"))
        stranger.start()
        assert text in stranger.inbox.wait(Down).reason


def test_a_broker_that_finds_our_certificate_expired_says_so(tmp_path: Path, link: Any) -> None:
    port = free_port()
    keys = made(tmp_path / "keys", "pi-01", at=time.time() - 900 * DAY_S, port=port)
    enrolment.renew_broker(keys)
    with Mosquitto(served(keys)):
        stranger = link(f"mqtts://localhost:{port}", "pi-01", tls=tls(keys / "pi-01"))
        stranger.start()
        assert "the broker says that our certificate has expired" in stranger.inbox.wait(Down).reason
