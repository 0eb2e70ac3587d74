"""Agents that are connected and yet in no federation, and clients whose publishes the broker refuses: what is said."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from brokers import Mosquitto, eventually, password_file
from daemons import Federation
from edgefl_agent import misfit
from edgefl_agent.misfit import AGAIN_S, ASK_S, PATIENCE_S, Misfit

from edgefl.hosting import refusals
from edgefl.hosting.refusals import MAX_KINDS, Refusals
from edgefl.machine import Note, Subscribe, Unsubscribe
from edgefl.protocol.topics import Topics

TOPICS = Topics("f")
BROKER = Path(__file__).resolve().parent.parent.parent / "broker"


def notes(actions: list) -> list[str]:
    return [action.text for action in actions if isinstance(action, Note)]


def test_an_agent_without_a_manifest_says_so_after_half_a_minute_and_then_every_ten() -> None:
    one, said = Misfit(TOPICS, "pi-01"), []
    assert one.look(1e6) == [], "not connected"
    one.connected("5", 0.0)
    for second in range(2000):
        said += [(second, text) for text in notes(one.look(float(second)))]
    assert [second for second, _ in said] == [PATIENCE_S + n * AGAIN_S for n in range(4)]
    assert "no manifest on 'edgefl/2/f/manifest': check `federation`, [mqtt] root and the broker's ACL" in said[0][1]
    one.hear(TOPICS.manifest)
    one.disconnected()
    one.connected("5", 3000.0)
    assert one.look(9000.0) == [], "it has read the manifest once"


def test_with_mqtt_3_an_agent_reads_its_status_back_once() -> None:
    one = Misfit(TOPICS, "pi-01")
    one.hear(TOPICS.manifest)
    one.connected("3.1.1", 0.0)
    assert one.look(ASK_S - 1) == []
    assert one.look(ASK_S) == [Subscribe((TOPICS.status("pi-01"),))]
    assert one.look(ASK_S + 1) == []
    assert one.hear(TOPICS.status("pi-01")) == [Unsubscribe((TOPICS.status("pi-01"),))]
    assert one.hear(TOPICS.status("pi-01")) == one.look(1e6) == []
    one.connected("3.1.1", 1e7)
    assert one.look(1e8) == []


def test_a_receipt_proves_that_what_is_published_arrives() -> None:
    one = Misfit(TOPICS, "pi-01")
    one.hear(TOPICS.manifest)
    one.hear(TOPICS.inbox("pi-01"))
    one.connected("3.1.1", 0.0)
    assert one.look(1e6) == []


def test_a_status_that_does_not_come_back_is_said_every_ten_minutes_and_asked_for_on_each_connection() -> None:
    one = Misfit(TOPICS, "pi-01")
    one.hear(TOPICS.manifest)
    one.connected("3.1.1", 0.0)
    assert one.look(ASK_S) and one.look(PATIENCE_S - 1) == []
    (text,) = notes(one.look(PATIENCE_S))
    assert "must be its device_id, 'pi-01'" in text and "'edgefl/2/f/d/pi-01/status'" in text
    assert one.look(AGAIN_S) == [] and notes(one.look(PATIENCE_S + AGAIN_S)) == [text]
    one.disconnected()
    one.connected("3.1.1", 1e4)
    assert one.look(1e4 + ASK_S) == [Subscribe((TOPICS.status("pi-01"),))]


def test_refused_publishes_are_one_line_a_kind_with_a_count() -> None:
    refused = Refusals()
    refused.user = "its user name must be 'pi-01'"
    lines = [refused.line(TOPICS.update("pi-01", n, 0), "Not authorized", float(n)) for n in range(700)]
    assert lines[0] == (
        "the broker refuses our publish on 'edgefl/2/f/d/pi-01/u/0/0' (Not authorized): let this client write there in "
        "the broker's ACL; its user name must be 'pi-01'"
    )
    assert [n for n, line in enumerate(lines) if line] == [0, 600]
    assert "(Not authorized, 601 times so far)" in str(lines[600])
    assert refused.line(TOPICS.status("pi-01"), "Not authorized", 0.0), "another kind"
    assert "check the broker's limits" in str(refused.line(TOPICS.status("pi-01"), "Quota exceeded", 0.0))
    inboxes = [refused.line(TOPICS.inbox(f"pi-{n}"), "Not authorized", 0.0) for n in range(100)]
    assert sum(map(bool, inboxes)) == 1, "an aggregator writes to each device's inbox"
    for n in range(1000):
        refused.line(f"kind-{n}", "Not authorized", 0.0)
    assert len(refused._kinds) == MAX_KINDS


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """mosquitto with the shipped ACL; gives the URL of a user."""
    users = {"aggregator": "a", "pi-01": "b", "pi-02": "c"}
    passwords = password_file(tmp_path, users)
    shutil.copy(BROKER / "acl", tmp_path / "acl")
    (tmp_path / "acl").chmod(0o600)
    config = f"allow_anonymous false\npassword_file {passwords}\nacl_file {tmp_path / 'acl'}\n"
    with Mosquitto(config) as broker:
        yield lambda user: broker.url.replace("//", f"//{user}:{users[user]}@")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(misfit, "ASK_S", 0.5)
    monkeypatch.setattr(misfit, "PATIENCE_S", 1.5)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_an_agent_with_anothers_user_name_says_whose_it_needs(
    guarded: Callable[[str], str], federation: Callable[..., Federation], hasty: None, caplog, protocol: str
) -> None:
    fleet = federation(guarded("aggregator"), protocol)
    aggregator = fleet.aggregator(rounds={"min_reports": 1})
    fleet.agent("pi-02", mqtt={**fleet._mqtt, "url": guarded("pi-01")})
    needs = "its MQTT user name, or the common name of its certificate, must be its device_id, 'pi-02'"
    eventually(lambda: [line for line in caplog.messages if needs in line], 10.0)
    told = [line for line in caplog.messages if needs in line]
    assert told[0].startswith(
        "the broker refuses our publish on" if protocol == "5" else "the broker does not give our own status back"
    )
    assert "pi-02" not in aggregator.host.machine.presence.statuses


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_an_agent_that_fits_says_nothing_of_it(
    guarded: Callable[[str], str], federation: Callable[..., Federation], hasty: None, caplog, protocol: str
) -> None:
    fleet = federation(guarded("aggregator"), protocol)
    aggregator = fleet.aggregator(rounds={"min_reports": 2, "expect": 2})
    agent = fleet.agent("pi-01", mqtt={**fleet._mqtt, "url": guarded("pi-01")})
    eventually(lambda: aggregator.host.machine.presence.is_present("pi-01"))
    eventually(lambda: protocol == "5" or agent.host._misfit.written, 5.0)  # read back, with the shipped ACL
    eventually(lambda: agent.host.now() > agent.host._misfit._since + 2.0)
    assert not [line for line in caplog.messages if "device_id" in line or "manifest on" in line]
    assert agent.host.machine.dropped == 0


def test_an_agent_of_a_misspelt_federation_says_so(
    guarded: Callable[[str], str], federation: Callable[..., Federation], hasty: None, caplog
) -> None:
    fleet = federation(guarded("aggregator"))
    fleet.aggregator(rounds={"min_reports": 1})
    fleet.name = "fleeet"
    fleet.agent("pi-01", mqtt={**fleet._mqtt, "url": guarded("pi-01")})
    eventually(lambda: [line for line in caplog.messages if "no manifest on 'edgefl/2/fleeet/manifest'" in line], 10.0)


def test_an_agent_whose_byte_budget_is_spent_does_not_wonder_that_it_hears_nothing(
    guarded: Callable[[str], str], federation: Callable[..., Federation], hasty: None, caplog
) -> None:
    fleet = federation(guarded("aggregator"))
    limits = {"max_mb_per_day": 0.001}  # less than the first connection takes
    agent = fleet.agent("pi-01", mqtt={**fleet._mqtt, "url": guarded("pi-01")}, limits=limits)
    eventually(lambda: agent.host.machine.status.sits_out)
    eventually(lambda: agent.host._misfit._since is not None)
    eventually(lambda: agent.host.now() > agent.host._misfit._since + 3.0)
    assert not [line for line in caplog.messages if "no manifest on" in line]


def test_an_aggregator_that_may_not_write_says_whose_user_name_it_needs(
    guarded: Callable[[str], str], federation: Callable[..., Federation], caplog
) -> None:
    fleet = federation(guarded("pi-01"))
    fleet.aggregator()
    eventually(lambda: [line for line in caplog.messages if "user name 'aggregator'" in line], 10.0)


def test_the_times_are_those_that_the_documentation_tells() -> None:
    assert (PATIENCE_S, AGAIN_S, refusals.AGAIN_S) == (30, 600, 600)
