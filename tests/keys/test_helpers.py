"""What a helper is given, and how an epoch of its keys ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from enrolled import certificate, killed_at, name_of, roster, unpack

from edgefl.cli.main import main
from edgefl.errors import ProtocolError, UsageError
from edgefl.keys import enrolment
from edgefl.keys.report import report
from edgefl.masking.sealed import new_box_key
from edgefl.trust.ed25519 import SigningKey
from edgefl.trust.helper_certificate import HelperCertificate
from edgefl.trust.key_files import read_public, read_seed
from edgefl.trust.roster import Roster


def opened(path: Path, keys: Path) -> HelperCertificate:
    return HelperCertificate.open(path.read_bytes(), read_public(keys / "aggregator" / "root.pub"), "f")


def fits(home: Path, keys: Path) -> HelperCertificate:
    """The certificate in a helper's folder, whose keys are those beside it."""
    found = opened(home / "helper.json", keys)
    assert found.box_public == new_box_key(read_seed(home / "box.key"))[0]
    assert found.public == SigningKey(read_seed(home / "signing.key")).public
    return found


def test_a_helper_has_its_keys_the_roots_word_on_them_and_the_roster(keys: Path, tmp_path: Path) -> None:
    enrolment.add(keys, ["pi-01"])
    (bundle,) = enrolment.add(keys, ["north"], role="helper")
    home = unpack(bundle, tmp_path / "helper")
    assert {path.name for path in home.iterdir()} == {
        "ca.crt", "helper.crt", "helper.key", "root.pub", "roster.json", "box.key", "signing.key", "helper.json",
        "helper.toml",
    }  # fmt: skip
    found = fits(home, keys)
    assert (found.name, found.epoch) == ("north", 1) and name_of(certificate(home / "helper.crt")) == "helper-north"
    assert (keys / "aggregator" / "helper-north.json").read_bytes() == (home / "helper.json").read_bytes()
    root = read_public(home / "root.pub")
    assert list(Roster.open((home / "roster.json").read_bytes(), root, "f").devices) == ["pi-01"]
    assert roster(keys).get("helper-north") is None, "it is no device"
    with pytest.raises(ProtocolError):
        HelperCertificate.open((home / "helper.json").read_bytes(), found.public, "f")
    with pytest.raises(ProtocolError):
        HelperCertificate.open((home / "roster.json").read_bytes(), root, "f")
    with pytest.raises(ProtocolError):
        HelperCertificate.open((home / "helper.json").read_bytes(), root, "g")


def test_the_next_epoch_has_other_keys_and_the_aggregator_is_told(keys: Path, tmp_path: Path) -> None:
    (bundle,) = enrolment.add(keys, ["north"], role="helper")
    home = unpack(bundle, tmp_path / "helper")
    old = fits(home, keys)
    assert main(["keys", "epoch", str(keys), "helper-north"]) == 0
    unpack(bundle, home)
    new = fits(home, keys)
    assert new.epoch == 2 and new.serial > old.serial and (new.box, new.key) != (old.box, old.key)
    assert opened(keys / "aggregator" / "helper-north.json", keys) == new
    assert (home / "helper.toml").exists(), "an owner's changes stay: it is not in the bundle any more"
    (renewed,) = enrolment.renew(keys, ["helper-north"])
    unpack(renewed, home)
    assert fits(home, keys) == new, "a new TLS certificate begins no epoch"


def test_a_revoked_helper_is_not_asked_any_more_and_one_that_is_enrolled_anew_goes_on_counting(keys: Path) -> None:
    enrolment.add(keys, ["north"], role="helper")
    file = keys / "aggregator" / "helper-north.json"
    enrolment.revoke_names(keys, ["helper-north"])
    assert not file.exists()
    with pytest.raises(UsageError, match="no helper that is enrolled"):
        enrolment.next_helper_epoch(keys, ["helper-north"])
    enrolment.add(keys, ["north"], role="helper")
    assert opened(file, keys).epoch == 2


@pytest.mark.parametrize("name", ["North", "no.rth", "a" * 42, "-n", "no_rth"])
def test_names_that_terms_can_not_have_are_refused(keys: Path, name: str) -> None:
    with pytest.raises(UsageError, match="helper name"):
        enrolment.add(keys, [name], role="helper")


def test_the_epoch_of_a_device_is_refused(keys: Path) -> None:
    enrolment.add(keys, ["pi-01"])
    with pytest.raises(UsageError, match="no helper that is enrolled"):
        enrolment.next_helper_epoch(keys, ["pi-01"])


def test_keys_that_soon_expire_are_told_of(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from enrolled import DAY_S, Clock

    from edgefl.keys import folder

    enrolment.add(keys, ["north"], role="helper")
    assert not [line for line in report(keys).warnings if "keys epoch" in line]
    monkeypatch.setattr(folder, "time", Clock(folder.time.time() + 800 * DAY_S))
    assert [line for line in report(keys).warnings if "edgefl keys epoch DIR helper-north" in line]


def test_an_epoch_that_was_killed_at_any_of_its_writes_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The aggregator is never told of keys that are in no bundle."""
    from enrolled import SETTINGS

    monkeypatch.setattr(os, "fsync", lambda number: None)
    for number in range(1, 20):
        for before in (True, False):
            keys = tmp_path / f"{number}-{before}"
            enrolment.init(keys, SETTINGS)
            (bundle,) = enrolment.add(keys, ["north"], role="helper")
            work = lambda keys=keys: enrolment.next_helper_epoch(keys, ["helper-north"])  # noqa: E731
            killed = killed_at(number, before, work, monkeypatch)
            told = opened(keys / "aggregator" / "helper-north.json", keys)
            if told.epoch == 2:
                assert fits(unpack(bundle, tmp_path / f"{number}-{before}-home"), keys) == told
            if not killed:
                assert number > 2 and told.epoch == 2
                return
            enrolment.next_helper_epoch(keys, ["helper-north"])
            home = unpack(bundle, tmp_path / f"{number}-{before}-again")
            assert fits(home, keys) == opened(keys / "aggregator" / "helper-north.json", keys)
    pytest.fail("no end")
