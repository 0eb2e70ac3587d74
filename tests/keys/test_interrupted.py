"""The operator's folder after a command that was killed at any of its writes."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import tarfile
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from enrolled import SETTINGS, Killed, certificate, killed_at, revoked_serials, roster, signer

from edgefl.keys import batches, enrolment
from edgefl.keys.federation import Federation
from edgefl.keys.report import report
from edgefl.protocol.enrol import Ask
from edgefl.trust.ed25519 import SigningKey, new_seed
from edgefl.trust.key_files import read_seed


def whole(keys: Path) -> None:
    """Everything fits together, and every certificate that is somewhere is on record."""
    found = json.loads((keys / "records.json").read_bytes())
    known = {int(one["serial"], 16) for one in found["aggregator"] + found["broker"]}
    known |= {int(c["serial"], 16) for one in found["members"].values() for c in one["certificates"]}
    for crt, key in (
        ("aggregator/aggregator.crt", "aggregator/aggregator.key"),
        ("broker/server.crt", "broker/server.key"),
    ):
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(keys / crt, keys / key)
        assert certificate(keys / crt).serial_number in known
    assert signer(keys).public == SigningKey(read_seed(keys / "aggregator" / "signer.key")).public
    enrolled = roster(keys)
    for bundle in (keys / "devices").iterdir():
        with tarfile.open(bundle) as tar:
            data = {one.name: tar.extractfile(one).read() for one in tar}
        assert x509.load_pem_x509_certificate(data["device.crt"]).serial_number in known
        if "signing.key" in data and enrolled.get(bundle.stem):
            assert enrolled.get(bundle.stem).public == SigningKey(seed_in(data["signing.key"])).public


def seed_in(data: bytes) -> bytes:
    import base64

    return base64.b64decode(data)


COMMANDS = {
    "init": lambda keys: enrolment.init(keys, SETTINGS),
    "add": lambda keys: enrolment.add(keys, ["pi-08", "pi-09"]),
    "add anew": lambda keys: enrolment.add(keys, ["pi-03"]),
    "revoke": lambda keys: enrolment.revoke_names(keys, ["pi-01"]),
    "renew": lambda keys: enrolment.renew(keys, ["pi-01", "pi-02"]),
    "aggregator": enrolment.renew_aggregator,
    "broker": enrolment.renew_broker,
    "signer": enrolment.renew_signer,
    "crl": enrolment.renew_revocations,
    "epoch": enrolment.next_epoch,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_whose_command_was_killed_stays_usable(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda number: None)  # thousands, and no power is lost here
    work, serials, first = COMMANDS[command], [], tmp_path / "first"
    if command != "init":
        enrolment.init(first, SETTINGS)
        enrolment.add(first, ["pi-01", "pi-02", "pi-03"])
        enrolment.revoke_names(first, ["pi-03"])
        serials = [roster(first).serial, signer(first).serial]
    for number in range(1, 100):
        for before in (True, False):
            keys = tmp_path / f"{number}-{before}"
            if command != "init":
                shutil.copytree(first, keys)
            if not killed_at(number, before, lambda keys=keys: work(keys), monkeypatch):
                assert number > 1
                return
            if command == "init":
                if not (keys / "federation.toml").exists():  # else it had ended
                    enrolment.init(keys, Federation(federation="f", broker="other.example.org"))
                    assert "other.example.org" in (keys / "aggregator" / "aggregator.toml").read_text()
                enrolment.add(keys, ["pi-01"])
            else:
                report(keys)
                assert [roster(keys).serial, signer(keys).serial] >= serials
                whole(keys)
                done = {name for name, one in roster(keys).devices.items() if not one.revoked}
                left = {"add": ["pi-08", "pi-09"], "add anew": ["pi-03"]}.get(command, [])
                if missing := [name for name in left if name not in done]:
                    enrolment.add(keys, missing)
                if command not in ("add", "add anew"):
                    work(keys)
                assert {"pi-01", "pi-02", *left} - {"pi-01"} <= {*roster(keys).devices}
            whole(keys)
    pytest.fail("no end")


def test_an_approval_that_was_killed_at_any_of_its_writes_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the name was half enrolled by `add`: what that bundle holds is good for nothing any more."""
    monkeypatch.setattr(os, "fsync", lambda number: None)
    for number in range(1, 100):
        for before in (True, False):
            keys, asked = tmp_path / f"{number}-{before}", tmp_path / f"{number}-{before}-claims"
            enrolment.init(keys, SETTINGS)
            batch = batches.begin(keys, 2, 30, enrolment.Terms(), "pi-").stem
            with monkeypatch.context() as patch, pytest.raises(Killed):
                patch.setattr(enrolment.Folder, "number_roster", die)
                enrolment.add(keys, ["pi-01"])
            half = {one for _, member in records_of(keys) for one in member}
            asks = [ask(asked, batch, name) for name in ("pi-01", "pi-02")]
            killed = killed_at(
                number, before, lambda keys=keys, asked=asked: batches.approve(keys, asked, [], every=True), monkeypatch
            )
            batches.approve(keys, asked, [], every=True)
            assert {one.state for one in batches.claims(keys, asked)} == {"approved"}
            assert {name: one.key for name, one in roster(keys).devices.items()} == {one.name: one.key for one in asks}
            assert half and half <= revoked_serials(keys)
            assert [name for name, member in records_of(keys) if len(member) > 3] == []
            if not killed:
                assert number > 3
                return
    pytest.fail("no end")


def die(folder: object) -> None:
    raise Killed


def records_of(keys: Path) -> list[tuple[str, list[int]]]:
    """Each name with the serial numbers of its certificates."""
    found = json.loads((keys / "records.json").read_bytes())["members"]
    return [(name, [int(c["serial"], 16) for c in one["certificates"]]) for name, one in found.items()]


def ask(folder: Path, batch: str, name: str) -> Ask:
    """A device's request, as the aggregator writes it down."""
    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    made = Ask.of(csr.public_bytes(serialization.Encoding.PEM).decode(), SigningKey(new_seed()), name, "f")
    (folder / f"{made.id}.json").write_bytes(batch.encode() + b"\n" + msgspec.json.encode(made))
    return made
