"""Client ids: what an MQTT 3.1.1 broker may refuse, and what a device may not be called."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from edgefl_agent.agent import Agent
from edgefl_agent.config import AgentConfig

from edgefl.errors import UsageError
from edgefl.protocol.topics import aggregator_client_id
from edgefl.transports.mqtt import Refused


@pytest.fixture
def strict_broker() -> Iterator[str]:
    """An MQTT 3.1.1 broker that answers every CONNECT with "identifier rejected"."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            peer.recv(4096)
            peer.sendall(b"\x20\x02\x00\x02")
            peer.close()

    threading.Thread(target=serve, daemon=True).start()
    yield f"mqtt://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


TOO_LONG = "an MQTT 3.1.1 broker may refuse more than 23 characters: set [mqtt] client_id"


@pytest.mark.parametrize(("client_id", "advice"), [("d" * 23, "choose another client id"), ("d" * 24, TOO_LONG)])
def test_a_refused_client_id_says_what_to_set(strict_broker, link, client_id, advice):
    device = link(strict_broker, client_id, protocol="3.1.1")
    device.start()
    refused = device.inbox.wait(Refused)
    assert advice in refused.reason and refused.fatal


def agent_config(tmp_path, **changes) -> AgentConfig:
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 2), np.float32), y=np.zeros(3, np.int64))
    mqtt = {"url": "mqtt://127.0.0.1:1"} | changes.pop("mqtt", {})
    table = {"federation": "pond", "device_id": "pi-1", "data": {"source": f"npz:{tmp_path}/data.npz"}, "mqtt": mqtt}
    return msgspec.convert(table | {"state_dir": str(tmp_path / "state")} | changes, AgentConfig)


AGGREGATORS = [{"device_id": aggregator_client_id("pond")}, {"device_id": "aggregator"}]


@pytest.mark.parametrize("changes", [*AGGREGATORS, {"mqtt": {"client_id": "agg-pond"}}])
def test_an_agent_does_not_start_under_an_aggregators_name(tmp_path, changes):
    """Two clients with one id would disconnect each other for as long as both run."""
    with pytest.raises(UsageError, match=r"is an aggregator's.*: choose another"):
        Agent(agent_config(tmp_path, **changes))


def test_an_agents_topics_begin_with_the_root(tmp_path):
    agent = Agent(agent_config(tmp_path, device_id="Pi_4.kitchen-" + "0" * 51, mqtt={"root": "lab/7"}))
    assert agent.machine.topics.status(agent.machine.device) == f"lab/7/pond/d/{agent.machine.device}/status"
    assert agent._will()[0].startswith("lab/7/pond/d/Pi_4.kitchen-")
    with pytest.raises(UsageError, match="root"):
        Agent(agent_config(tmp_path, mqtt={"root": "a/b/c"}, state_dir=str(tmp_path / "other")))
