"""A batch in the operator's folder: what is written, what an interrupted approval leaves, and bad input of a claim."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from edgefl_agent import claim as device
from enrolled import roster, unpack

from edgefl.errors import EdgeFLError, UsageError
from edgefl.keys import batches, enrolment
from edgefl.protocol.enrol import Approval, Ask
from edgefl.trust.ed25519 import SigningKey
from edgefl.trust.key_files import read_public


def ask_of(keys: Path, tmp_path: Path, archive: Path, name: str = "pi-x") -> tuple[Path, Ask]:
    """A device's folder, and its request as the aggregator writes it down."""
    folder = tmp_path / name
    folder.mkdir()
    unpack(archive, folder)
    ask = Ask.of(device._request(folder), SigningKey(device._seed(folder)), name, "f")
    asked = tmp_path / "claims"
    asked.mkdir(exist_ok=True)
    (asked / f"{ask.id}.json").write_bytes(archive.stem.encode() + b"\n" + msgspec.json.encode(ask))
    return asked, ask


@pytest.fixture
def archive(keys: Path) -> Path:
    return batches.begin(keys, 3, 30, enrolment.Terms(max_examples=500, canary=True), "pi-")


def test_what_a_batch_writes_and_where_its_token_is_not(keys: Path, archive: Path, tmp_path: Path) -> None:
    ticket = json.loads((unpack(archive, tmp_path / "image") / "enrol.json").read_text())
    assert ticket["batch"] == archive.stem and ticket["url"] == "mqtts://broker.example.org:8884"
    assert archive.stat().st_mode & 0o077 == 0
    for path in keys.rglob("*"):
        if path.is_file() and path != archive:
            assert ticket["token"].encode() not in path.read_bytes(), path
    assert (keys / "broker" / "batches").read_text().startswith(f"{archive.stem}:$7$")
    assert set(json.loads((keys / "aggregator" / "batches.json").read_text())) == {archive.stem}
    assert not (keys / "broker" / "enrol.conf").read_text().count("use_username_as_clientid")


def test_an_approval_is_sealed_for_these_keys_and_carries_the_batchs_terms(
    keys: Path, archive: Path, tmp_path: Path
) -> None:
    asked, ask = ask_of(keys, tmp_path, archive)
    (done,) = batches.approve(keys, asked, [ask.id])
    raw = (keys / "aggregator" / "approved" / f"{ask.id}.json").read_bytes()
    root = read_public(keys / "aggregator" / "root.pub")
    assert Approval.open(raw, root, ask.id).name == done.name == "pi-x"
    with pytest.raises(EdgeFLError):
        Approval.open(raw, root, "batch-" + "0" * 16)
    member = roster(keys).devices["pi-x"]
    assert (member.key, member.max_examples, member.canary) == (ask.key, 500, True)


def test_an_approval_that_was_interrupted_waits_and_is_made_again(
    keys: Path, archive: Path, tmp_path: Path, monkeypatch
) -> None:
    asked, ask = ask_of(keys, tmp_path, archive)
    write = batches.write_private

    def fail(path: Path, data: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(batches, "write_private", fail)
    with pytest.raises(KeyboardInterrupt):
        batches.approve(keys, asked, [ask.id])
    monkeypatch.setattr(batches, "write_private", write)
    assert [one.state for one in batches.claims(keys, asked)] == ["waiting"]
    assert "pi-x" not in roster(keys).devices
    assert [one.name for one in batches.approve(keys, asked, [], every=True)] == ["pi-x"]
    assert [one.state for one in batches.claims(keys, asked)] == ["approved"]
    assert "pi-x" in roster(keys).devices


def test_what_a_token_holder_forges_is_refused(keys: Path, archive: Path, tmp_path: Path) -> None:
    asked, ask = ask_of(keys, tmp_path, archive)
    other = SigningKey(b"x" * 32)
    forged = msgspec.structs.replace(ask, key=Ask.of(ask.csr, other, "pi-x", "f").key)
    (asked / f"{forged.id}.json").write_bytes(archive.stem.encode() + b"\n" + msgspec.json.encode(forged))
    unread = Ask.of("no request", other, "pi-y", "f")
    (asked / f"{unread.id}.json").write_bytes(archive.stem.encode() + b"\n" + msgspec.json.encode(unread))
    foreign = Ask.of(ask.csr, other, "aggregator", "f")
    (asked / f"{foreign.id}.json").write_bytes(b"batch-00000000\n" + msgspec.json.encode(foreign))
    found = {one.id: one for one in batches.claims(keys, asked)}
    assert found[ask.id].state == "waiting"
    for bad in (forged, unread, foreign):
        assert found[bad.id].state == "refused" and found[bad.id].why
        with pytest.raises(UsageError, match="can't be enrolled"):
            batches.approve(keys, asked, [bad.id])


def test_a_device_that_lost_power_while_it_made_its_keys_makes_them(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each moment that something is made durable: beside its name, which it gets when it is whole."""
    for number in range(12):
        folder, left, synced = unpack(archive, tmp_path / f"device-{number}"), [number], set()

        def fsync(descriptor: int, left: list[int] = left, synced: set[str] = synced) -> None:
            synced.add(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.split(f".{os.getpid()}")[0])
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fsync)
            with suppress(KeyboardInterrupt):
                device._seed(folder), device._request(folder)
        seed, csr = device._seed(folder), device._request(folder)
        Ask.of(csr, SigningKey(seed), "pi-x", "f").check("f")
        key = serialization.load_pem_private_key((folder / "device.key").read_bytes(), None)
        assert key.public_key() == x509.load_pem_x509_csr(csr.encode()).public_key()
        if left[0] >= 0:
            assert synced == {folder.name, ".signing.key", ".device.key", ".device.csr"}
            return
    pytest.fail("no end")


def test_a_claim_without_the_images_files_or_openssl_says_what_to_do(
    keys: Path, archive: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    assert device.main(["--dir", str(tmp_path)]) == 2
    assert "edgefl keys batch" in capsys.readouterr().err
    folder = unpack(archive, tmp_path / "device")
    monkeypatch.setenv("PATH", "")
    assert device.main(["--dir", str(folder), "--timeout", "1"]) == 2
    assert "apt-get install openssl" in capsys.readouterr().err
    (folder / "signing.key").chmod(0o644)
    assert device.main(["--dir", str(folder), "--timeout", "1"]) == 2
    assert "signing.key" in capsys.readouterr().err
