"""docs/brokers.md grants what a device needs and no more, and its configurations have the broker's profile."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any

import pages
import pytest
from conftest import ROOT
from edgefl_agent.config import AgentConfig

from edgefl.protocol.topics import Topics
from edgefl.settings import files

PAGE = ROOT / "docs" / "brokers.md"
BLOCKS = pages.blocks(PAGE)
ARN = "arn:aws:iot:REGION:ACCOUNT:"
THING = "${iot:Connection.Thing.ThingName}"


def policy() -> list[dict[str, Any]]:
    (block,) = [block for block in BLOCKS if block.language == "json"]
    found: list[dict[str, Any]] = json.loads(block.code)["Statement"]
    return found


def allows(action: str, kind: str, name: str, thing: str = "pi-01") -> bool:
    """Whether the policy lets that thing do `action` on a topic, a filter or a client id, as AWS reads it."""
    for statement in policy():
        actions, resources = ([x] if isinstance(x, str) else x for x in (statement["Action"], statement["Resource"]))
        patterns = [resource.replace(THING, thing) for resource in resources]
        if f"iot:{action}" in actions and any(fnmatchcase(f"{ARN}{kind}/{name}", pattern) for pattern in patterns):
            return True
    return False


TOPICS = Topics("my-fleet")
READS = [TOPICS.manifest, TOPICS.round, TOPICS.model(3, 1), TOPICS.inbox("pi-01"), TOPICS.status("pi-01")]


def test_aws_lets_a_device_do_all_that_it_does() -> None:
    assert allows("Connect", "client", "pi-01")
    assert allows("RetainPublish", "topic", TOPICS.status("pi-01"))
    assert allows("Publish", "topic", TOPICS.status("pi-01"))
    assert allows("Publish", "topic", TOPICS.update("pi-01", 7, 3))
    assert all(allows("Receive", "topic", topic) for topic in READS)
    assert all(allows("Subscribe", "topicfilter", topic) for topic in READS)


def test_aws_lets_a_device_do_nothing_else() -> None:
    others = [TOPICS.manifest, TOPICS.round, TOPICS.aggregator, TOPICS.model(0, 0), TOPICS.inbox("pi-01")]
    others += [TOPICS.status("pi-02"), TOPICS.update("pi-02", 7, 3), Topics("other").status("pi-01")]
    assert not any(allows("Publish", "topic", topic) for topic in others)
    assert not allows("RetainPublish", "topic", TOPICS.update("pi-01", 7, 3))
    hidden = [TOPICS.inbox("pi-02"), TOPICS.status("pi-02"), TOPICS.update("pi-01", 1, 0), TOPICS.aggregator]
    assert not any(allows("Receive", "topic", topic) for topic in hidden)
    assert not allows("Connect", "client", "pi-02")


def test_no_topic_has_more_slashes_than_aws_allows() -> None:
    assert TOPICS.update("pi-01", 2**32 - 1, 65534).count("/") <= 7


@pytest.mark.parametrize("profile", ["aws", "azure", "emqx", "hivemq"])
def test_each_hosted_broker_has_a_configuration_with_its_profile(profile: str) -> None:
    table = {"federation": "my-fleet", "device_id": "pi-01", "data": {"source": "digits"}}
    found = [
        files.build(AgentConfig, table | files.tomllib.loads(block.code))
        for block in BLOCKS
        if block.language == "toml"
    ]
    (config,) = [config for config in found if config.mqtt.profile == profile]
    assert config.mqtt.url.startswith("mqtts://")
