"""Requests made by somebody with a token, or on the aggregator's machine: what the operator sees and enrols."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from enrolled import certificate, revoked_serials, roster, unpack

from edgefl.cli.main import main
from edgefl.errors import UsageError
from edgefl.keys import batches, enrolment
from edgefl.protocol.enrol import Ask, shown
from edgefl.trust.ed25519 import SigningKey, new_seed


class Asked:
    """The folder of requests, of one batch. `put` writes one down as the aggregator does."""

    def __init__(self, keys: Path, folder: Path) -> None:
        self.batch = batches.begin(keys, 9, 30, enrolment.Terms(), "pi-").stem
        self.folder = folder
        folder.mkdir()

    def put(self, name: str, csr: bytes | None = None, key: SigningKey | None = None) -> Ask:
        if csr is None:
            csr = request().public_bytes(serialization.Encoding.PEM)
        ask = Ask.of(csr.decode(), key or SigningKey(new_seed()), name, "f")
        (self.folder / f"{ask.id}.json").write_bytes(self.batch.encode() + b"\n" + msgspec.json.encode(ask))
        return ask


def request() -> x509.CertificateSigningRequest:
    key = ec.generate_private_key(ec.SECP256R1())
    return x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())


@pytest.fixture
def asked(keys: Path, tmp_path: Path) -> Asked:
    return Asked(keys, tmp_path / "claims")


ODD = {
    "kind of key": ("2a8648ce3d0201", "2a8648ce3d0277"),
    "curve": ("2a8648ce3d030107", "2a8648ce3d030177"),
    "version": ("020100", "020107"),
    "signature": ("2a8648ce3d040302", "2a8648ce3d040377"),
}


@pytest.mark.parametrize("what", ODD)
def test_a_request_that_the_library_does_not_know_hides_no_other(keys: Path, asked: Asked, what: str) -> None:
    good, (true, odd) = asked.put("pi-1"), map(bytes.fromhex, ODD[what])
    der = request().public_bytes(serialization.Encoding.DER)
    assert true in der
    body = base64.encodebytes(der.replace(true, odd, 1))
    asked.put("pi-2", b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n")
    states = {one.name: one.state for one in batches.claims(keys, asked.folder)}
    assert states == {"pi-1": "waiting", "pi-2": "refused"}
    assert [one.id for one in batches.approve(keys, asked.folder, [], every=True)] == [good.id]


def test_what_a_stranger_writes_is_one_line_and_moves_no_cursor(keys: Path, asked: Asked, capsys) -> None:
    asked.put("pi-1\x1b[2K\n0000-0000-0000-0000  pi-2  waiting")
    name = "batch-" + "0" * 16
    line = (asked.folder / f"{asked.put('pi-3').id}.json").read_bytes().partition(b"\n")[2]
    (asked.folder / f"{name}.json").write_bytes(b"\x1b[2J\r\xe2\x80\xaebatch\n" + line)
    assert main(["keys", "claims", str(keys), str(asked.folder)]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 3 and all(one.isprintable() for one in out.splitlines())


def test_a_name_that_looks_like_an_id_is_not_taken_for_the_device_with_this_id(keys: Path, asked: Asked) -> None:
    """The operator approves the id that the device shows; somebody with the token asks for it as a name."""
    seed = SigningKey(new_seed())
    device = asked.put("pi-1", key=seed)
    (asked.folder / f"{device.id}.json").rename(asked.folder / "kept")
    asked.put(shown(device.id))
    with pytest.raises(UsageError, match="no device asks as"):
        batches.approve(keys, asked.folder, [shown(device.id)])
    (asked.folder / "kept").rename(asked.folder / f"{device.id}.json")
    assert [one.name for one in batches.approve(keys, asked.folder, [shown(device.id)])] == ["pi-1"]
    assert roster(keys).devices["pi-1"].key == device.key


def test_a_file_that_never_ends_or_is_none_is_not_read(keys: Path, asked: Asked) -> None:
    good = asked.put("pi-1")
    for number, target in enumerate(["/dev/zero", "/nowhere", str(keys)]):
        os.symlink(target, asked.folder / f"batch-000000000000000{number}.json")
    os.mkfifo(asked.folder / "batch-0000000000000009.json")
    with open(asked.folder / "batch-0000000000000008.json", "wb") as file:
        file.truncate(1 << 40)
    assert [one.id for one in batches.claims(keys, asked.folder)] == [good.id]


def test_a_revoked_device_is_not_enrolled_again_by_its_old_request(keys: Path, asked: Asked) -> None:
    """Nor where the approval is gone from the folder, as after it was moved instead of copied."""
    ask = asked.put("pi-1")
    batches.approve(keys, asked.folder, [ask.id])
    enrolment.revoke_names(keys, ["pi-1"])
    approval = keys / "aggregator" / "approved" / f"{ask.id}.json"
    for _ in range(2):
        (found,) = batches.claims(keys, asked.folder)
        assert (found.state, found.why) == ("refused", "it is pi-1, and revoked")
        assert batches.approve(keys, asked.folder, [], every=True) == []
        with pytest.raises(UsageError, match="revoked"):
            batches.approve(keys, asked.folder, [ask.id])
        assert roster(keys).devices["pi-1"].revoked
        approval.unlink(missing_ok=True)


def test_a_device_that_was_enrolled_anew_keeps_its_keys(keys: Path, asked: Asked) -> None:
    ask = asked.put("pi-1")
    batches.approve(keys, asked.folder, [ask.id])
    enrolment.revoke_names(keys, ["pi-1"])
    enrolment.add(keys, ["pi-1"])
    key = roster(keys).devices["pi-1"].key
    (keys / "aggregator" / "approved" / f"{ask.id}.json").unlink()
    assert batches.approve(keys, asked.folder, [], every=True) == []
    with pytest.raises(UsageError, match="keys are others now"):
        batches.approve(keys, asked.folder, [ask.id])
    assert roster(keys).devices["pi-1"].key == key != ask.key


def test_the_certificate_of_an_interrupted_enrolment_is_revoked_when_a_request_takes_its_name(
    keys: Path, asked: Asked, tmp_path: Path, monkeypatch
) -> None:
    """The bundle was written: whoever has it could connect under the name of the other device."""

    def fail(folder: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(enrolment.Folder, "number_roster", fail)
        with pytest.raises(KeyboardInterrupt):
            enrolment.add(keys, ["pi-1"])
    old = certificate(unpack(keys / "devices" / "pi-1.tar", tmp_path / "old") / "device.crt")
    asked.put("pi-1")
    assert len(batches.approve(keys, asked.folder, ["pi-1"])) == 1
    assert revoked_serials(keys) == {old.serial_number}
