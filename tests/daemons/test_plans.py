"""Plans on a device: what was offered and what is approved, as files, and the owner's two commands."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path

import pytest
from edgefl_agent.__main__ import main
from edgefl_agent.config import AgentConfig
from edgefl_agent.plans import AGAIN_S, MOST, Offers, PlanFolder

from edgefl.errors import StoreError, UsageError
from edgefl.settings import files

ID = "0123456789abcdef" * 4


def config_of(tmp_path, text: str) -> AgentConfig:
    path = tmp_path / "agent.toml"
    path.write_text(
        f'federation = "f"\ndevice_id = "a"\nstate_dir = "{tmp_path}"\n[mqtt]\nurl = "mqtt://localhost"\n'
        f'[data]\nsource = "npz:x.npz"\n{text}'
    )
    return files.load(path, AgentConfig, [])


# On disk


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_plans_and_approvals_are_for_the_owner_alone_and_stay(tmp_path):
    folder = PlanFolder(tmp_path)
    assert folder.all() == [] and folder.approved() == frozenset()
    old = os.umask(0)
    try:
        folder.save(ID, "what it is")
        folder.approve(ID)
    finally:
        os.umask(old)
    assert mode(folder.path) == 0o700
    assert {mode(path) for path in folder.path.iterdir()} == {0o600}
    assert PlanFolder(tmp_path).approved() == {ID}
    assert PlanFolder(tmp_path).all() == [(ID, True, "what it is")]


def test_a_folder_of_plans_that_others_can_write_approves_nothing(tmp_path):
    folder = PlanFolder(tmp_path)
    folder.approve(ID)
    folder.path.chmod(0o770)
    with pytest.raises(StoreError, match="who could approve plans"):
        folder.approved()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
@pytest.mark.parametrize("is_link", [False, True])
def test_a_folder_of_plans_that_another_user_has_made_approves_nothing(tmp_path, is_link):
    own = tmp_path / "elsewhere" if is_link else tmp_path / "state" / "plans"
    (tmp_path / "state").mkdir()
    own.mkdir(mode=0o700)
    (own / f"{ID}.approved").touch()
    if is_link:
        (tmp_path / "state" / "plans").symlink_to(own)
    os.chown(tmp_path / "state" / "plans", 2, 2, follow_symlinks=False)
    with pytest.raises(StoreError, match="is another user's"):
        PlanFolder(tmp_path / "state").approved()


def test_waiting_plans_are_bounded_and_approvals_are_never_dropped(tmp_path):
    folder = PlanFolder(tmp_path)
    folder.save(ID, "the first")
    folder.approve(ID)
    for i in range(3 * MOST):
        folder.save(f"{i:064x}", f"plan {i}")
        os.utime(folder.path / f"{i:064x}.txt", (i + 1e9, i + 1e9))
    assert len(list(folder.path.iterdir())) == MOST + 1
    assert folder.approved() == {ID}


def test_an_aggregator_that_offers_plans_without_end_does_not_wear_out_the_disk(tmp_path, monkeypatch):
    folder = PlanFolder(tmp_path)
    saved = []
    monkeypatch.setattr(folder, "save", lambda id, words: saved.append(words))
    offers = Offers(folder)
    for second in range(600):
        for i in range(10):
            offers.offer(ID, f"{second}.{i}")
        offers.look(1000.0 + second)
    assert saved == [f"{second}.9" for second in range(0, 600, int(AGAIN_S))]


def test_a_plan_is_named_by_so_many_digits_that_nobody_finds_two_that_begin_so(tmp_path):
    folder = PlanFolder(tmp_path)
    folder.save(ID, "a")
    folder.save(ID[:32] + "f" * 32, "b")
    folder.save("f" * 64, "c")
    assert folder.find("f" * 32) == "f" * 64
    assert folder.find(ID) == ID
    assert folder.find("e" * 64) == "e" * 64, "a whole id may be approved before it is offered"
    for prefix, why in [
        (ID[:32], "2 plans' ids begin"),
        (ID[:12], "at least 32"),  # the plan whose words the owner has read may have made room for another one
        ("f" * 31, "at least 32"),
        ("e" * 32, "no plan"),
        ("x" * 32, "hex digits"),
    ]:
        with pytest.raises(UsageError, match=why):
            folder.find(prefix)


def test_what_is_no_plan_in_the_folder_is_ignored(tmp_path):
    folder = PlanFolder(tmp_path)
    folder.approve(ID)
    for name in ("README.approved", "ABC.approved", "x.txt", f".{ID}.approved.1.partial"):
        (folder.path / name).write_text("")
    assert folder.approved() == {ID} and len(folder.all()) == 1


# Commands


@pytest.fixture
def offline(tmp_path):
    """A device whose agent does not run, to which one plan was offered."""
    config_of(tmp_path, '[policy]\nplans = "ask"\n')
    PlanFolder(tmp_path).save(ID, "federation  f\nlayers      dense 4x3")
    return ["--config", str(tmp_path / "agent.toml")]


def test_the_owner_sees_a_plan_in_words_and_approves_it(tmp_path, offline, capsys):
    assert main(["plans", *offline]) == 0
    assert capsys.readouterr().out == f"{ID[:32]}  waits for approval\n    federation  f\n    layers      dense 4x3\n"
    assert main(["approve", ID[:32], *offline]) == 0
    assert f"plan {ID[:32]} may train" in capsys.readouterr().out
    assert PlanFolder(tmp_path).approved() == {ID}
    assert main(["plans", "--json", *offline]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found == {"plan": ID, "state": "approved", "words": "federation  f\nlayers      dense 4x3"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_what_root_approves_follows_no_link_of_the_agents_user(tmp_path, offline, capsys):
    with tempfile.TemporaryDirectory() as state_dir:  # tmp_path is closed to other users
        secret, plans = tmp_path / "shadow", Path(state_dir) / "plans"
        secret.write_text("root's own")
        plans.mkdir(mode=0o700)
        lead = [plans / f".{ID}.approved.{os.getpid()}.partial", plans / f"{ID}.approved"]
        for path in (Path(state_dir), plans):
            os.chown(path, 1, 1)
        for path in lead:
            path.symlink_to(secret)
            os.chown(path, 1, 1, follow_symlinks=False)
        where = [*offline, "--set", f"state_dir={state_dir}"]
        assert main(["approve", ID, *where]) == 1 and "symbolic links" in capsys.readouterr().err
        assert (secret.read_text(), secret.stat().st_uid, os.geteuid()) == ("root's own", 0, 0)
        lead[0].unlink(missing_ok=True)
        assert main(["approve", ID, *where]) == 0
        assert (secret.read_text(), secret.stat().st_uid) == ("root's own", 0)
        assert lead[1].lstat().st_uid == 1 and stat.S_ISREG(lead[1].lstat().st_mode)


def test_wrong_use_of_the_commands_ends_with_2_and_says_what_to_do(tmp_path, offline, capsys):
    assert main(["approve", "abcdef12" * 4, *offline]) == 2
    assert "edgefl-agent plans lists them" in capsys.readouterr().err
    assert main(["approve", ID[:32], "--config", str(tmp_path / "none.toml")]) == 2
    assert main(["plans", *offline, "--set", f"state_dir={tmp_path}/none"]) == 2
    assert main(["approve", ID[:32], *offline, "--set", "policy.plans=pinned"]) == 2
    assert "add the whole id to `approved`" in capsys.readouterr().err
    assert PlanFolder(tmp_path).approved() == frozenset()


def test_a_device_to_which_nothing_was_offered_says_so(tmp_path, capsys):
    config_of(tmp_path, "")
    assert main(["plans", "--config", str(tmp_path / "agent.toml")]) == 0
    assert 'no plan has asked to train here yet (plans = "any")' in capsys.readouterr().out
