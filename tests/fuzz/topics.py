"""Topics and names: what is parsed is built again; a name that is accepted has one level and no wildcard.

A line each: root, federation, device, topic. MQTT libraries give topics as text, so bytes that are no UTF-8 can't come.
"""

from __future__ import annotations

from collections.abc import Callable

from edgefl.errors import EdgeFLError
from edgefl.protocol.topics import Topics, aggregator_client_id, check_device_id, check_federation, check_root

LONGEST = 400


def seeds() -> list[bytes]:
    topics = Topics("digits")
    paths = (topics.update("dev-a", 12, 3), topics.model(4, 65535), topics.status("dev-a"), topics.inbox("d.1_2-x"))
    return [
        f"edgefl/2\ndigits\ndev-a\n{path}".encode() for path in (*paths, topics.manifest, "edgefl/2/digits/d/+/u/#")
    ]


def accepted(check: Callable[[str], str], name: str, levels: int) -> bool:
    try:
        assert check(name) == name
    except EdgeFLError:
        return False
    assert name and name.count("/") < levels and not set(name) & set("+#\0\n") and len(name) <= 64, name
    return True


def run(data: bytes) -> None:
    root, federation, device, topic = [*data.decode(errors="replace").split("\n", 3), "", "", "", ""][:4]
    all_sound = accepted(check_root, root, 2) & accepted(check_federation, federation, 1)
    if accepted(check_device_id, device, 1):
        assert device != "aggregator" and not device.startswith("agg-")
    if all_sound:
        look(Topics(federation, root), topic)
        assert len(aggregator_client_id(federation)) <= 23
    look(Topics("digits"), topic)


def look(topics: Topics, topic: str) -> None:
    assert topic.count("/") <= 7 or topics.model_part(topic) is None
    if (model := topics.model_part(topic)) is not None:
        assert topics.model(*model) == topic
    device = topics.device_of(topic)
    assert device is None or topic.startswith(f"{topics.base}/d/{device}/") or topic == f"{topics.base}/d/{device}"
    try:
        update = topics.parse_update(topic)
    except EdgeFLError:
        return
    assert topics.update(*update) == topic and update.device == device
