"""Farewell: an agent that can't start tells the operator why, in its retained status, before it ends.

Else only its own log would tell, and the operator sees a device that is merely gone. An agent that could not even reach
the broker is as silent as before.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from edgefl.device.status import REASON
from edgefl.errors import EdgeFLError, StoreError, UsageError
from edgefl.hosting.store import is_claimed
from edgefl.protocol.messages import Status, encode
from edgefl.protocol.topics import Topics
from edgefl.protocol.trouble import Trouble

from .config import AgentConfig
from .first_look import WrongSpec

ANSWER_S = 5.0
BOOT = 0  # below that of every start: the next one's status replaces it
SPEC = "its [data] source can't be used as it is written: the log on the device says why"
log = logging.getLogger("edgefl.agent")


def is_free(config: AgentConfig) -> bool:
    """Whether no agent runs with this configuration: its client id and its status are its own."""
    try:
        return not is_claimed(Path(config.state_dir))
    except StoreError:
        return False


def say(config: AgentConfig, error: EdgeFLError) -> None:
    """Publish why the agent ends; nothing happens if the broker can't be reached, or does not allow it."""
    from edgefl.checks.probe import Probe

    with suppress(EdgeFLError, OSError), Probe(config.mqtt, config.device_id) as probe:
        if probe.refused:
            log.warning("the broker can't be told: %s", probe.refused)
            return
        topic = Topics(config.federation, config.mqtt.root).status(config.device_id)
        why = _why(error)
        probe.publish(topic, encode(Status("trouble", BOOT, 0, why.text[:REASON], why.code)), retain=True)
        probe.wait(lambda: topic in probe.answers, ANSWER_S)


def _why(error: EdgeFLError) -> Trouble:
    """What may be told: a data SPEC that is wrong is told without the error's text, which may quote the data."""
    if isinstance(error, WrongSpec):
        return Trouble("data", SPEC)
    if isinstance(error, UsageError):
        return Trouble("settings", f"it can't start: {error}")
    return Trouble.of(error)
