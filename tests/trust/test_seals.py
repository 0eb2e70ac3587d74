"""Sealed JSON, the signer's certificate and the roster: what is accepted, and what is not."""

import base64
import sys

import msgspec
import pytest

from edgefl.errors import ProtocolError, UsageError
from edgefl.trust import ed25519, key_files
from edgefl.trust.certificate import SignerCertificate
from edgefl.trust.ed25519 import SigningKey
from edgefl.trust.roster import Member, Roster
from edgefl.trust.seal import is_sealed, open_seal, read_seal, seal

ROOT, OTHER = SigningKey(b"r" * 32), SigningKey(b"o" * 32)
TIMES = {"not_before": 0, "not_after": 2**40}


def test_signatures_are_those_of_rfc_8032():
    """The first test vector of the RFC's section 7.1."""
    key = SigningKey(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert key.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065")
    assert ed25519.verify(key.public, b"", key.sign(b""))


def test_a_seal_is_two_lines_that_anyone_can_read():
    raw = seal(b'{"a":1}', "fed/round", ROOT, b"certificate")
    payload, line = raw.split(b"\n")
    assert payload == b'{"a":1}'
    found = msgspec.json.decode(line)
    statement = b'edgefl seal 1\nfed/round\n{"a":1}'
    assert ed25519.verify(ROOT.public, statement, base64.b64decode(found["signature"]))
    assert base64.b64decode(found["certificate"]) == b"certificate" == read_seal(raw).certificate
    assert is_sealed(raw) and not is_sealed(payload)
    assert not is_sealed(b"EFLT\n{"), "part of a model"
    assert open_seal(raw, "fed/round", ROOT.public) == payload


def test_what_is_sealed_once_is_of_no_other_use():
    raw = seal(b'{"a":1}', "fed/d/a/inbox", ROOT)
    for wrong in (
        lambda: open_seal(raw, "fed/d/b/inbox", ROOT.public),
        lambda: open_seal(raw, "fed/d/a/inbox", OTHER.public),
        lambda: open_seal(raw.replace(b'"a":1', b'"a":2'), "fed/d/a/inbox", ROOT.public),
        lambda: open_seal(b'{"a":1}', "fed/d/a/inbox", ROOT.public),
    ):
        with pytest.raises(ProtocolError):
            wrong()


@pytest.mark.parametrize("line", [
    b"", b"{}", b"[]", b'{"signature":"x"}', b'{"signature":"' + b"A" * 5000 + b'"}', b"\xff", b"[" * 3000,
    b'{"signature":"' + base64.b64encode(b"s" * 64) + b'","certificate":"%"}',
    b'{"signature":"' + base64.b64encode(b"s" * 63) + b'"}',
])  # fmt: skip
def test_a_seal_that_can_not_be_read_is_refused(line):
    with pytest.raises(ProtocolError):
        open_seal(b"{}\n" + line, "x", ROOT.public)


def test_a_line_break_can_not_be_sealed():
    for payload, purpose in ((b"{\n}", "x"), (b"{}", "x\ny")):
        with pytest.raises(ValueError):
            seal(payload, purpose, ROOT)


def certificate(**changes) -> SignerCertificate:
    return SignerCertificate.of(OTHER.public, **{"federation": "fed", "serial": 3, "epoch": 2, **TIMES} | changes)


def test_a_certificate_comes_from_the_root_alone_and_for_one_federation():
    raw = certificate().seal(ROOT)
    found = SignerCertificate.open(raw, ROOT.public, "fed")
    assert (found.serial, found.epoch, found.public) == (3, 2, OTHER.public)
    for forged, federation in (
        (certificate().seal(OTHER), "fed"),
        (raw, "other"),
        (seal(b'{"federation":"fed"}', "signer", ROOT), "fed"),
        (seal(msgspec.json.encode(msgspec.structs.replace(certificate(), key="AA==")), "signer", ROOT), "fed"),
        (raw + b" " * 3000, "fed"),
        (Roster("fed", 1).seal(ROOT), "fed"),
    ):
        with pytest.raises(ProtocolError):
            SignerCertificate.open(forged, ROOT.public, federation)


def test_i18_a_revoked_or_unknown_device_is_not_in_the_roster():
    a, b = Member.of(b"a" * 32, max_examples=50), msgspec.structs.replace(Member.of(b"b" * 32), revoked=True)
    roster = Roster.open(Roster("fed", 7, {"a": a, "b": b}).seal(ROOT), ROOT.public, "fed")
    assert roster.get("a") == a and roster.get("a").public == b"a" * 32
    assert roster.get("b") is None and roster.get("c") is None
    for raw, federation in ((Roster("fed", 7).seal(OTHER), "fed"), (Roster("fed", 7).seal(ROOT), "other")):
        with pytest.raises(ProtocolError):
            Roster.open(raw, ROOT.public, federation)
    with pytest.raises(ProtocolError):
        Roster.open(Roster("fed", 7, {"a": Member("short")}).seal(ROOT), ROOT.public, "fed")


def test_keys_come_back_from_their_files(tmp_path):
    seed = ed25519.new_seed()
    key_files.write_seed(tmp_path / "a.key", seed)
    (tmp_path / "a.pub").write_text(ed25519.to_text(SigningKey(seed).public) + "\n")
    assert (tmp_path / "a.key").stat().st_mode & 0o777 == 0o600
    assert key_files.read_seed(tmp_path / "a.key") == seed
    assert key_files.read_public(tmp_path / "a.pub") == SigningKey(seed).public
    with pytest.raises(OSError):  # never written over
        key_files.write_seed(tmp_path / "a.key", seed)


def test_a_power_cut_leaves_no_half_key(tmp_path, monkeypatch):
    def cut(number):
        raise OSError("the power is cut")

    monkeypatch.setattr("os.fsync", cut)
    with pytest.raises(OSError, match="power"):
        key_files.write_seed(tmp_path / "a.key", b"s" * 32)
    monkeypatch.undo()
    key_files.write_seed(tmp_path / "a.key", b"s" * 32)
    assert key_files.read_seed(tmp_path / "a.key") == b"s" * 32


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_i21_a_private_key_that_others_can_read_is_refused(tmp_path, mode):
    key_files.write_seed(tmp_path / "a.key", b"s" * 32)
    (tmp_path / "a.key").chmod(mode)
    with pytest.raises(UsageError, match=r"a\.key can be read by other users: chmod 600"):
        key_files.read_seed(tmp_path / "a.key")


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_i21_a_pinned_root_that_others_can_replace_is_refused(tmp_path, mode):
    (tmp_path / "root.pub").write_text(ed25519.to_text(ROOT.public) + "\n")
    (tmp_path / "root.pub").chmod(mode)
    with pytest.raises(UsageError, match=r"root\.pub can be changed by other users: chmod 644"):
        key_files.read_public(tmp_path / "root.pub")


def test_i21_a_missing_or_damaged_key_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"a\.pub: No such file.*copy it"):
        key_files.read_public(tmp_path / "a.pub")
    for data in (b"", b"not base64", b"QUJD\n", b"\xff\xfe"):
        (tmp_path / "a.pub").write_bytes(data)
        with pytest.raises(UsageError, match=r"a\.pub is not a key"):
            key_files.read_public(tmp_path / "a.pub")


def test_without_pynacl_keys_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "nacl", None)
    with pytest.raises(UsageError, match=r"edgefl-toolkit\[keys\]"):
        SigningKey(b"s" * 32)


def test_a_damaged_signature_or_key_of_a_wrong_length_is_no_error():
    signature = ROOT.sign(b"m")
    assert ed25519.verify(ROOT.public, b"m", signature)
    zeros = b"\0" * 64
    for public, given in ((b"", signature), (ROOT.public, signature[:-1]), (ROOT.public, zeros), (zeros[:32], zeros)):
        assert not ed25519.verify(public, b"m", given)
