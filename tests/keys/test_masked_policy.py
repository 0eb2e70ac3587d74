"""What a device's bundle demands of masked rounds, where its federation has helpers."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgefl_agent.config import AgentConfig
from enrolled import unpack
from masked import helper
from masked import terms as terms_of

from edgefl.cli.main import main
from edgefl.device.owner.policy import Policy
from edgefl.errors import UsageError
from edgefl.keys import batches, enrolment
from edgefl.keys.enrolment import Terms
from edgefl.keys.report import report
from edgefl.settings import files


def policy(bundle: Path, to: Path) -> Policy:
    """As the agent of this bundle reads it."""
    return files.load(unpack(bundle, to) / "agent.toml", AgentConfig).policy.policy(keys=True)


def added(keys: Path, name: str, given: dict | None = None) -> Policy:
    (bundle,) = enrolment.add(keys, [name], Terms(policy=given))
    return policy(bundle, keys.parent / name)


def test_without_helpers_nothing_is_said_of_masked_rounds(keys: Path, tmp_path: Path) -> None:
    (bundle,) = enrolment.add(keys, ["pi-01"])
    assert "[policy]" not in (unpack(bundle, tmp_path / "pi") / "agent.toml").read_text()
    assert not added(keys, "pi-02").masked


def test_where_helpers_are_enrolled_a_device_is_masked_and_pins_them(keys: Path) -> None:
    enrolment.add(keys, ["north", "south"], role="helper")
    found = added(keys, "pi-01", {"plans": "pinned", "approved": ["ab" * 32]})
    assert (found.masked, found.helpers, found.least_helpers) == (True, {"north", "south"}, 2)
    assert found.operators == {} and found.plans == "pinned"
    both, one, other = (terms_of(tuple(map(helper, names))) for names in (("north", "south"), ("north",), "x"))
    assert not found.of_terms(both) and found.of_terms(one) and found.of_terms(other)


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]


def test_helpers_of_one_operator_count_once(keys: Path) -> None:
    enrolment.add(keys, ["north", "north-2"], Terms(operator="acme"), role="helper")
    enrolment.add(keys, ["south"], Terms(operator="university"), role="helper")
    found = added(keys, "pi-01")
    assert found.operators == {"north": "acme", "north-2": "acme", "south": "university"} and found.least_helpers == 2
    assert not report(keys).warnings
    enrolment.add(keys, ["east"], role="helper")
    assert added(keys, "pi-02").least_helpers == 2, "nobody has said who runs it, so it counts for nothing"
    (warning,) = report(keys).warnings
    assert warning.startswith("helper-east: nobody has said who runs it") and "--operator" in warning


def test_what_is_given_stands_and_the_rest_is_still_demanded(keys: Path) -> None:
    enrolment.add(keys, ["north", "south"], role="helper")
    found = added(keys, "pi-01", {"least_helpers": 1, "least_devices": 20, "most_clip": 2.0, "least_noise": 0.5})
    assert (found.masked, found.least_helpers, found.helpers) == (True, 1, {"north", "south"})
    assert (found.least_devices, found.most_clip, found.least_noise) == (20, 2.0, 0.5)
    assert added(keys, "pi-02", {"helpers": ["south"]}).least_helpers == 1
    plain = added(keys, "pi-03", {"masked": False})
    assert not plain.masked and plain.helpers == {"north", "south"}, "of masked rounds as much is demanded as before"


def test_a_federation_whose_helpers_are_all_revoked_is_still_one_of_masked_rounds(keys: Path) -> None:
    enrolment.add(keys, ["north"], role="helper")
    enrolment.revoke_names(keys, ["helper-north"])
    found = added(keys, "pi-01")
    assert found.masked and found.helpers == frozenset(), "any that the root certifies later"


def test_who_runs_an_enrolled_helper_can_be_said_later(keys: Path, capsys) -> None:
    enrolment.add(keys, ["north"], role="helper")
    before = {
        path: path.read_bytes() for place in ("helpers", "aggregator", "broker") for path in files_of(keys / place)
    }
    assert main(["keys", "add", str(keys), "north", "--helper", "--operator", "coop"]) == 0
    assert capsys.readouterr().out == "helper-north: run by coop from now on; its keys stay as they are\n"
    assert {path: path.read_bytes() for path in before} == before
    assert main(["keys", "add", str(keys), "north", "east", "--helper", "--operator", "acme"]) == 0
    out = capsys.readouterr().out
    assert "helper-north: run by acme" in out and "helper-east.tar" in out and "helper-north.tar" not in out
    assert added(keys, "pi-01").operators == {"north": "acme", "east": "acme"}
    assert main(["keys", "add", str(keys), "north", "--helper"]) == 2
    assert "--operator says who runs it" in capsys.readouterr().err


def test_an_operator_is_remembered_over_new_keys_and_a_new_enrolment(keys: Path) -> None:
    enrolment.add(keys, ["north"], Terms(operator="acme"), role="helper")
    enrolment.next_helper_epoch(keys, ["helper-north"])
    enrolment.renew(keys, ["helper-north"])
    enrolment.revoke_names(keys, ["helper-north"])
    enrolment.add(keys, ["north"], role="helper")
    assert added(keys, "pi-01").operators == {"north": "acme"}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"least_helpers": 3}, "no round could"),
        ({"helpers": ["nort"]}, "no helper 'nort' is enrolled here: did you mean 'north'"),
        ({"operators": {"east": "acme"}}, "no helper 'east'"),
        ({"helpers": ["old"]}, "no helper 'old'"),
        ({"least_device": 3}, "least_devices"),
        ({"most_clip": -1.0}, "most_clip"),
    ],
)
def test_a_policy_that_no_round_could_meet_or_no_agent_reads_is_refused(keys: Path, given: dict, text: str) -> None:
    enrolment.add(keys, ["north", "old"], role="helper")
    enrolment.revoke_names(keys, ["helper-old"])
    with pytest.raises(UsageError, match=text):
        enrolment.add(keys, ["pi-01"], Terms(policy=given))
    assert not list((keys / "devices").iterdir())


def test_where_no_helper_is_enrolled_none_is_named(keys: Path) -> None:
    with pytest.raises(UsageError, match="no helper 'north' is enrolled here: enrol helpers before devices"):
        enrolment.add(keys, ["pi-01"], Terms(policy={"helpers": ["north"]}))


def test_a_masked_device_is_no_canary_unless_its_policy_says_so(keys: Path) -> None:
    enrolment.add(keys, ["north"], role="helper")
    with pytest.raises(UsageError, match="--canary"):
        enrolment.add(keys, ["pi-01"], Terms(canary=True))
    enrolment.add(keys, ["pi-01"], Terms(policy={"masked": False}, canary=True))


def test_the_image_of_a_batch_has_it_too(keys: Path, tmp_path: Path) -> None:
    enrolment.add(keys, ["north"], role="helper")
    image = unpack(batches.begin(keys, 5, 30, Terms(policy={"least_devices": 5}), "pi-"), tmp_path / "image")
    (template,) = image.glob("agent*")
    (tmp_path / "agent.toml").write_text(template.read_text().replace("{name}", "pi-01"))
    found = files.load(tmp_path / "agent.toml", AgentConfig).policy.policy(keys=True)
    assert (found.masked, found.helpers, found.least_devices) == (True, {"north"}, 5)


def test_the_command_says_what_it_demands(keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "add", str(keys), "north", "--helper", "--operator", "acme"]) == 0
    assert main(["keys", "list", str(keys)]) == 0
    assert "run by acme" in capsys.readouterr().out
    assert main(["keys", "add", str(keys), "south", "--helper"]) == 0
    assert "warning: helper-south: nobody has said who runs it" in capsys.readouterr().out
    assert main(["keys", "revoke", str(keys), "helper-south"]) == 0
    assert "take the helper out of [privacy] helpers" in capsys.readouterr().out
    words = ["--policy", "least_devices=20", "--policy", "policy.most_epsilon=8"]
    assert main(["keys", "add", str(keys), "pi-01", *words]) == 0
    told = 'masked = true, helpers = ["north"], least_helpers = 1, operators = { "north" = "acme" }, least_devices = 20'
    assert f"[policy] in agent.toml: {told}, most_epsilon = 8" in capsys.readouterr().out
    found = policy(keys / "devices" / "pi-01.tar", tmp_path / "pi")
    assert (found.masked, found.least_devices, found.most_epsilon) == (True, 20, 8.0)


@pytest.mark.parametrize(
    "table", ['{ "north" = "acme" }', '{north="acme"}', '{"north": "acme"}'], ids=["as it is shown", "TOML", "JSON"]
)
def test_a_table_is_given_as_it_is_shown(keys: Path, table: str) -> None:
    enrolment.add(keys, ["north"], role="helper")
    assert main(["keys", "add", str(keys), "pi-01", "--policy", f"operators={table}"]) == 0
    assert policy(keys / "devices" / "pi-01.tar", keys.parent / "pi").operators == {"north": "acme"}


def test_a_value_that_can_not_be_read_has_an_example(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "add", str(keys), "pi-01", "--policy", "operators=acme"]) == 2
    assert capsys.readouterr().err.endswith('as in operators = { "north" = "acme", "north-2" = "acme" }\n')


@pytest.mark.parametrize(
    "words",
    [
        ["pi-02", "--policy", "least_devices"],
        ["pi-02", "--policy", "least_devices=1"],
        ["pi-02", "--policy", "least_device=3"],
        ["pi-02", "--operator", "acme"],
        ["wall", "--viewer", "--policy", "masked=true"],
        ["wall", "--viewer", "--standardize"],
        ["pi-02", "--policy", "helpers=north"],
        ["north", "--helper", "--operator", "a" * 65],
    ],
)
def test_wrong_words_enrol_nobody(keys: Path, words: list[str]) -> None:
    assert main(["keys", "add", str(keys), *words]) == 2
    assert not [path for path in keys.rglob("*.tar")]
