"""The operator's folder: which names, words, folders and files are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from enrolled import SETTINGS, roster

from edgefl.cli.main import main
from edgefl.errors import UsageError
from edgefl.keys import enrolment, folder


@pytest.mark.parametrize(
    "name", ["dev-a/inbox", "+", "#", "aggregator", "agg-f", "viewer-a", "helper-a", "", "..", "a\n", "a b", "a" * 65]
)
def test_names_that_would_be_somebody_elses_are_refused(keys: Path, name: str) -> None:
    before = (keys / "records.json").read_bytes()
    with pytest.raises(UsageError):
        enrolment.add(keys, ["pi-01", name])
    assert (keys / "records.json").read_bytes() == before
    assert list((keys / "devices").iterdir()) == [], "nobody of that command is enrolled"


def test_an_enrolled_name_is_not_given_away_twice(keys: Path) -> None:
    enrolment.add(keys, ["pi-01"])
    with pytest.raises(UsageError, match="pi-01 is enrolled already"):
        enrolment.add(keys, ["pi-02", "pi-01"])
    with pytest.raises(UsageError, match="named twice"):
        enrolment.add(keys, ["pi-02", "pi-02"])
    with pytest.raises(UsageError, match="longer than 64"):
        enrolment.add(keys, ["a" * 60], role="viewer")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["revoke", "DIR", "pi-99"], "pi-99 is not enrolled here: did you mean 'pi-01'?"),
        (["renew", "DIR", "pi-99"], "pi-99 is not enrolled"),
        (["renew", "DIR"], "say what is to be renewed"),
        (["add", "DIR"], "nobody is named"),
        (["add", "DIR", "x", "--viewer", "--canary"], "trains nothing"),
        (["add", "nowhere", "x"], "nowhere has no federation.toml"),
        (["init", "DIR", "--federation", "g", "--broker", "b"], "holds the keys of a federation"),
        (["init", "new", "--federation", "G!", "--broker", "b"], "federation name 'G!'"),
        (["init", "new", "--federation", "g", "--broker", "mqtts://b"], "give the host alone"),
        (["init", "new", "--federation", "g", "--broker", "b:8883"], "give the host alone"),
        (["init", "new", "--federation", "g", "--broker", "b", "--port", "70000"], "port"),
    ],
)
def test_wrong_use_ends_with_2_and_says_what_to_do(
    keys: Path, words: list[str], text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(keys.parent)
    enrolment.add(keys, ["pi-01"])
    assert main(["keys", *(str(keys) if word == "DIR" else word for word in words)]) == 2
    assert text in capsys.readouterr().err
    assert not (keys.parent / "new").exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match=r"holds other files, such as thesis\.txt"):
        enrolment.init(tmp_path, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["root/root.key", "root/ca.key", "aggregator/signer.key"])
def test_a_private_key_that_others_can_read_is_refused(keys: Path, name: str) -> None:
    (keys / name).chmod(0o644)
    with pytest.raises(UsageError, match=rf"{name} can be read by others"):
        enrolment.add(keys, ["pi-01"])


@pytest.mark.parametrize("name", ["root/root.key", "root/ca.key", "root/ca.crt", "records.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "noise", "another"])
def test_a_damaged_folder_is_refused_with_advice(keys: Path, tmp_path: Path, name: str, damage: str) -> None:
    enrolment.init(tmp_path / "other", SETTINGS)
    path = keys / name
    if damage == "missing":
        path.unlink()
    elif damage == "another":
        path.write_bytes((tmp_path / "other" / name).read_bytes())
    else:
        path.write_bytes(b"" if damage == "empty" else os.urandom(100))
    if (name, damage) in {("root/root.key", "another"), ("records.json", "another")}:
        return  # whole keys and records of another folder are not told apart; devices refuse what that root signs
    with pytest.raises(UsageError, match="backup"):
        enrolment.add(keys, ["pi-01"])


def test_init_never_replaces_a_root_that_has_enrolled_somebody(keys: Path) -> None:
    enrolment.add(keys, ["pi-01"])
    (keys / "federation.toml").unlink()
    with pytest.raises(UsageError, match="backup"):
        enrolment.init(keys, SETTINGS)
    assert roster(keys).get("pi-01") is not None


def test_two_commands_at_a_time_do_not_meet(keys: Path) -> None:
    with folder.opened(keys), pytest.raises(UsageError, match="in use"):
        enrolment.add(keys, ["pi-01"])
