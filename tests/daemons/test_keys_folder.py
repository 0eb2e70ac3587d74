"""The folder of `[keys] dir` on both sides: what is read, what is refused, and what is noticed while a daemon runs."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import pytest
from edgefl_agent.keys import load_keys, root_of
from edgefl_broker.keys import KeyFolder, open_keys
from edgefl_broker.store import AggregatorStore
from keyed import DEVICE_KEYS, ROOT, SIGNER, THIEF, certificate, roster
from machines import FEDERATION

from edgefl.atomic import write_atomically
from edgefl.coordinator.events import RosterRead, SignerRead
from edgefl.device.seen import Seen
from edgefl.errors import UsageError
from edgefl.trust import ed25519, key_files
from edgefl.trust.ed25519 import fingerprint
from edgefl.trust.settings import KeysConfig


def write_folder(folder: Path, *, key=b"s" * 32, signer=None, members=None) -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("signer.key", "root.pub"):
        (folder / name).unlink(missing_ok=True)
    (folder / "root.pub").write_text(ed25519.to_text(ROOT.public) + "\n")
    key_files.write_seed(folder / "signer.key", key)
    (folder / "signer.json").write_bytes((signer or certificate()) + b"\n")
    (folder / "roster.json").write_bytes((members or roster("a")).seal(ROOT))
    return folder


def highest():
    known: dict[str, int] = {}

    def serial(kind: str, number: int) -> int:
        known[kind] = max(number, known.get(kind, 0))
        return known[kind]

    return serial


def opened(folder: Path, serial=None) -> KeyFolder:
    return KeyFolder(folder, FEDERATION, serial or highest())


def replace(path: Path, data: bytes) -> None:
    """As `rsync` does it: a whole new file under the old name."""
    write_atomically(path, data)
    os.utime(path, ns=(time.time_ns(), time.time_ns()))


def test_the_folder_is_read_at_the_start(tmp_path):
    signer, members = opened(write_folder(tmp_path / "keys")).keys
    assert signer.key.public == SIGNER.public and signer.certificate == certificate()
    assert members.get("a").public == DEVICE_KEYS["a"].public


def test_a_replaced_roster_and_signer_are_noticed_once(tmp_path):
    folder = write_folder(tmp_path / "keys")
    keys = opened(folder)
    assert keys.news() == []
    replace(folder / "roster.json", roster("a", "b", serial=2, revoked=["a"]).seal(ROOT))
    (event,) = keys.news()
    assert isinstance(event, RosterRead) and event.roster.get("a") is None and event.roster.get("b")
    assert keys.news() == []
    replace(folder / "signer.key", ed25519.to_text(b"t" * 32).encode())
    (folder / "signer.key").chmod(0o600)
    assert keys.news() == [], "the key alone is of no use: the certificate comes later"
    replace(folder / "signer.json", certificate(THIEF, serial=2))
    (event,) = keys.news()
    assert isinstance(event, SignerRead) and event.key.public == THIEF.public


def test_i18_a_roster_from_before_a_revocation_is_refused_also_after_a_restart(tmp_path, caplog):
    folder, store = write_folder(tmp_path / "keys"), AggregatorStore(tmp_path / "state")
    old = (folder / "roster.json").read_bytes()
    keys = opened(folder, store.highest)
    replace(folder / "roster.json", roster("a", serial=2, revoked=["a"]).seal(ROOT))
    assert len(keys.news()) == 1
    replace(folder / "roster.json", old)
    assert keys.news() == [] and "is number 1, and number 2 has been in use" in caplog.text
    store.close()
    again = AggregatorStore(tmp_path / "state")
    with pytest.raises(UsageError, match=r"roster\.json is number 1, and number 2 has been in use"):
        opened(folder, again.highest)
    again.close()


BAD = {
    "by another root": (
        {"signer": certificate(root=THIEF)},
        r"signer\.json can't be used: not sealed by the right key",
    ),
    "expired": ({"signer": certificate(not_after=1000)}, r"signer\.json has expired: `edgefl keys renew`"),
    "of another key": ({"key": b"x" * 32}, r"signer\.json is not about signer\.key beside it"),
    "of another federation": ({"signer": certificate(federation="other")}, r"signer document of federation 'other'"),
    "a roster by another root": ({"members": "forged"}, r"roster\.json can't be used"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_i21_a_folder_that_does_not_fit_is_refused_by_name(tmp_path, change, message):
    folder = write_folder(tmp_path / "keys", **{k: v for k, v in change.items() if v != "forged"})
    if "forged" in change.values():
        (folder / "roster.json").write_bytes(roster("a").seal(THIEF))
    with pytest.raises(UsageError, match=message):
        opened(folder)


@pytest.mark.parametrize("name", ["root.pub", "signer.key", "signer.json", "roster.json"])
def test_i21_a_missing_file_of_the_aggregators_keys_is_named(tmp_path, name):
    folder = write_folder(tmp_path / "keys")
    (folder / name).unlink()
    with pytest.raises(
        UsageError, match=f"{name}: No such file.*copy it from the folder that `edgefl keys` has written"
    ):
        opened(folder)


@pytest.mark.parametrize("name", ["root.pub", "signing.key"])
def test_i21_a_missing_file_of_a_devices_keys_is_named(tmp_path, name):
    (tmp_path / "root.pub").write_text(ed25519.to_text(ROOT.public) + "\n")
    key_files.write_seed(tmp_path / "signing.key", b"a" * 32)
    assert load_keys(KeysConfig(str(tmp_path)), FEDERATION, None).root == ROOT.public
    (tmp_path / name).unlink()
    with pytest.raises(UsageError, match=name):
        load_keys(KeysConfig(str(tmp_path)), FEDERATION, None)


def test_a_file_that_vanishes_while_it_runs_changes_nothing(tmp_path, caplog):
    folder = write_folder(tmp_path / "keys")
    keys = opened(folder)
    (folder / "roster.json").unlink()
    assert keys.news() == [] and "going on with what was in use" in caplog.text


def test_without_a_folder_there_are_no_keys_and_a_warning(caplog):
    assert open_keys(KeysConfig(), FEDERATION, highest()) is None and "this federation is open" in caplog.text
    assert load_keys(KeysConfig(), FEDERATION, None) is None


def test_i20_the_certificate_in_a_devices_bundle_is_the_oldest_that_it_believes(tmp_path):
    """A device has seen nothing at its first contact: a key that was replaced before its enrolment can't win it."""
    (tmp_path / "root.pub").write_text(ed25519.to_text(ROOT.public) + "\n")
    key_files.write_seed(tmp_path / "signing.key", b"a" * 32)
    (tmp_path / "signer.json").write_bytes(certificate(serial=7, epoch=3))
    config, root = KeysConfig(str(tmp_path)), fingerprint(ROOT.public)
    assert root_of(config) == root and root_of(KeysConfig()) == ""
    assert load_keys(config, FEDERATION, None).seen == Seen(7, 3, root=root)
    later = Seen(9, 3, run="r", attempt=2, root=root)
    assert load_keys(config, FEDERATION, later).seen == later
    before = Seen(6, 3, run="r", attempt=2, root=root)
    assert load_keys(config, FEDERATION, before).seen == dataclasses.replace(before, serial=7)
    assert load_keys(config, FEDERATION, dataclasses.replace(before, epoch=2)).seen == Seen(7, 3, root=root)
    lost = load_keys(config, FEDERATION, dataclasses.replace(before, epoch=2, lost=True)).seen
    assert lost == Seen(7, 3, root=root, lost=True), "a new epoch brings nothing back"
    (tmp_path / "signer.json").write_bytes(certificate(serial=8, epoch=3, root=THIEF))
    with pytest.raises(UsageError, match=r"signer.json.*unpack the device's bundle again"):
        load_keys(config, FEDERATION, None)
